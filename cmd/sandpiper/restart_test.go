package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// TestARestartThatTheAgentDoesNotLiveToSeeIsCarriedOutByTheNext: the module ends with code 0 while no agent is there, and its policy alone would leave it so.
func TestARestartThatTheAgentDoesNotLiveToSeeIsCarriedOutByTheNext(t *testing.T) {
	t.Parallel()
	d := startDevice(t)
	image := d.bundle("m", `trap 'echo asked; sleep 0.5; exit 0' TERM; echo begun; while :; do sleep 0.05; done`)
	want := withSettings(t, manifest(map[string]string{}, map[string]string{"m": image}), "m", "on-failure", nil)
	if _, err := d.client().Apply(t.Context(), []byte(want)); err != nil {
		t.Fatal(err)
	}
	d.until("the module runs", func() (bool, string) { log := d.logs("m"); return strings.Contains(log, "begun"), log })
	before, err := d.client().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	type answer struct {
		stderr string
		code   int
	}
	answered := make(chan answer, 1)
	go func() {
		_, stderr, code := d.run("", "module", "restart", "m")
		answered <- answer{stderr, code}
	}()
	d.until("the module is asked to end", func() (bool, string) { log := d.logs("m"); return strings.Contains(log, "asked"), log })
	if err := syscall.Kill(before.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if a := <-answered; a.code != 1 || !strings.Contains(a.stderr, "ended before it answered") || strings.Count(a.stderr, "\n") != 1 {
		t.Errorf("got %+v, want one line that says what is known", a)
	}
	d.until("another program runs", func() (bool, string) {
		now, err := d.client().Status(t.Context())
		m := find(now.Modules, "m")
		return err == nil && m.Pid != 0 && m.Pid != find(before.Modules, "m").Pid, fmt.Sprint(m, err)
	})
}
