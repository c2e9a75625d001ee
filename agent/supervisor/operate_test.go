package supervisor

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

func TestAChangedEnvironmentIsACleanSheet(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``, "exit", "1", "1s")})
		pass(2 * time.Minute)
		if m := d.module("a"); m.Restarts < 3 {
			t.Fatalf("got %d restarts, want several", m.Restarts)
		}
		d.deploy(map[string]string{"a": wanted("x", "always", `,"env":{"LEVEL":{"value":"2"}}`, ``, "exit", "1", "1s")})
		if m := d.module("a"); m.Restarts != 0 || m.Status != deployment.RuntimeRunning {
			t.Errorf("got %s after %d restarts, want it running at once and none counted", m.Status, m.Restarts)
		}
	})
}

func TestTheNextTryIsKnown(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``, "exit", "1", "1s")})
		pass(3 * time.Second) // it ended, began again after a second, and ended again
		m := d.module("a")
		if left := time.Until(m.Next); m.Status != deployment.RuntimeBackoff || left != baseBackoff {
			t.Errorf("got %s, again in %s, want backoff and %s", m.Status, left, baseBackoff)
		}
		if got := m.Reason(time.Now()); !strings.Contains(got, "ended with exit code 1; it is started again at ") || !strings.Contains(got, "(in 10s); started again 2 times in a row") {
			t.Errorf("why: got %q", got)
		}
		d.restart()
		pass(0)
		if m := d.module("a"); m.Next.IsZero() {
			t.Error("the next agent does not know when")
		}
		pass(10 * time.Second)
		if m := d.module("a"); !m.Next.IsZero() || m.Status != deployment.RuntimeRunning {
			t.Errorf("once it runs: got %s and %s", m.Status, m.Next)
		}
	})
}

func TestRemediesOfAnUnhealthyModule(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		health := func(remedy string) string {
			return `,"health":{"heartbeat":"1m","start":"1s","onUnhealthy":"` + remedy + `"}`
		}
		d.deploy(map[string]string{
			"again": wanted("x", "always", ``, health("restart")), "down": wanted("x", "always", ``, health("stop")), "told": wanted("x", "always", ``, health("report")),
			"well": wanted("x", "always", ``, health("restart")),
		})
		for range 5 {
			d.s.Unhealthy("well", "")
			pass(30 * time.Second)
		}
		if m := d.module("again"); m.Restarts == 0 {
			t.Errorf("restart: got %+v", m)
		}
		if m := d.module("down"); m.Pid != 0 || !m.Ended || !strings.HasPrefix(m.Why, "unhealthy: no heartbeat for ") {
			t.Errorf("stop: got %+v", m)
		}
		if m := d.module("told"); m.Pid == 0 || m.Status != deployment.RuntimeUnhealthy || m.Restarts != 0 {
			t.Errorf("report: got %+v", m)
		}
		if m := d.module("well"); m.Restarts != 0 || m.Status != deployment.RuntimeRunning {
			t.Errorf("one whose heart beats: got %+v", m)
		}
		d.s.Unhealthy("told", "")
		pass(30 * time.Second)
		d.s.Unhealthy("told", "")
		pass(30 * time.Second)
		if m := d.module("told"); m.Status != deployment.RuntimeRunning {
			t.Errorf("one that is well again: got %+v", m)
		}
	})
}

func TestWhoRunsIntoABoundIsNamed(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``), "b": wanted("x", "always", ``, ``)})
		d.fake.Instance("a").Refuse(sandbox.Refusals{Pids: 7, OOM: 2, Calls: 3})
		d.fake.Instance("a").Exhaust(sandbox.Exhaustion{Files: true, Full: []string{"/tmp"}})
		d.fill("a", "/data")
		d.s.Offend("a", Crowding, 1)
		d.s.Offend("nobody", Crowding, 1)
		pass(2 * offencePace) // what lasts counts once
		got := strings.Join(d.module("a").Offences, "\n")
		for _, want := range []string{"limit of processes (7 times)", "limit of memory", "connections", "tries to mount, to change its root or namespaces, or to reach into the kernel, and is refused (3 times)",
			"files open as it may (1 times)", "what it may write to: /data, /tmp (1 times)",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("got %q, want %q in it", got, want)
			}
		}
		if got := d.module("b").Offences; len(got) != 0 {
			t.Errorf("its neighbour: got %q, want nothing", got)
		}
		d.fake.Instance("a").Exhaust(sandbox.Exhaustion{})
		d.fill("a")
		pass(offenceShown)
		if got := d.module("a").Offences; len(got) != 0 {
			t.Errorf("ten quiet minutes later: got %q, want nothing", got)
		}
	})
}

func TestAPausedModuleStaysSo(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``), "b": wanted("x", "never", ``, ``, "exit", "0", "1s")})
		pass(2 * time.Second)
		if err := d.s.Pause("b"); !errors.Is(err, ErrNotRunning) {
			t.Errorf("pause of one that ended: got %v", err)
		}
		if err := d.s.Pause("a"); err != nil {
			t.Fatal(err)
		}
		d.restart()
		if m := d.module("a"); !m.Paused || !strings.Contains(m.Reason(time.Now()), "`sandpiper module resume a`") {
			t.Errorf("got %+v", m)
		}
		if err := d.s.Stop(t.Context(), "a"); err != nil {
			t.Errorf("stop of a paused module: %v", err)
		}
	})
}
