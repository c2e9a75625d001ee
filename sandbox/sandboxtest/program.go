package sandboxtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// Program stands for what runs in a sandbox. It returns the exit code, and must
// return when ctx ends: that is SIGKILL.
type Program func(ctx context.Context, p *Process) int

// Process is what a Program sees of its sandbox.
type Process struct {
	Args, Env []string
	Signals   <-chan syscall.Signal // every signal but SIGKILL

	instance *FakeInstance
	out      io.Writer
	closer   io.Closer
}

// Instance is the sandbox the program runs in; its Dial reaches the agent.
func (p *Process) Instance() *FakeInstance { return p.instance }

// Print writes a line to the log FIFO, if the Spec names one.
func (p *Process) Print(line string) {
	if p.out == nil {
		p.out = io.Discard
		if path := p.instance.spec.LogPath; path != "" {
			f, err := sandbox.OpenLogWriter(path)
			if err != nil {
				return // as a program whose output is closed
			}
			p.out, p.closer = f, f
		}
	}
	_, _ = fmt.Fprintln(p.out, line) // as echo does: nobody to tell
}

func (p *Process) close() {
	if p.closer != nil {
		_ = p.closer.Close()
	}
}

func (p *Process) run(ctx context.Context, program Program) sandbox.Exit {
	code := program(ctx, p)
	var f forced
	switch {
	case errors.As(context.Cause(ctx), &f):
		return f.exit
	case ctx.Err() != nil:
		return killed
	}
	return sandbox.Exit{Code: code, Known: true}
}

// Missing is a program that is in no root: Create refuses it.
const Missing = "/nonexistent/program"

// Scripts of the suite. A real runtime gives them to a shell; [Shell] knows
// what each does.
const (
	// ScriptExit ends with code 7.
	ScriptExit = `exit 7`
	// ScriptHold prints "ready", and ends with code 3 on SIGTERM.
	ScriptHold = `trap 'exit 3' TERM; echo ready; while :; do sleep 1000 & wait $!; done`
	// ScriptDeaf prints "ready", and ignores SIGTERM.
	ScriptDeaf = `trap '' TERM; echo ready; while :; do sleep 1000; done`
	// ScriptPrint prints "one" and "two" and ends with code 0.
	ScriptPrint = `echo one; echo two >&2`
	// ScriptDial sends "ping" to 127.0.0.1:8883, prints the line it gets, and
	// ends with code 0; 1 when nobody listens.
	ScriptDial = `exec 3<>/dev/tcp/127.0.0.1/8883 || exit 1; echo ping >&3; read -r line <&3; echo "$line"`
)

// Shell stands for a shell that knows the scripts of this package. Whatever else
// it is asked to run behaves like a well-made module: it runs until SIGTERM or
// SIGINT, and then ends with code 0.
func Shell(ctx context.Context, p *Process) int {
	script := p.Args[len(p.Args)-1]
	switch script {
	case ScriptExit:
		return 7
	case ScriptPrint:
		p.Print("one")
		p.Print("two")
		return 0
	case ScriptDial:
		return dial(ctx, p)
	case ScriptHold, ScriptDeaf:
		p.Print("ready")
	}
	for {
		select {
		case <-ctx.Done():
			return 0
		case s := <-p.Signals:
			switch {
			case script == ScriptDeaf, s != syscall.SIGTERM && s != syscall.SIGINT:
			case script == ScriptHold:
				return 3
			default:
				return 0
			}
		}
	}
}

func dial(ctx context.Context, p *Process) int {
	c, err := p.instance.Dial(ctx, "tcp", "127.0.0.1:8883")
	if err != nil {
		return 1
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	if _, err := fmt.Fprintln(c, "ping"); err != nil {
		return 1
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return 1
	}
	p.Print(line[:len(line)-1])
	return 0
}
