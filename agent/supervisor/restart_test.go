package supervisor

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

func TestRestartsAreSpacedAndNeverEnd(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		begin := time.Now()
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``, "exit", "3", "0s")})
		var starts []time.Duration
		last := ""
		for range 3600 {
			pass(time.Second)
			if m := d.module("a"); m.Started.String() != last {
				last = m.Started.String()
				starts = append(starts, m.Started.Sub(begin).Round(time.Second))
			}
		}
		want := "[1s 11s 31s 1m11s 2m31s 5m11s 10m11s 15m11s 20m11s 25m11s 30m11s 35m11s 40m11s 45m11s 50m11s 55m11s]"
		if got := fmt.Sprint(starts); got != want {
			t.Errorf("starts in the first hour: got %s, want %s", got, want)
		}
		d.expectStatuses("a backoff")
		m := d.module("a")
		if m.ExitCode != 3 || m.Why != "ended with exit code 3" || m.Restarts != 17 {
			t.Errorf("got %+v", m)
		}
		pass(24 * time.Hour)
		if again := d.module("a"); again.Started.Equal(m.Started) || time.Since(again.Started) > lastWait() {
			t.Errorf("a day later: last start %s ago, want it still tried", time.Since(again.Started))
		}
	})
}

func lastWait() time.Duration { return mostBackoff + time.Second }

func TestTenHealthyMinutesAreACleanSheet(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``, "exit", "1", "11m")})
		for i := range 5 {
			pass(11*time.Minute + time.Second)
			if m := d.module("a"); m.Status != deployment.RuntimeRunning || m.Restarts != 1 {
				t.Errorf("round %d: got %s, %d restarts, want it running again after a second", i, m.Status, m.Restarts)
			}
		}
		pass(10 * time.Minute)
		if m := d.module("a"); m.Restarts != 0 {
			t.Errorf("after ten healthy minutes: %d restarts, want 0", m.Restarts)
		}
	})
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	exit := func(code int) sandbox.Exit { return sandbox.Exit{Code: code, Known: true} }
	killed := sandbox.Exit{Code: 137, Signal: "SIGKILL", Known: true}
	for name, c := range map[string]struct {
		exit sandbox.Exit
		want map[deployment.RestartPolicy]bool
	}{
		"a clean end":    {exit(0), map[deployment.RestartPolicy]bool{deployment.Always: true}},
		"an exit code":   {exit(1), map[deployment.RestartPolicy]bool{deployment.Always: true, deployment.OnFailure: true, deployment.OnUnhealthy: true}},
		"a signal":       {killed, map[deployment.RestartPolicy]bool{deployment.Always: true, deployment.OnFailure: true, deployment.OnUnhealthy: true}},
		"an unseen end":  {sandbox.Exit{Code: -1}, map[deployment.RestartPolicy]bool{deployment.Always: true, deployment.OnFailure: true, deployment.OnUnhealthy: true}},
		"exit code 125":  {exit(125), map[deployment.RestartPolicy]bool{}},
		"signal no. -3 ": {sandbox.Exit{Code: 125, Signal: "signal -3", Known: true}, map[deployment.RestartPolicy]bool{deployment.Always: true, deployment.OnFailure: true, deployment.OnUnhealthy: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, policy := range []deployment.RestartPolicy{deployment.Never, deployment.OnFailure, deployment.OnUnhealthy, deployment.Always} {
				if got := again(policy, c.exit, false); got != c.want[policy] {
					t.Errorf("%s: got %v, want %v", policy, got, c.want[policy])
				}
			}
		})
	}
}

func TestModuleThatStaysDownStaysDown(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{
			"asks":  wanted("x", "always", ``, ``, "exit", "125", "1s"),
			"done":  wanted("x", "never", ``, ``, "exit", "0", "1s"),
			"fails": wanted("x", "never", ``, ``, "exit", "4", "1s"),
		})
		pass(time.Hour)
		for _, life := range []string{"first", "second"} {
			d.expectStatuses("asks stopped, done stopped, fails failed")
			if m := d.module("fails"); m.ExitCode != 4 || m.Exited.IsZero() || m.Restarts != 0 {
				t.Errorf("%s agent: got %+v", life, m)
			}
			d.restart()
			pass(time.Hour)
		}
		// A deployment that does not change them does not start them; an operator does, and so does a boot.
		d.deploy(map[string]string{
			"asks":  wanted("x", "always", ``, ``, "exit", "125", "1s"),
			"done":  wanted("x", "never", ``, ``, "exit", "0", "1s"),
			"fails": wanted("x", "never", ``, ``, "exit", "4", "1s"),
			"new":   wanted("x", "always", ``, ``),
		})
		d.expectStatuses("asks stopped, done stopped, fails failed, new running")
		if err := d.s.Start(t.Context(), "done"); err != nil {
			t.Fatal(err)
		}
		d.expectStatuses("asks stopped, done running, fails failed, new running")
		d.reboot()
		d.expectStatuses("asks running, done running, fails running, new running")
	})
}

func TestFailuresInProbationAreReported(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{
			"good": wanted("g", "always", ``, ``),
			"bad":  wanted("b", "always", ``, `,"health":{"probation":60,"restarts":2}`, "exit", "7", "5s"),
		})
		pass(12 * time.Second) // two failures are forgiven
		d.expectCode(200, "")
		pass(15 * time.Second)
		d.expectCode(500, "module bad has not run for 1m0s yet, failures: 3, the last: ended with exit code 7")
		d.restart()
		d.expectCode(500, "module bad has not run for 1m0s yet")
		d.deploy(map[string]string{"good": wanted("g", "always", ``, ``), "bad": wanted("b", "always", ``, `,"health":{"probation":60,"restarts":2}`)})
		d.expectCode(200, "")
		pass(time.Minute)
		if got := d.happened(); !slices.Contains(got, "commit sha256:b") {
			t.Errorf("got %v, want the image committed", got)
		}
	})
}

func TestModuleThatCannotStartTriesAgain(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.broken["a"] = errors.New("no room for listeners")
		d.deploy(map[string]string{"a": wanted("x", "never", ``, ``), "b": wanted("y", "always", ``, ``)})
		d.expectStatuses("a backoff, b running")
		d.expectCode(500, "no room for listeners")
		if len(d.fake.Instances()) != 1 {
			t.Error("what could not start is left behind")
		}
		d.mu.Lock()
		delete(d.broken, "a")
		d.mu.Unlock()
		pass(time.Minute)
		d.expectStatuses("a running, b running")
		d.expectCode(200, "")
	})
}

func TestUnhealthyModules(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "on-unhealthy", ``, ``), "b": wanted("x", "never", ``, ``)})
		pid := d.module("b").Pid
		for _, name := range []string{"a", "b", "nobody"} {
			d.s.Unhealthy(name, "sensor lost")
		}
		pass(0)
		d.expectStatuses("a backoff, b unhealthy")
		if m := d.module("a"); m.Why != "unhealthy: sensor lost" {
			t.Errorf("a: got %q", m.Why)
		}
		if m := d.module("b"); m.Why != "sensor lost" || m.Pid != pid {
			t.Errorf("b: got %+v", m)
		}
		d.s.Unhealthy("b", "")
		pass(time.Second)
		d.expectStatuses("a running, b running")
	})
}
