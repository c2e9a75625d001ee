package supervisor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
)

// TestARestartByAnOperatorOutlivesTheAgent: whatever step the agent dies at, the module runs again in the end, and is started once.
func TestARestartByAnOperatorOutlivesTheAgent(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"put " + recordPrefix + "a", "signal a terminated", "in between", "spec a", "open a", "never"} {
		for _, policy := range []string{"on-failure", "never", "always"} {
			t.Run(step+", policy "+policy, func(t *testing.T) {
				live(t, func(t *testing.T, d *device) {
					d.deploy(map[string]string{"a": wanted("x", policy, ``, ``, "slow", "5s"), "b": wanted("x", policy, ``, ``)})
					before := d.module("a")
					pass(time.Minute)
					d.cutAt(step)
					answered := make(chan error, 1)
					go func() { answered <- d.s.Restart(context.Background(), "a") }()
					pass(time.Second)
					if step == "in between" {
						d.cancel()
					}
					pass(20 * time.Second) // the program ends with code 0 while nobody looks
					d.restart()
					<-answered
					pass(20 * time.Second)
					m := d.module("a")
					if m.Status != deployment.RuntimeRunning || !m.Started.After(before.Started) || m.Restarts != 0 {
						t.Errorf("got %+v, want another program that runs", m)
						return
					}
					d.restart()
					pass(time.Minute)
					if again := d.module("a"); again.Pid != m.Pid || !again.Started.Equal(m.Started) {
						t.Errorf("the agent after that: got %+v, want it left alone: %+v", again, m)
					}
				})
			})
		}
	}
}

func TestAnOperatorWhoseLinkBreaksGetsWhatWasBegun(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "on-failure", ``, ``, "slow", "5s")})
		first := d.module("a")
		gone, hangUp := context.WithTimeout(t.Context(), time.Second)
		defer hangUp()
		if err := d.s.Restart(gone, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("restart: got %v", err)
		}
		pass(10 * time.Second)
		if m := d.module("a"); m.Status != deployment.RuntimeRunning || m.Pid == first.Pid {
			t.Errorf("restart: got %+v, want another program", m)
		}
		gone, hangUp = context.WithTimeout(t.Context(), time.Second)
		defer hangUp()
		if err := d.s.Stop(gone, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stop: got %v", err)
		}
		pass(10 * time.Second)
		if m := d.module("a"); m.Status != deployment.RuntimeStopped || !m.Held {
			t.Errorf("stop: got %+v, want it held", m)
		}
	})
}

// TestAStartByAnOperatorOutlivesTheAgent: what was stopped, what ended by its policy, and what backs off.
func TestAStartByAnOperatorOutlivesTheAgent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		policy string
		args   []string
		before func(d *device)
	}{
		"stopped":            {"on-failure", nil, func(d *device) { _ = d.s.Stop(d.t.Context(), "a") }},
		"ended":              {"never", []string{"exit", "3", "1s"}, func(*device) { pass(2 * time.Second) }},
		"ended, and stopped": {"never", []string{"exit", "3", "1s"}, func(d *device) { pass(2 * time.Second); _ = d.s.Stop(d.t.Context(), "a") }},
		"backs off":          {"always", []string{"exit", "3", "1s"}, func(*device) { pass(5*time.Minute + 13*time.Second) }},
	} {
		t.Run(name, func(t *testing.T) {
			live(t, func(t *testing.T, d *device) {
				d.deploy(map[string]string{"a": wanted("x", c.policy, ``, ``, c.args...)})
				c.before(d)
				if m := d.module("a"); m.Pid != 0 {
					t.Errorf("got %+v, want it down", m)
				}
				d.cutAt("spec a")
				if err := d.s.Start(t.Context(), "a"); err == nil {
					t.Error("start: got nil from an agent that died over it")
				}
				d.restart()
				if m := d.module("a"); m.Status != deployment.RuntimeRunning || m.Held {
					t.Errorf("got %+v, want it started by the next agent", m)
				}
			})
		})
	}
}

func TestADecisionThatCannotBeWrittenDownIsNotCarriedOut(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "on-failure", ``, ``), "down": wanted("x", "on-failure", ``, ``)})
		if err := d.s.Stop(t.Context(), "down"); err != nil {
			t.Error(err)
		}
		before := d.module("a")
		d.docs.failing(recordPrefix)
		for verb, act := range map[string]func(context.Context, string) error{"restart": d.s.Restart, "stop": d.s.Stop} {
			if err := act(t.Context(), "a"); !errors.Is(err, errDisk) {
				t.Errorf("%s: got %v, want why not", verb, err)
			}
		}
		if err := d.s.Start(t.Context(), "down"); !errors.Is(err, errDisk) {
			t.Errorf("start: got %v, want why not", err)
		}
		if m := d.module("a"); m.Pid != before.Pid || m.Held {
			t.Errorf("got %+v, want it as it was", m)
		}
		if m := d.module("down"); m.Pid != 0 || !m.Held {
			t.Errorf("got %+v, want it held still", m)
		}
		d.docs.failing("")
		d.restart()
		if got, want := d.statuses(), "a running, down stopped"; got != want || d.module("a").Pid != before.Pid {
			t.Errorf("the next agent: got %s, want %s", got, want)
		}
	})
}

func TestFailedStartsAreCountedOverAgents(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.broken["a"] = errors.New("address in use")
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``)})
		pass(5 * time.Minute)
		m := d.module("a")
		version, failing := d.s.Deployment()
		if m.Restarts < 3 || failing.Code == deployment.CodeOK {
			t.Errorf("got %+v, %+v", m, failing)
		}
		d.restart()
		if now := d.module("a"); now.Restarts <= m.Restarts-1 || now.Status != deployment.RuntimeBackoff || !strings.Contains(now.Why, "address in use") {
			t.Errorf("got %+v, want what was counted: %d", now, m.Restarts)
		}
		if v, now := d.s.Deployment(); v != version || now.Code != failing.Code {
			t.Errorf("got %+v, want %+v", now, failing)
		}
		if left := time.Until(d.module("a").Next); left < time.Minute {
			t.Errorf("it is tried again in %s, want the pace to go on", left)
		}
		synctest.Wait()
	})
}

func TestAPauseIsNoLateHeartbeat(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, `,"health":{"heartbeat":"1m","start":"1s"}`)})
		d.s.Unhealthy("a", "")
		pid := d.module("a").Pid
		if err := d.s.Pause("a"); err != nil {
			t.Error(err)
		}
		pass(time.Hour)
		if err := d.s.Resume("a"); err != nil {
			t.Error(err)
		}
		pass(50 * time.Second)
		d.s.Unhealthy("a", "")
		pass(50 * time.Second)
		if m := d.module("a"); m.Pid != pid || m.Status != deployment.RuntimeRunning {
			t.Errorf("got %+v, want it left alone: its heart beats since it goes on", m)
		}
	})
}
