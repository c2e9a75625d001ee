package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestADiskThatIsFullLosesNothingAndComesBack fills the state partition while the device works, kills the agent on it, and makes room again. What was
// acknowledged stays, what is refused is refused in one line, and nobody has to come.
func TestADiskThatIsFullLosesNothingAndComesBack(t *testing.T) {
	t.Parallel()
	d := startDeviceAs(t, func(cmd *exec.Cmd) {
		state := filepath.Join(filepath.Dir(cmd.Args[len(cmd.Args)-1]), "state")
		if err := errors.Join(os.Mkdir(state, 0o711), unix.Mount("tmpfs", state, "tmpfs", 0, "size=48m")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(state, 0); err != nil {
				t.Errorf("state is still in use: %v", err)
			}
		})
	})
	images := map[string]string{
		"producer": d.bundle("producer", `n=1; while :; do if said=$(printf '%0250000d' 0 | "$SANDPIPER" send --output out --id "m-$n" 2>&1); then echo "acked m-$n"; n=$((n+1)); else echo "refused m-$n: $said"; sleep 0.2; fi; done`),
		"consumer": d.bundle("consumer", `"$SANDPIPER" receive | grep --line-buffered -o 'm-[0-9]*' & wait`),
		"idle":     d.bundle("idle", `while :; do sleep 0.2; done`),
	}
	good := manifest(map[string]string{"between": toConsumer}, images)
	if _, stderr, code := d.run(good, "deploy", "apply", "-"); code != 0 {
		t.Fatal(stderr)
	}
	d.until("messages arrive", func() (bool, string) { log := d.logs("consumer"); return strings.Contains(log, "m-3\n"), log })
	d.until("the consumer is paused", func() (bool, string) { // on cgroup v1 a group that forks may escape the freezer for a while
		_, stderr, code := d.run("", "module", "pause", "consumer")
		return code == 0, stderr
	})
	_, before, _ := strings.Cut(d.births(), ", producer")
	fill := d.fillDisk()
	d.until("a message is refused", func() (bool, string) { return strings.Contains(d.logs("producer"), "refused m-"), d.status() })
	d.until("the operator sees it", func() (bool, string) {
		said := d.status()
		return strings.Contains(said, "problem: the store is full"), said
	})
	// The operator's word counts, or he is told in one line that it does not; after that it is so for the next agent too.
	down := false
	decide := func(verb string, becomes bool) {
		t.Helper()
		switch _, stderr, code := d.run("", "module", verb, "idle"); {
		case code == 0:
			down = becomes
		case code != 1 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "space") && !strings.Contains(stderr, "full"):
			t.Errorf("%s: got %d, %q, want it done, or one line that says why not", verb, code, stderr)
		}
	}
	as := func(when string) {
		t.Helper()
		d.until(when, func() (bool, string) {
			st, err := d.client().Status(t.Context())
			return err == nil && (find(st.Modules, "idle").Pid == 0) == down && find(st.Modules, "producer").Pid != 0, fmt.Sprint(st.Modules, err)
		})
	}
	decide("stop", true)
	d.replaceAgent(syscall.SIGKILL)
	as("the agent was killed on a full disk")
	decide("start", false)
	decide("restart", false)
	d.replaceAgent(syscall.SIGHUP)
	as("the agent was replaced on a full disk")
	if births := d.births(); !strings.Contains(births, before) {
		t.Errorf("got %s, want what nobody touched to go on: %s", births, before)
	}

	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := d.run("", "module", "resume", "consumer"); code != 0 {
		t.Fatal(stderr)
	}
	was := strings.Count(d.logs("producer"), "acked")
	d.until("messages are taken again", func() (bool, string) { return strings.Count(d.logs("producer"), "acked") > was+3, d.status() })
	if _, stderr, code := d.run("", "module", "stop", "producer"); code != 0 {
		t.Errorf("stop: %s", stderr)
	}
	acked := regexp.MustCompile(`acked m-(\d+)`).FindAllStringSubmatch(d.logs("producer"), -1)
	last := acked[len(acked)-1][1]
	d.until("the last message arrives", func() (bool, string) {
		log := d.logs("consumer")
		return strings.Contains(log, "m-"+last+"\n"), d.status()
	})
	got := map[string]bool{}
	for _, m := range regexp.MustCompile(` m-(\d+)`).FindAllStringSubmatch(d.logs("consumer"), -1) {
		got[m[1]] = true
	}
	for _, m := range acked {
		if !got[m[1]] {
			t.Errorf("message %s was acknowledged and never came", m[1])
		}
	}
	for line := range strings.Lines(d.logs("producer")) {
		if _, why, ok := strings.Cut(line, "refused m-"); ok && !strings.Contains(why, "did not answer") && !strings.Contains(why, "the agent ends") && !strings.Contains(why, "full") {
			t.Errorf("a refusal that says nothing: %s", line)
		}
	}
	d.until("it is well again", func() (bool, string) { said := d.status(); return !strings.Contains(said, "store is full"), said })
}

// fillDisk leaves no room on the state partition, and returns the file that takes it.
func (d *device) fillDisk() string {
	d.t.Helper()
	f, err := os.Create(d.path("state/fill"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) >= 4096; block = block[:len(block)/2] {
		for err = nil; err == nil; {
			_, err = f.Write(block)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			d.t.Fatal(fmt.Errorf("fill the disk: %w", err))
		}
	}
	return f.Name()
}
