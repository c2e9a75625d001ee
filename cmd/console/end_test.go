package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/spf13/cobra"
)

// device is a command as the three are made.
func device(fails error) *cobra.Command {
	verb := func(use string, args cobra.PositionalArgs) *cobra.Command {
		c := &cobra.Command{Use: use, Args: args, RunE: func(*cobra.Command, []string) error { return fails }}
		c.Flags().String("to", "", "")
		return c
	}
	required := verb("call", cobra.NoArgs)
	_ = required.MarkFlagRequired("to") // verb makes it
	root := &cobra.Command{Use: "device"}
	root.SetOut(&bytes.Buffer{})
	root.AddCommand(Group("module", "Modules", verb("stop MODULE", cobra.ExactArgs(1)), verb("logs MODULE [LINE...]", cobra.MinimumNArgs(1)), required))
	return root
}

func TestWhatWasTypedIsToldFromWhatFailed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		typed []string
		fails error
		code  int
		says  string
	}{
		"done":                     {[]string{"module", "stop", "m"}, nil, 0, ""},
		"failed":                   {[]string{"module", "stop", "m"}, errors.New("no\n\tagent"), 1, "device: no agent\n"},
		"a code of its own":        {[]string{"module", "stop", "m"}, fmt.Errorf("run: %w", Exit(7)), 7, ""},
		"its own usage":            {[]string{"module", "stop", "m"}, Usagef("%q is no time", "x"), 2, "device: \"x\" is no time; see `device help module stop`\n"},
		"usage within a path":      {[]string{"module", "stop", "m"}, fmt.Errorf("read: %w", Usagef("no")), 2, "device: read: no; see `device help module stop`\n"},
		"no verb":                  {[]string{"module"}, nil, 2, "device: module: a verb is missing, one of call, logs, stop; see `device help module`\n"},
		"a verb that is none":      {[]string{"module", "halt", "m"}, nil, 2, "device: module: unknown verb \"halt\", want one of call, logs, stop; see `device help module`\n"},
		"a command that is none":   {[]string{"modul"}, nil, 2, "device: unknown command \"modul\" for \"device\" Did you mean this? module; see `device help`\n"},
		"an argument too many":     {[]string{"module", "call", "--to", "x", "y"}, nil, 2, "device: module call: want no argument; see `device help module call`\n"},
		"a shell that is none":     {[]string{"completion", "tcsh"}, nil, 2, "device: completion: unknown verb \"tcsh\", want one of bash, fish, powershell, zsh; see `device help completion`\n"},
		"completion of no shell":   {[]string{"completion"}, nil, 2, "device: completion: a verb is missing, one of bash, fish, powershell, zsh; see `device help completion`\n"},
		"too few arguments":        {[]string{"module", "stop"}, nil, 2, "device: module stop: want MODULE; see `device help module stop`\n"},
		"none of several":          {[]string{"module", "logs"}, nil, 2, "device: module logs: want MODULE [LINE...]; see `device help module logs`\n"},
		"a flag that is none":      {[]string{"module", "stop", "--now"}, nil, 2, "device: unknown flag: --now; see `device help module stop`\n"},
		"a flag that is missing":   {[]string{"module", "call"}, nil, 2, "device: required flag(s) \"to\" not set; see `device help module call`\n"},
		"a flag without its value": {[]string{"module", "stop", "m", "--to"}, nil, 2, "device: flag needs an argument: --to; see `device help module stop`\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var errs bytes.Buffer
			code := Execute(context.Background(), device(c.fails), c.typed, &errs)
			if code != c.code || errs.String() != c.says {
				t.Errorf("got %d, %q, want %d, %q", code, errs.String(), c.code, c.says)
			}
		})
	}
}

func TestUsageOfNothingIsNothing(t *testing.T) {
	t.Parallel()
	if err := Usage(nil); err != nil {
		t.Errorf("got %v, want nil", err)
	}
	cause := errors.New("x")
	if !errors.Is(Usage(cause), cause) {
		t.Error("the cause is lost")
	}
}

func TestACommandThatASignalEndedSaysNoMore(t *testing.T) {
	t.Parallel()
	for by, want := range map[error]int{nil: 130, signalled(syscall.SIGINT): 130, signalled(syscall.SIGTERM): 143} {
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(by)
		for _, fails := range []error{ctx.Err(), context.Cause(ctx)} {
			var errs bytes.Buffer
			if code := Execute(ctx, device(fmt.Errorf("read: %w", fails)), []string{"module", "stop", "m"}, &errs); code != want || errs.Len() != 0 {
				t.Errorf("%v: got %d, %q, want %d and nothing", by, code, errs.String(), want)
			}
		}
	}
}

func TestWhatNobodyReadsIsNoFailure(t *testing.T) {
	t.Parallel()
	broken := &fs.PathError{Op: "write", Path: os.Stdout.Name(), Err: syscall.EPIPE}
	for claim, c := range map[string]struct {
		err  error
		code int
	}{
		"standard output": {fmt.Errorf("print: %w", broken), 141},
		"another pipe":    {&fs.PathError{Op: "write", Path: "/tmp/fifo", Err: syscall.EPIPE}, 1},
		"another failure": {&fs.PathError{Op: "write", Path: os.Stdout.Name(), Err: syscall.ENOSPC}, 1},
	} {
		var errs bytes.Buffer
		if code := Execute(t.Context(), device(c.err), []string{"module", "stop", "m"}, &errs); code != c.code || (errs.Len() == 0) != (code == 141) {
			t.Errorf("%s: got %d, %q, want %d", claim, code, errs.String(), c.code)
		}
	}
}
