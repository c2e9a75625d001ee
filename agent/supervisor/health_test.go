package supervisor

import (
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// withCheck is a device on which an image has a check of its own; deployed runs it under the settings and forgets what happened so far.
func withCheck(d *device, check deployment.ImageHealth) {
	check.Command = []string{"check", "image"}
	d.checks = map[string]*deployment.ImageHealth{"app": &check}
}

func (d *device) expectHealth(when, status, why string) {
	d.t.Helper()
	m := d.module("m")
	if got := m.Reason(time.Now()); m.Status != status || !strings.Contains(got, why) {
		d.t.Errorf("%s: got %s, %q, want %s with %q", when, m.Status, got, status, why)
	}
}

func TestAnImagesOwnCheckIsRunAtDockersPace(t *testing.T) {
	live(t, func(_ *testing.T, d *device) {
		withCheck(d, deployment.ImageHealth{})
		d.ails(true)
		d.deploy(map[string]string{"m": wanted("app", "never", "", "")})
		pass(89 * time.Second)
		d.expectHealth("before the third check", "running", "")
		pass(2 * time.Second)
		d.expectHealth("after it", "unhealthy", `check by "check image": exit code 1`)
		d.ails(false)
		pass(30 * time.Second)
		d.expectHealth("when it is well again", "running", "")
	})
}

func TestAModuleThatFailsItsImagesCheckIsStartedAgain(t *testing.T) {
	live(t, func(_ *testing.T, d *device) {
		withCheck(d, deployment.ImageHealth{Interval: time.Second, Retries: 2})
		d.deploy(map[string]string{"m": wanted("app", "always", "", "")})
		pass(10 * time.Second)
		d.expectHealth("well", "running", "")
		d.happened()
		d.ails(true)
		pass(2 * time.Second)
		d.ails(false)
		pass(time.Minute)
		d.expectHealth("later", "running", "")
		if got := strings.Join(d.happened(), ", "); !strings.HasPrefix(got, "check image, check image, signal m SIGTERM, open m, check image") {
			t.Errorf("got %s, want two checks, the end, and a new start", got)
		}
	})
}

func TestTheStartPeriodOfAnImageEndsWithItsFirstSuccess(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		withCheck(d, deployment.ImageHealth{Interval: 10 * time.Second, Start: time.Hour, Retries: 1})
		d.ails(true)
		d.deploy(map[string]string{"m": wanted("app", "never", "", "")})
		d.happened()
		pass(61 * time.Second)
		d.expectHealth("while it starts", "running", "")
		if got := strings.Count(strings.Join(d.happened(), ","), "check"); got != 12 {
			t.Errorf("got %d checks in a minute of the start period, want one each 5 s", got)
		}
		d.ails(false)
		pass(5 * time.Second)
		d.ails(true)
		pass(10 * time.Second)
		d.expectHealth("once it was well", "unhealthy", "exit code 1")
	})
}

func TestADeploymentOverridesTheImagesCheck(t *testing.T) {
	for name, c := range map[string]struct{ health, checked string }{
		"it takes it as it is":   {`{}`, "check image"},
		"it sets the pace":       {`{"interval":"1s","retries":1}`, "check image"},
		"it has a check instead": {`{"command":["check","mine"],"interval":"1s","start":"1ms","retries":1}`, "check mine"},
		"it wants none":          {`{"image":false}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			live(t, func(t *testing.T, d *device) {
				withCheck(d, deployment.ImageHealth{Interval: time.Minute, Retries: 1})
				d.ails(true)
				d.deploy(map[string]string{"m": wanted("app", "never", "", `,"health":`+c.health)})
				d.happened()
				pass(61 * time.Second)
				seen := d.happened()
				for _, event := range seen {
					if event != c.checked && strings.HasPrefix(event, "check") {
						t.Errorf("got %s, want only %q", event, c.checked)
					}
				}
				if ill := d.module("m").Status == "unhealthy"; ill != (c.checked != "") {
					t.Errorf("unhealthy: %v after %q", ill, seen)
				}
			})
		})
	}
}

func TestACheckThatADeploymentTakesAwayTakesItsWordWithIt(t *testing.T) {
	live(t, func(_ *testing.T, d *device) {
		withCheck(d, deployment.ImageHealth{Interval: time.Second, Retries: 1})
		d.ails(true)
		d.deploy(map[string]string{"m": wanted("app", "never", "", "")})
		pass(5 * time.Second)
		d.expectHealth("with the check", "unhealthy", "exit code 1")
		d.deploy(map[string]string{"m": wanted("app", "never", "", `,"health":{"image":false}`)})
		pass(time.Minute)
		d.expectHealth("without it", "running", "")
	})
}

func TestAnImagesCheckIsKnownToTheNextAgent(t *testing.T) {
	live(t, func(_ *testing.T, d *device) {
		withCheck(d, deployment.ImageHealth{Interval: time.Second, Retries: 1})
		d.deploy(map[string]string{"m": wanted("app", "never", "", "")})
		pass(5 * time.Second)
		d.ails(true)
		d.restart()
		pass(5 * time.Second)
		d.expectHealth("under the next agent", "unhealthy", `check by "check image"`)
	})
}

// TestAnIllModuleThatEndsWhileTheAgentIsAwayIsStartedAgain: it was asked to end; that it did so without an error is no wish to stay down.
func TestAnIllModuleThatEndsWhileTheAgentIsAwayIsStartedAgain(t *testing.T) {
	for remedy, want := range map[string]string{"restart": "m running", "stop": "m stopped"} {
		t.Run(remedy, func(t *testing.T) {
			live(t, func(_ *testing.T, d *device) {
				withCheck(d, deployment.ImageHealth{Interval: time.Second, Retries: 1})
				d.deploy(map[string]string{"m": wanted("app", "on-failure", "", `,"stopTimeout":"1m","health":{"onUnhealthy":"`+remedy+`"}`, "deaf")})
				d.ails(true)
				pass(3 * time.Second)
				d.ails(false)
				d.end()
				d.fake.Instance("m").ForceExit(sandbox.Exit{Known: true})
				pass(time.Second)
				d.start()
				pass(15 * time.Second)
				d.expectStatuses(want)
				if why := d.module("m").Reason(time.Now()); remedy == "stop" && !strings.HasPrefix(why, "unhealthy: check") {
					d.t.Errorf("why: got %q, want what it was ended for", why)
				}
			})
		})
	}
}

func TestAVerdictGoesWithItsCheckThoughOneIsUnderWay(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.ails(true)
		checked := `,"health":{"command":["check","slow"],"interval":"1s","timeout":"10s","retries":1,"start":"1ms","onUnhealthy":"report"}`
		d.deploy(map[string]string{"a": wanted("x", "always", ``, checked)})
		pid := d.module("a").Pid
		pass(3500 * time.Millisecond)
		d.expectStatuses("a unhealthy")
		pass(time.Second) // into the next check
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``)})
		pass(3 * time.Second)
		d.expectStatuses("a running")
		if m := d.module("a"); m.Pid != pid {
			t.Errorf("got %+v, want it left alone", m)
		}
	})
}
