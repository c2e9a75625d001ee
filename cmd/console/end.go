package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// usage is a mistake in how the command was typed.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

// Usage marks err as a mistake in how the command was typed. nil stays nil.
func Usage(err error) error {
	if err == nil {
		return nil
	}
	return usage{err}
}

// Usagef is [Usage] of a new error.
func Usagef(format string, args ...any) error { return usage{fmt.Errorf(format, args...)} }

type exit struct{ code int }

func (e exit) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// Exit ends the process with a code of its own and no further word.
func Exit(code int) error { return exit{code} }

// OneLine is the text of err with every run of white space made one space.
func OneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// codes is what a script needs to know of every verb.
const codes = `Errors are one line on standard error. Exit codes: 0 done, 1 failed, 2 typed wrong, 130 and 143 ended by SIGINT and SIGTERM.
--json prints documents, and nothing else, on standard output; lists are never null.`

// signalled is the signal that ended a command.
type signalled syscall.Signal

func (s signalled) Error() string      { return syscall.Signal(s).String() }
func (signalled) Is(target error) bool { return target == context.Canceled }

// Main runs a command as the process: SIGINT and SIGTERM end its context.
func Main(run func(ctx context.Context) int) int {
	ctx, end := context.WithCancelCause(context.Background())
	defer end(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		if s, ok := (<-signals).(syscall.Signal); ok {
			end(signalled(s))
		}
	}()
	return run(ctx)
}

// endedBy is the exit code of a command that a signal ended, as a shell has it: 128 and its number.
func endedBy(ctx context.Context) int {
	s := signalled(syscall.SIGINT)
	_ = errors.As(context.Cause(ctx), &s) // else somebody else ended it
	return 128 + int(s)
}

// unread tells whether nobody reads what a command prints any more, as in `| head`.
func unread(err error) bool {
	path, ok := errors.AsType[*fs.PathError](err)
	return ok && path.Path == os.Stdout.Name() && errors.Is(err, syscall.EPIPE)
}

// Execute runs the command with the arguments as typed, prints what went wrong as one line on stderr and returns the exit code.
func Execute(ctx context.Context, root *cobra.Command, args []string, stderr io.Writer) int {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.Long = root.Short + ".\n\n" + codes
	root.InitDefaultCompletionCmd()
	if c, _, err := root.Find([]string{"completion"}); err == nil && c != root {
		holdsOthers(c)
	}
	root.SetErr(stderr)
	root.SetArgs(args)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return Usage(err) })
	c, err := root.ExecuteContextC(ctx)
	var own exit
	var typed usage
	switch {
	case err == nil:
		return 0
	case errors.As(err, &own):
		return own.code
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return endedBy(ctx) // who ended it knows
	case unread(err):
		return 128 + int(syscall.SIGPIPE) // as where the signal is not ignored
	}
	path := strings.TrimPrefix(c.CommandPath(), root.Name())
	if !errors.As(err, &typed) {
		words := mistyped(path, c, err)
		if words == nil {
			fmt.Fprintf(stderr, "%s: %s\n", root.Name(), OneLine(err))
			return 1
		}
		err = words
	}
	fmt.Fprintf(stderr, "%s: %s; see `%s help%s`\n", root.Name(), OneLine(err), root.Name(), path)
	return 2
}

// mistyped tells the mistakes that cobra finds and gives no type, and says which arguments are wanted where it only counts them. nil: it is none.
func mistyped(path string, c *cobra.Command, err error) error {
	text := err.Error()
	if strings.HasPrefix(text, "unknown command") && !c.HasSubCommands() {
		return fmt.Errorf("%s: want no argument", strings.TrimSpace(path))
	}
	for _, prefix := range []string{"accepts ", "requires at least"} {
		if strings.HasPrefix(text, prefix) {
			_, want, _ := strings.Cut(c.Use, " ")
			return fmt.Errorf("%s: want %s", strings.TrimSpace(path), want)
		}
	}
	for _, prefix := range []string{"unknown command", "required flag", "if any flags in the group"} {
		if strings.HasPrefix(text, prefix) {
			return err
		}
	}
	return nil
}

// Group is a command that only holds others. Without one of them, or with a word that is none, it is [Usage] and not help with exit code 0,
// so that a script does not take a verb that it misspelt for done.
func Group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short}
	holdsOthers(c)
	c.AddCommand(verbs...)
	return c
}

// holdsOthers has a command refuse what is none of the others.
func holdsOthers(c *cobra.Command) {
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		var names []string
		for _, verb := range c.Commands() {
			if verb.IsAvailableCommand() {
				names = append(names, verb.Name())
			}
		}
		what := strings.Join(names, ", ")
		if len(args) == 0 {
			return Usagef("%s: a verb is missing, one of %s", c.Name(), what)
		}
		return Usagef("%s: unknown verb %q, want one of %s", c.Name(), args[0], what)
	}
}
