package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/control"
)

// TestABrokenConfigurationTakesNoDeviceAway: not when it is to be reloaded, and not when the agent dies later.
func TestABrokenConfigurationTakesNoDeviceAway(t *testing.T) {
	t.Parallel()
	d := startDevice(t)
	image := d.bundle("m", `while :; do sleep 0.2; done`)
	if _, err := d.client().Apply(t.Context(), []byte(manifest(map[string]string{}, map[string]string{"m": image}))); err != nil {
		t.Fatal(err)
	}
	d.untilRunning("m")
	births := d.births()
	good, err := os.ReadFile(d.path("config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	until := func(what string, ok func(st control.Status, refused bool) bool) control.Status {
		t.Helper()
		var st control.Status
		d.until(what, func() (bool, string) {
			var err error
			st, err = d.client().Status(t.Context())
			return err == nil && ok(st, strings.Contains(fmt.Sprint(st.Problems), "config.toml:1: unknown key \"stat\"")), fmt.Sprint(st.Problems, err)
		})
		if after := d.births(); after != births {
			t.Errorf("%s: got %s, want the instance of before: %s", what, after, births)
		}
		return st
	}
	first := until("it is well", func(_ control.Status, refused bool) bool { return !refused })
	d.write("config.toml", "stat = 1\n"+string(good))
	if err := d.warden.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until("the old one stays, and that is said", func(st control.Status, refused bool) bool { return refused && st.Pid == first.Pid })
	if err := syscall.Kill(first.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := until("the next agent has it too", func(st control.Status, refused bool) bool { return refused && st.Pid != first.Pid })
	d.write("config.toml", string(good))
	if err := d.warden.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until("the one that is right again is in force", func(st control.Status, refused bool) bool { return !refused && st.Pid != second.Pid })
	if info, err := os.Stat(inForce(d.path("run"))); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy: got %v, %v, want mode 0600: it may hold a key", info, err)
	}
}
