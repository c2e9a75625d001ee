package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/sandpiper-edge/sandpiper/scripts/lab/powercut/writelog"
)

func main() {
	code, err := command(os.Args[1:], os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "powercut:", err)
	}
	os.Exit(code)
}

// command runs one verb; exit codes: 0 done, 1 the store did not keep its word, 2 usage.
func command(args []string, in io.Reader, out io.Writer) (int, error) {
	if len(args) == 0 {
		return 2, errors.New("say work, check or checks")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	trace := flags.Bool("trace", false, "let the tracer see every write and flush")
	nosync := flags.Bool("nosync", false, "flushes do nothing: the control")
	lying := flags.Bool("lying", false, "the disk ignored flushes: loss is excused, death is not")
	if err := flags.Parse(args[1:]); err != nil {
		return 2, err
	}
	var ledger Ledger
	if flags.NArg() > 1 {
		f, err := os.Open(flags.Arg(1))
		if err != nil {
			return 2, err
		}
		defer f.Close()
		if err := ledger.Read(f); err != nil {
			return 2, err
		}
	}
	switch args[0] {
	case "work":
		if *nosync {
			if err := writelog.IgnoreFlushes(); err != nil {
				return 2, err
			}
		}
		if *trace {
			if err := writelog.Trace(); err != nil {
				return 2, err
			}
		}
		if err := work(context.Background(), flags.Arg(0), ledger, out); err != nil {
			return 1, err
		}
		return 0, nil
	case "check":
		v := check(flags.Arg(0), ledger, *lying)
		text, err := json.Marshal(v)
		if err != nil {
			return 2, err
		}
		fmt.Fprintf(out, "verdict %s\n", text)
		if len(v.Wrong) > 0 || len(v.Lost) > 0 && !*lying {
			return 1, nil
		}
		return 0, nil
	case "checks":
		return 0, checks(in, out)
	}
	return 2, fmt.Errorf("no verb %s; there are work, check and checks", args[0])
}

// task is one folder to check.
type task struct {
	Dir    string
	Ledger Ledger
	Lying  bool
}

// checks reads tasks and writes verdicts.
func checks(in io.Reader, out io.Writer) error {
	tasks, verdicts := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var t task
		if err := tasks.Decode(&t); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read task: %w", err)
		}
		if err := verdicts.Encode(check(t.Dir, t.Ledger, t.Lying)); err != nil {
			return fmt.Errorf("write verdict: %w", err)
		}
	}
}
