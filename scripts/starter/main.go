// Command starter makes sandboxes for the benchmark, as the agent does: inside a process that is as large as the agent's and holds
// everything the agent links. It is built as the device binary is (scripts/device), so that what is started again inside each
// sandbox is too.
//
//	starter bundle RUNDIR DIR SPEC    writes the OCI bundle of the same sandbox for the peers, waits for its input to end, cleans up
//	starter output RUNDIR SPEC        runs one sandbox and prints what it wrote
//	starter safe RUNDIR SPEC          for each line of its input runs one sandbox whose module holds a simulated relay high, kills its
//	                                  program with SIGKILL and prints "ok NANOSECONDS" from the signal to the safe level on the pin
//	starter probe                     prints what a process here can do (sandbox/effective)
//	starter serve RUNDIR GROUP SPEC   for each line of its input ("memory in bytes"; 0 is SPEC's own) runs one sandbox from Create to
//	                                  Destroy and prints "ok" or "error TEXT"; GROUP is "warm" where another sandbox is to stand
//	                                  beside it, so that the cgroup above them stays, and "cold" where none is
//
// SPEC is a sandbox.Spec as JSON.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent"
	"github.com/sandpiper-edge/sandpiper/sandbox"
	"github.com/sandpiper-edge/sandpiper/sandbox/container"
	"github.com/sandpiper-edge/sandpiper/sandbox/effective"
)

func main() {
	container.Init() // as in cmd/sandpiper
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "starter:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 1 && args[0] == "probe" {
		return json.NewEncoder(os.Stdout).Encode(effective.Run())
	}
	if len(args) < 3 {
		if len(args) == 1 && args[0] == "agent" { // never asked for: it keeps the agent linked
			a, err := agent.New(context.Background(), agent.Config{}, agent.Options{})
			if err != nil {
				return err
			}
			return a.Run(context.Background())
		}
		return fmt.Errorf("usage: starter bundle RUNDIR DIR SPEC | serve RUNDIR GROUP SPEC | output RUNDIR SPEC | probe")
	}
	r, err := container.New(container.Config{StateDir: args[1]})
	if err != nil {
		return err
	}
	var s sandbox.Spec
	if err := json.Unmarshal([]byte(args[len(args)-1]), &s); err != nil {
		return fmt.Errorf("spec: %w", err)
	}
	if args[0] == "bundle" {
		remove, err := r.Bundle(s, args[2])
		if err != nil {
			return err
		}
		fmt.Println("ok")
		_, err = io.Copy(io.Discard, os.Stdin)
		return joinFirst(err, remove())
	}
	switch args[0] {
	case "output":
		return output(r, s)
	case "safe":
		return safe(r, s)
	}
	if args[2] == "warm" { // as on a device that runs a module already, and as the peers find it after their first start
		other := s
		other.ID, other.IDBase = "other", s.IDBase+sandbox.IDCount
		neighbour, err := r.Create(context.Background(), other)
		if err != nil {
			return err
		}
		defer func() { _ = neighbour.Destroy() }()
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		memory, err := strconv.ParseInt(in.Text(), 10, 64)
		if err != nil {
			return err
		}
		one := s
		if memory > 0 {
			one.Limits.Memory = memory
		}
		if err := start(r, one); err != nil {
			fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Println("ok")
	}
	return in.Err()
}

func joinFirst(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// output prints what the program wrote to its log.
func output(r *container.Runtime, s sandbox.Spec) error {
	log, err := sandbox.OpenLog(s.LogPath)
	if err != nil {
		return err
	}
	defer log.Close()
	if err := start(r, s); err != nil {
		return err
	}
	if err := log.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil { // it has ended: all of it is there
		return err
	}
	if _, err := io.Copy(os.Stdout, log); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

// start runs the program to its end and leaves nothing behind.
func start(r *container.Runtime, s sandbox.Spec) error {
	ctx := context.Background()
	i, err := r.Create(ctx, s)
	if err != nil {
		return err
	}
	err = i.Start()
	var exit sandbox.Exit
	if err == nil {
		exit, err = i.Wait(ctx)
	}
	err = joinFirst(err, i.Destroy())
	if err == nil && exit.Code != 0 {
		err = fmt.Errorf("exit code %d (oom %v)", exit.Code, exit.OOM)
	}
	return err
}
