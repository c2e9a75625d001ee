package supervisor

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
)

// TestARestartByAnOperatorOutlivesTheAgent: whatever step the agent dies at, the module runs again in the end, and is started once.
func TestARestartByAnOperatorOutlivesTheAgent(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"put " + recordPrefix + "a", "signal a SIGTERM", "in between", "spec a", "open a", "never"} {
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
					if d.mu.Lock(); d.cut != "" && step != "in between" && step != "never" {
						t.Error("this step is none, so the test shows nothing")
					}
					d.cut = ""
					d.mu.Unlock()
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

// TestADeploymentOutlivesTheAgent: one module is replaced, one removed and one is new, and the agent ends at each step of that.
func TestADeploymentOutlivesTheAgent(t *testing.T) {
	t.Parallel()
	steps := []string{
		"fetch x2", "fetch z", "put " + appliedKey, "signal a SIGTERM", "signal b SIGTERM", "removed b", "put " + recordPrefix + "a", "put " + recordPrefix + "b", "put " + recordPrefix + "c",
		"put " + rangePrefix + "c", "spec a", "spec c", "open a", "open c", "never",
	}
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			live(t, func(t *testing.T, d *device) {
				d.deploy(map[string]string{"a": wanted("x", "on-failure", ``, ``, "slow", "3s"), "b": wanted("y", "never", ``, ``, "slow", "3s")})
				pass(time.Minute)
				d.happened()
				d.cutAt(step)
				d.deploy(map[string]string{"a": wanted("x2", "on-failure", ``, ``, "slow", "3s"), "c": wanted("z", "never", ``, ``)})
				pass(20 * time.Second)
				if d.mu.Lock(); d.cut != "" && step != "never" {
					t.Error("this step is none, so the test shows nothing")
				}
				d.cut = ""
				d.mu.Unlock()
				d.restart()
				pass(20 * time.Second)
				d.expectStatuses("a running, c running")
				if m := d.module("a"); m.Wanted.Settings.Image != "x2" || m.Restarts != 0 {
					t.Errorf("got %+v, want the new image and nothing held against it", m)
				}
				if removed := slices.Contains(d.happened(), "removed b"); !removed || d.docs.has(recordPrefix+"b") || d.fake.Instance("b") != nil {
					t.Errorf("what is not wanted: removed %t, and still known %t", removed, d.docs.has(recordPrefix+"b"))
				}
				d.expectCode(200, "")
			})
		})
	}
}

// TestWhatCannotBeEndedIsNotReplaced: a program that hangs in a driver keeps its record, or the next agent would take it for its successor.
func TestWhatCannotBeEndedIsNotReplaced(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``, "hang")})
		first := d.module("a").Pid
		d.deploy(map[string]string{"a": wanted("x2", "always", ``, ``)})
		pass(2 * time.Minute)
		d.expectCode(500, "does not end after SIGKILL")
		if m := d.module("a"); m.Digest != "sha256:x" || m.Pid != first {
			t.Errorf("got %+v, want what still runs", m)
		}
		d.end()
		d.start()
		pass(time.Minute)
		if m := d.module("a"); m.Digest != "sha256:x" || m.Pid != first {
			t.Errorf("the next agent: got %+v, want what still runs", m)
		}
		close(d.driver)
		pass(10 * time.Minute)
		if m := d.module("a"); m.Digest != "sha256:x2" || m.Status != deployment.RuntimeRunning {
			t.Errorf("got %+v, want the new one", m)
		}
		d.expectCode(200, "")
	})
}

// TestAnAgentThatEndsDoesNotSayDone: to an operator whose word nobody wrote down.
func TestAnAgentThatEndsDoesNotSayDone(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``)})
		d.end()
		for verb, act := range map[string]func(context.Context, string) error{"start": d.s.Start, "stop": d.s.Stop, "restart": d.s.Restart} {
			if err := act(t.Context(), "a"); !errors.Is(err, errEnding) {
				t.Errorf("%s: got %v, want that it is not done", verb, err)
			}
		}
		d.start()
		d.expectStatuses("a running")
	})
}

// TestWhatAnOperatorStopsStaysDownUnderADeploymentThatIsOnItsWay: it was known when he decided, and is no new decision.
func TestWhatAnOperatorStopsStaysDownUnderADeploymentThatIsOnItsWay(t *testing.T) {
	t.Parallel()
	for name, image := range map[string]string{"the module is replaced by it": "y", "the module is in it as it was": "x"} {
		t.Run(name, func(t *testing.T) {
			live(t, func(t *testing.T, d *device) {
				d.deploy(map[string]string{"a": wanted("x", "always", ``, ``)})
				d.absent["far"] = errors.New("no route to host")
				next := map[string]string{"a": wanted(image, "always", ``, ``), "b": wanted("far", "always", ``, ``)}
				d.deploy(next)
				if err := d.s.Stop(t.Context(), "a"); err != nil {
					t.Fatal(err)
				}
				d.restart()
				if m := d.module("a"); !m.Held || m.Pid != 0 {
					t.Errorf("the next agent: got %+v, want it held", m)
				}
				delete(d.absent, "far")
				d.s.Again()
				pass(time.Hour)
				if got, want := d.statuses(), "a stopped, b running"; got != want || !d.module("a").Held {
					t.Errorf("the deployment is in force: got %s, want %s and a held", got, want)
				}
				d.restart()
				if got, want := d.statuses(), "a stopped, b running"; got != want {
					t.Errorf("the agent after that: got %s, want %s", got, want)
				}
				next["c"] = wanted("x", "always", ``, ``)
				d.deploy(next)
				pass(time.Minute)
				if got, want := d.statuses(), "a running, b running, c running"; got != want {
					t.Errorf("a new deployment: got %s, want %s", got, want)
				}
			})
		})
	}
}
