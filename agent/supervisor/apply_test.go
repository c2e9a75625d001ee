package supervisor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
)

func TestDeploymentIsCarriedOutInOrder(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{
			"late":  wanted("l", "always", ``, ``),
			"first": wanted("f", "always", `,"startupOrder":1`, ``),
			"idle":  wanted("i", "always", `,"status":"stopped"`, ``),
		})
		d.expect("first deployment", "fetch f", "fetch i", "fetch l", "open first", "open late")
		d.expectStatuses("first running, idle stopped, late running")
		d.expectCode(200, "")
		pass(deployment.DefaultProbation)
		if got := d.happened(); len(got) != 2 || !slices.Contains(got, "commit sha256:l") {
			t.Errorf("after the probation: got %v, want both images committed", got)
		}
		d.deploy(map[string]string{"first": wanted("f2", "always", `,"startupOrder":1`, ``), "late": wanted("l", "never", ``, ``)})
		d.expect("second deployment", "fetch f2", "signal first SIGTERM", "removed idle", "open first")
		if d.docs.has(recordPrefix + "idle") {
			t.Error("the record of a removed module is still there")
		}
		if got := d.module("late").Wanted.Restart; got != deployment.Never {
			t.Errorf("policy of a module that goes on: got %s, want never", got)
		}
	})
}

func TestRefusedDeploymentChangesNothing(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``)})
		pid := d.module("a").Pid
		d.happened()
		version := d.desire(`{"schemaVersion":"1.1","modules":{"a":{"type":"vm"}}}`)
		for _, life := range []string{"now", "after a restart of the agent"} {
			if d.module("a").Pid != pid {
				t.Errorf("%s: the module was touched", life)
			}
			d.expectCode(400, "modules.a.type")
			if got, _ := d.s.Deployment(); got != version {
				t.Errorf("%s: version %d, want %d", life, got, version)
			}
			d.restart()
		}
		d.expect("no fetch, no stop", "open a", "open a")
	})
}

func TestFetchThatFailsStopsNothing(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``), "b": wanted("y", "always", ``, ``)})
		pid := d.module("a").Pid
		d.happened()
		d.absent["y2"] = errors.New("link is down")
		d.deploy(map[string]string{"a": wanted("x2", "always", ``, ``), "b": wanted("y2", "always", ``, ``)})
		d.expect("the new deployment", "fetch x2", "fetch y2")
		d.expectCode(500, "image of module b: link is down")
		d.expectStatuses("a running, b running")
		d.restart()
		if d.module("a").Pid != pid {
			t.Error("a restart of the agent stopped what runs for a deployment that is not here")
		}
		d.mu.Lock()
		delete(d.absent, "y2")
		d.mu.Unlock()
		pass(fetchRetryMost)
		d.expectCode(200, "")
		if m := d.module("b"); m.Wanted.Settings.Image != "y2" || m.Status != deployment.RuntimeRunning {
			t.Errorf("got %+v, want y2 running", m)
		}
	})
}

func TestImageThatIsRefusedIsNotAskedForAgain(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.absent["x"] = &deployment.Error{Path: "modules.a.settings.image", Why: "unknown signer", Code: 500}
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``)})
		pass(24 * time.Hour)
		d.expect("a day", "fetch x")
		d.expectCode(500, "unknown signer")
	})
}

func TestDeploymentIsDurableBeforeAnythingIsStopped(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``)})
		d.happened()
		d.docs.failing(appliedKey)
		d.deploy(map[string]string{"a": wanted("x2", "always", ``, ``)})
		d.expect("a full disk", "fetch x2")
		d.expectCode(500, "no space left")
		d.docs.failing("")
		pass(fetchRetry)
		d.expect("space again", "fetch x2", "signal a SIGTERM", "open a")
		d.expectCode(200, "")
	})
}

func TestRangesOfUserIDsAreForGood(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		bases := func() string {
			var out []string
			for _, i := range d.fake.Instances() {
				out = append(out, fmt.Sprintf("%s %d", i.ID(), i.Spec().IDBase))
			}
			return strings.Join(out, ", ")
		}
		a, b, c := wanted("x", "always", ``, ``), wanted("y", "always", ``, ``), wanted("z", "always", ``, ``)
		d.deploy(map[string]string{"a": a, "b": b})
		if got, want := bases(), "a 1048576, b 1114112"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		d.deploy(map[string]string{"b": b, "c": c})
		d.reboot()
		d.deploy(map[string]string{"a": a, "c": c})
		if got, want := bases(), "a 1048576, c 1179648"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}
