package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// begun is a verb that runs as a process of its own.
type begun struct {
	cmd       *exec.Cmd
	out, errs words
}

// begin starts a verb on this device.
func (d *device) begin(args ...string) *begun {
	d.t.Helper()
	self, err := os.Executable()
	if err != nil {
		d.t.Fatal(err)
	}
	b := &begun{cmd: exec.Command(self, append([]string{"--run-dir", d.path("run")}, args...)...)}
	b.cmd.Stdout, b.cmd.Stderr = &b.out, &b.errs
	if err := b.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = b.cmd.Process.Kill() }) // it has ended, unless the test failed
	return b
}

// end has a verb end by a signal, and returns its exit code.
func (b *begun) end(s os.Signal) int {
	if err := b.cmd.Process.Signal(s); err != nil {
		return -1
	}
	if err := b.cmd.Wait(); err != nil && b.cmd.ProcessState == nil {
		return -1
	}
	return b.cmd.ProcessState.ExitCode()
}

// replaceAgent has another agent in the place of the one that runs.
func (d *device) replaceAgent(how syscall.Signal) {
	d.t.Helper()
	before, err := d.client().Status(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	if err := syscall.Kill(before.Pid, how); err != nil {
		d.t.Fatal(err)
	}
	d.until("another agent answers", func() (bool, string) {
		now, err := d.client().Status(d.t.Context())
		return err == nil && now.Pid != before.Pid, fmt.Sprint(now.Pid, err)
	})
}

const awaySaid = "sandpiper: the agent is away; waiting\n"

// TestWhoFollowsStaysOverAgents: every verb that goes on until it is interrupted, over an agent that is killed and one that leaves as for an upgrade.
func TestWhoFollowsStaysOverAgents(t *testing.T) {
	t.Parallel()
	d := startDevice(t, tank)
	images := map[string]string{
		"counter": d.bundle("counter", `n=0; while n=$((n+1)); do echo "line $n"; "$SANDPIPER" send --output out "number $n" 2>/dev/null; sleep 0.05; done`),
		"eater":   d.bundle("eater", `exec "$SANDPIPER" receive`),
	}
	route := `FROM /messages/modules/counter/outputs/out INTO BrokeredEndpoint("/modules/eater/inputs/in")`
	want := withSettings(t, manifest(map[string]string{"r": route}, images), "eater", "on-failure", nil)
	if _, err := d.client().Apply(t.Context(), []byte(want)); err != nil {
		t.Fatal(err)
	}
	d.untilRunning("counter", "eater")
	d.until("a message is eaten", func() (bool, string) { log := d.logs("eater"); return strings.Contains(log, "number"), log })
	births := d.births()
	text, doc := d.begin("module", "logs", "-f", "counter"), d.begin("module", "logs", "-f", "--json", "--stream", "stdout", "counter")
	glances := []*begun{d.begin("status", "--watch"), d.begin("module", "stats", "--watch", "--json")}
	edges := d.begin("hal", "watch", "door", "--json")
	level := 0
	seen := func(b *begun) int { return strings.Count(b.out.String(), "\n") }
	more := func(what string) {
		t.Helper()
		before, eaten := seen(text), len(d.logs("eater"))
		d.until("lines come "+what, func() (bool, string) {
			return seen(text) > before+3 && len(d.logs("eater")) > eaten, fmt.Sprint(text.out.String(), text.errs.String(), d.logs("eater"))
		})
		before = seen(edges)
		d.until("edges come "+what, func() (bool, string) {
			level = 1 - level
			said := d.hal("sim", "set", "door", fmt.Sprint(level))
			return seen(edges) > before, said + edges.errs.String()
		})
	}
	more("at first")
	d.replaceAgent(syscall.SIGKILL)
	more("from the next agent")
	d.replaceAgent(syscall.SIGHUP)
	more("from the one after")
	if after := d.births(); after != births {
		t.Errorf("got %s, want no module to end with an agent: %s", after, births)
	}
	for name, b := range map[string]*begun{"text": text, "JSON": doc} {
		if code := b.end(syscall.SIGINT); code != 130 {
			t.Errorf("%s: got exit code %d, want 130", name, code)
		}
		n := 1
		for line := range strings.Lines(b.out.String()) {
			if want := fmt.Sprintf("line %d", n); !strings.Contains(line, want+"\n") && !strings.Contains(line, want+`"}`) {
				t.Fatalf("%s: got %q, want %s", name, line, want)
			}
			n++
		}
		if said := strings.ReplaceAll(b.errs.String(), awaySaid, "."); said != "." && said != ".." {
			t.Errorf("%s: standard error: got %q, want that the agent was away once or twice", name, said)
		}
	}
	for _, b := range append(glances, edges) {
		if n := seen(b); b != edges {
			d.until("it goes on", func() (bool, string) { return seen(b) > n, b.errs.String() })
		}
		if code := b.end(syscall.SIGTERM); code != 143 {
			t.Errorf("%q: got exit code %d, want 143", b.cmd.Args, code)
		}
		if strings.Contains(b.out.String(), "\x1b") {
			t.Errorf("%q: a file gets escapes", b.cmd.Args)
		}
		if strings.ReplaceAll(b.errs.String(), awaySaid, "") != "" {
			t.Errorf("%q: got %q", b.cmd.Args, b.errs.String())
		}
	}
	for list := json.NewDecoder(strings.NewReader(glances[1].out.String())); ; {
		var usage []any
		if err := list.Decode(&usage); errors.Is(err, io.EOF) {
			break
		} else if err != nil || len(usage) == 0 {
			t.Fatalf("JSON: got %v, %v", usage, err)
		}
	}
	d.followedToItsEnd()
}

// followedToItsEnd removes the module counter while somebody follows.
func (d *device) followedToItsEnd() {
	d.t.Helper()
	b := d.begin("module", "logs", "-f", "-n", "1", "counter")
	d.until("it follows", func() (bool, string) { return b.out.String() != "", b.errs.String() })
	if _, err := d.client().Apply(d.t.Context(), []byte(manifest(map[string]string{}, map[string]string{}))); err != nil {
		d.t.Fatal(err)
	}
	err := b.cmd.Wait()
	if said := b.errs.String(); b.cmd.ProcessState.ExitCode() != 1 || !strings.HasSuffix(said, "module \"counter\" is not in the deployment\n") || strings.Count(said, "\n") != 1 {
		d.t.Errorf("got %v, %q, want one line that it is gone", err, said)
	}
}
