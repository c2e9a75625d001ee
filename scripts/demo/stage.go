package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

// stage holds what the demo started and made.
type stage struct {
	bin, source, sdk string
	work             string
	config           string // sections of the agent's configuration beside those that every demo has
	began            time.Time
	modules          []module
	leftOut          []string
	hub              *exec.Cmd
	agent            *exec.Cmd
	hubHTTPS         string
	hubMQTT          string
	link             *link
	events           *ledger // filled live from the hub's event stream
	follow           *exec.Cmd
}

func (s *stage) runDir() string { return filepath.Join(s.work, "run") }

func (s *stage) say(format string, args ...any) {
	fmt.Printf("demo: %6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// step runs act and says what was done and how long it took.
func (s *stage) step(what string, act func() error) error {
	start := time.Now()
	if err := act(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	s.say("%s (%.1fs)", what, time.Since(start).Seconds())
	return nil
}

// until asks again and again until ask says yes, for at most limit.
func until(ctx context.Context, limit time.Duration, what string, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		ok, err := ask()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s: not within %s", what, limit), err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// tool runs one of the three binaries and returns what it printed.
func (s *stage) tool(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, errs.String())
	}
	return out.Bytes(), nil
}

// sandpiper runs a verb against the demo's agent.
func (s *stage) sandpiper(ctx context.Context, args ...string) ([]byte, error) {
	return s.tool(ctx, "sandpiper", append([]string{"--run-dir", s.runDir()}, args...)...)
}

// spawn starts a long-running binary with its output in a file.
func (s *stage) spawn(name string, args ...string) (*exec.Cmd, error) {
	log, err := os.OpenFile(filepath.Join(s.work, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the terminal's interrupt is ours alone to hand on
	return cmd, cmd.Start()
}

// agentStatus is what the demo reads of `sandpiper status --json`.
type agentStatus struct {
	Pid          int     `json:"pid"`
	ReadySeconds float64 `json:"readySeconds"`
	Modules      []struct {
		Name    string    `json:"name"`
		Status  string    `json:"status"`
		Why     string    `json:"why"`
		Pid     int       `json:"pid"`
		Started time.Time `json:"started"`
	} `json:"modules"`
}

func (s *stage) status(ctx context.Context) (agentStatus, error) {
	var st agentStatus
	raw, err := s.sandpiper(ctx, "status", "--json")
	if err == nil {
		err = json.Unmarshal(raw, &st)
	}
	return st, err
}

// births are the start times of the running modules.
type births map[string]time.Time

func (b births) String() string {
	var names []string
	for name := range b {
		names = append(names, name)
	}
	sort.Strings(names)
	for i, name := range names {
		names[i] = name + " since " + b[name].Format("15:04:05.000")
	}
	return strings.Join(names, ", ")
}

func (s *stage) instances(ctx context.Context) (births, error) {
	st, err := s.status(ctx)
	b := births{}
	for _, m := range st.Modules {
		if m.Status == "running" {
			b[m.Name] = m.Started
		}
	}
	if err == nil && len(b) != len(s.modules) {
		err = fmt.Errorf("%d modules are running, want %d", len(b), len(s.modules))
	}
	return b, err
}

func same(a, b births) error {
	for name, at := range a {
		if !b[name].Equal(at) {
			return fmt.Errorf("%s started at %s before and at %s after", name, at, b[name])
		}
	}
	return nil
}

// strike ends everything the demo started and removes its files; after a failure the logs are kept and named.
func (s *stage) strike(failed bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	var errs []error
	if s.link != nil {
		s.link.cut()
	}
	if s.agent != nil {
		if st, err := s.status(ctx); err == nil {
			for _, m := range st.Modules {
				if m.Pid != 0 {
					_, err := s.sandpiper(ctx, "module", "stop", m.Name)
					errs = append(errs, err)
				}
			}
		}
		errs = append(errs, end(s.agent, 20*time.Second))
	}
	if s.follow != nil {
		_ = end(s.follow, 5*time.Second) // it ends by the signal, which is no success to it
	}
	if s.hub != nil {
		errs = append(errs, end(s.hub, 20*time.Second))
	}
	if failed {
		s.say("the logs are kept in %s", s.work)
		for _, name := range []string{"sandpiper.log", "sandpiper-hub.log"} {
			s.tail(name, 15)
		}
		return errors.Join(errs...)
	}
	errs = append(errs, os.RemoveAll(s.work))
	return errors.Join(errs...)
}

func (s *stage) tail(name string, n int) {
	raw, err := os.ReadFile(filepath.Join(s.work, name))
	if err != nil {
		return
	}
	lines := strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
	for _, line := range lines[max(0, len(lines)-n):] {
		fmt.Printf("  %s: %s\n", name, line)
	}
}

// end asks a process to end, and makes it when it does not.
func end(cmd *exec.Cmd, grace time.Duration) error {
	if cmd.ProcessState != nil {
		return nil
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(grace):
		_ = cmd.Process.Kill() // it may have ended this very moment
		<-done
		return fmt.Errorf("%s did not end within %s of SIGTERM", filepath.Base(cmd.Path), grace)
	}
}
