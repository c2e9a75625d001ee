package supervisor

import (
	"slices"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
)

// TestAJumpOfTheClockBetweenAgentsChangesNothing: a board without a clock begins in 1970, and is told the time while its modules run.
func TestAJumpOfTheClockBetweenAgentsChangesNothing(t *testing.T) {
	t.Parallel()
	for name, skew := range map[string]time.Duration{"none": 0, "forward": 50 * 365 * 24 * time.Hour, "back": -50 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			live(t, func(t *testing.T, d *device) {
				jump := func() {
					d.end()
					d.skew += skew
					d.start()
				}
				d.deploy(map[string]string{
					"new": wanted("x", "always", ``, `,"health":{"probation":"1h"}`), "ill": wanted("y", "always", ``, `,"health":{"probation":"1h"}`, "exit", "1", "20s"),
				})
				pass(10*time.Minute + 5*time.Second)
				for d.module("ill").Pid == 0 {
					pass(time.Second)
				}
				before := d.module("ill")
				if before.Restarts < 5 {
					t.Errorf("got %d restarts, want some", before.Restarts)
				}
				d.happened()
				jump()
				pass(30 * time.Second) // it ends once more
				now := d.module("ill")
				if left := time.Until(now.Next); now.Restarts != before.Restarts+1 || now.Status != deployment.RuntimeBackoff || left < time.Minute || left > mostBackoff {
					t.Errorf("one that fails: got %d restarts, %s and %s to wait, want %d and the pace to go on", now.Restarts, now.Status, left, before.Restarts+1)
				}
				jump()
				if left := time.Until(d.module("ill").Next); d.module("ill").Pid == 0 && left > mostBackoff {
					t.Errorf("one that waits: again in %s", left)
				}
				pass(6 * time.Minute)
				if m := d.module("ill"); m.Restarts < now.Restarts+1 && m.Pid == 0 {
					t.Errorf("one that waits: got %+v, want it started", m)
				}
				if slices.Contains(d.happened(), "commit sha256:x") {
					t.Error("a module has proved itself by a jump of the clock")
				}
				pass(2 * time.Hour)
				if !slices.Contains(d.happened(), "commit sha256:x") {
					t.Error("a module can never prove itself after a jump of the clock")
				}
			})
		})
	}
}
