package supervisor

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

func TestAgentRestartAdopts(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``), "b": wanted("x", "always", ``, ``)})
		before := []Module{d.module("a"), d.module("b")}
		pass(time.Hour)
		if _, err := d.fake.Create(t.Context(), sandbox.Spec{ID: "stranger", Args: []string{"run"}, IDBase: 1 << 20, Root: sandbox.Root{Image: "/i"}}); err != nil {
			t.Fatal(err)
		}
		if err := d.fake.Instance("stranger").Start(); err != nil {
			t.Fatal(err)
		}
		d.happened()
		d.restart()
		got := d.happened()
		slices.Sort(got)
		if !slices.Equal(got, []string{"open a", "open b"}) {
			t.Errorf("on restart: got %v, want only the doors opened", got)
		}
		for i, m := range []Module{d.module("a"), d.module("b")} {
			if m.Pid != before[i].Pid || !m.Started.Equal(before[i].Started) || m.Status != deployment.RuntimeRunning || m.Restarts != 0 {
				t.Errorf("%s: got %+v, want it untouched: %+v", m.Wanted.Name, m, before[i])
			}
		}
		if d.fake.Instance("stranger") != nil {
			t.Error("an instance that nobody knows still runs")
		}
	})
}

func TestPowerCutAfterTheDeploymentIsWrittenDown(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``), "b": wanted("y", "always", ``, ``)})
		d.happened()
		d.docs.failing(recordPrefix) // the steps after it do not get far
		d.deploy(map[string]string{"a": wanted("x2", "always", ``, ``)})
		d.end()
		d.docs.failing("")
		d.absent["x2"] = errors.New("no network needed")
		d.happened()
		d.start()
		got := d.happened()
		if slices.Contains(got, "fetch x2") || !slices.Contains(got, "removed b") {
			t.Errorf("got %v, want the rest of the steps without a fetch", got)
		}
		d.expectStatuses("a running")
		if m := d.module("a"); m.Wanted.Settings.Image != "x2" {
			t.Errorf("a runs %s, want x2", m.Wanted.Settings.Image)
		}
	})
}

func TestRebootNeedsNoNetwork(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", `,"startupOrder":2`, ``), "b": wanted("y", "never", `,"startupOrder":1`, ``, "exit", "0", "1s")})
		pass(time.Minute)
		d.expectStatuses("a running, b stopped")
		d.absent["x"], d.absent["y"] = errors.New("offline"), errors.New("offline")
		d.happened()
		d.reboot()
		d.expect("boot", "open b", "open a")
		d.expectStatuses("a running, b running")
		d.expectCode(200, "")
	})
}

func TestAdoptedModuleWithoutDoorsStartsAnew(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``)})
		pid := d.module("a").Pid
		d.broken["a"] = errors.New("address in use")
		d.restart()
		d.expectStatuses("a backoff")
		d.mu.Lock()
		delete(d.broken, "a")
		d.mu.Unlock()
		pass(time.Minute)
		if m := d.module("a"); m.Status != deployment.RuntimeRunning || m.Pid == pid {
			t.Errorf("got %+v, want a new instance", m)
		}
	})
}

func TestEndWhileTheAgentWasAwayIsSeenOnce(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "on-failure", ``, ``, "exit", "9", "1m")})
		pass(31 * time.Second)
		d.end()
		pass(time.Hour)
		d.start()
		m := d.module("a")
		if m.ExitCode != 9 || m.Status != deployment.RuntimeBackoff || m.Restarts != 1 {
			t.Errorf("got %+v, want one failure noted", m)
		}
		pass(time.Second)
		d.expectStatuses("a running")
		// The record is written and the agent dies before the instance is gone: the end must not count twice.
		u := d.s.units["a"]
		pass(59 * time.Second)
		d.end()
		inst := d.fake.Instance("a")
		pass(time.Second)
		rec := u.rec
		rec.Began, rec.Exit, rec.Failures, rec.Restarts, rec.Exited = inst.Started(), 9, 2, 2, time.Now()
		if err := d.s.saveRecord(t.Context(), "a", rec); err != nil {
			t.Fatal(err)
		}
		d.start()
		if m := d.module("a"); m.Restarts != 2 || m.Status != deployment.RuntimeBackoff {
			t.Errorf("got %+v, want the second failure counted once", m)
		}
		pass(10 * time.Second)
		d.expectStatuses("a running")
	})
}

func TestDeploymentOfALaterAgentLeavesModulesAlone(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``)})
		pid := d.module("a").Pid
		d.end()
		plan := string(d.docs.docs[appliedKey])
		d.docs.docs[appliedKey] = []byte(strings.ReplaceAll(plan, `"sandbox"`, `"unikernel"`))
		twinKey := "twin/desired/" + edgeAgent.String()
		d.docs.docs[twinKey] = []byte(strings.ReplaceAll(string(d.docs.docs[twinKey]), `"sandbox"`, `"unikernel"`))
		d.start()
		if m := d.module("a"); m.Pid != pid {
			t.Errorf("got %+v, want pid %d", m, pid)
		}
		d.expectCode(400, "unikernel")
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``, "run", "again")})
		d.expectStatuses("a running")
		d.expectCode(200, "")
	})
}

func TestWhatAProbeFoundOutlivesAgentAndDevice(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"m": wanted("app", "always", "", "")})
		expect := func(when string, want ...string) {
			t.Helper()
			if got := d.module("m").Drift; !slices.Equal(got, want) {
				t.Errorf("%s: got %q, want %q", when, got, want)
			}
		}
		d.s.Drifts("m", []string{"it can fly"})
		synctest.Wait()
		d.restart()
		expect("the next agent", "it can fly")
		d.reboot()
		expect("after a boot", "it can fly")
		d.s.Drifts("m", nil)
		synctest.Wait()
		d.restart()
		expect("found as granted")
		d.s.Drifts("m", []string{"it can fly"})
		synctest.Wait()
		d.deploy(map[string]string{"m": wanted("other", "always", "", "")})
		expect("another sandbox")
	})
}

// TestASandboxThatCannotBeRemovedStopsNoAgent: one that ended for it would be gone until somebody came.
func TestASandboxThatCannotBeRemovedStopsNoAgent(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``, "exit", "9", "1m"), "b": wanted("x", "always", ``, ``)})
		inst := d.fake.Instance("a")
		inst.Stick(errors.New("device or resource busy"))
		pass(62 * time.Second)
		if why := d.module("a").Reason(time.Now()); !strings.Contains(why, "busy") {
			t.Errorf("why: got %q, want what is in the way", why)
		}
		d.restart()
		d.expectStatuses("a backoff, b running")
		pass(10 * time.Minute)
		d.expectStatuses("a backoff, b running")
		inst.Stick(nil)
		for range 600 {
			if pass(time.Second); d.module("a").Status == deployment.RuntimeRunning {
				return
			}
		}
		t.Errorf("got %+v, want it started once its place was free", d.module("a"))
	})
}
