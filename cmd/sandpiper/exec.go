package main

import (
	"cmp"
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
)

// execCommand runs a program inside a module.
func (s *shared) execCommand() *cobra.Command {
	var want control.ExecRequest
	var tty, plain bool
	c := &cobra.Command{
		Use:   "exec MODULE [--] PROGRAM [ARGUMENT...]",
		Short: "Run a program in the sandbox of a running module, with a terminal when this one is",
		Args:  cobra.MinimumNArgs(2), ValidArgsFunction: s.moduleNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if want.Args = args[1:]; want.Args[0] == "--" {
				want.Args = want.Args[1:]
			}
			if len(want.Args) == 0 {
				return console.Usagef("there is no program to run")
			}
			for _, entry := range want.Env {
				if key, _, ok := strings.Cut(entry, "="); !ok || key == "" {
					return console.Usagef("--env %s: want KEY=value", entry)
				}
			}
			terminal, _ := s.stdin.(*os.File)
			_, err := terminalSize(terminal)
			if tty = (tty || err == nil) && !plain; tty {
				size, _ := terminalSize(terminal) // zero = the kernel's default
				want.Terminal = &size
				want.Env = append([]string{"TERM=" + cmp.Or(os.Getenv("TERM"), "xterm")}, want.Env...) // what draws needs it
			}
			code, err := s.execIn(cmd.Context(), args[0], want, terminal)
			if err == nil && code != 0 {
				err = console.Exit(code)
			}
			return err
		},
	}
	c.Flags().SetInterspersed(false)
	c.Flags().BoolVarP(&tty, "tty", "t", false, "give the program a terminal even when this is none")
	c.Flags().BoolVarP(&plain, "no-tty", "T", false, "give it none")
	c.Flags().StringVarP(&want.User, "user", "u", "", "run as this user of the sandbox (default the module's)")
	c.Flags().StringVarP(&want.Cwd, "workdir", "w", "", "start in this directory (default the module's)")
	c.Flags().StringArrayVarP(&want.Env, "env", "e", nil, "KEY=value on top of the module's environment")
	return c
}

// execIn connects the streams of this process with those of a program in a module.
func (s *shared) execIn(ctx context.Context, module string, want control.ExecRequest, terminal *os.File) (int, error) {
	with := control.Streams{In: s.stdin, Out: s.out, Err: s.err}
	if want.Terminal != nil && want.Terminal.Rows != 0 {
		restore, err := rawTerminal(terminal)
		if err != nil {
			return 0, err
		}
		defer restore()
		changed := make(chan os.Signal, 1)
		signal.Notify(changed, syscall.SIGWINCH)
		defer signal.Stop(changed)
		sizes := make(chan control.Size, 1)
		with.Resize = sizes
		done := make(chan struct{})
		defer close(done)
		go func() {
			for {
				select {
				case <-changed:
					if size, err := terminalSize(terminal); err == nil {
						select {
						case sizes <- size:
						case <-done:
						}
					}
				case <-done:
					return
				}
			}
		}()
	}
	return s.client().Exec(ctx, module, want, with)
}

// terminalSize is that of f, an error when it is no terminal.
func terminalSize(f *os.File) (control.Size, error) {
	if f == nil {
		return control.Size{}, os.ErrInvalid
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return control.Size{}, err
	}
	return control.Size{Rows: size.Row, Cols: size.Col}, nil
}

// rawTerminal has every key go to the program, ^C too, until restore.
func rawTerminal(f *os.File) (restore func(), err error) {
	was, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, os.NewSyscallError("tcgetattr", err)
	}
	raw := *was // as cfmakeraw(3) does
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &raw); err != nil {
		return nil, os.NewSyscallError("tcsetattr", err)
	}
	return func() { _ = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, was) }, nil
}
