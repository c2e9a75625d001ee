package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
)

func TestOperatorStopHolds(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		modules := map[string]string{"a": wanted("x", "always", ``, ``), "b": wanted("x", "always", ``, ``)}
		d.deploy(modules)
		if err := d.s.Stop(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		pass(time.Hour)
		for _, again := range []func(){func() {}, d.restart, d.reboot} {
			again()
			d.expectStatuses("a stopped, b running")
			if !d.module("a").Held {
				t.Error("it is not told that an operator stopped it")
			}
		}
		if err := d.s.Start(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		d.restart()
		d.expectStatuses("a running, b running")
		if err := d.s.Stop(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		modules["c"] = wanted("x", "always", ``, ``)
		d.deploy(modules)
		d.expectStatuses("a running, b running, c running")
		pid := d.module("b").Pid
		if err := d.s.Restart(t.Context(), "b"); err != nil || d.module("b").Pid == pid {
			t.Errorf("restart: %v, pid %d as before", err, pid)
		}
	})
}

func TestVerbsOnWhatIsNotThere(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"off": wanted("x", "always", `,"status":"stopped"`, ``)})
		for name, verb := range map[string]func(context.Context, string) error{"start": d.s.Start, "stop": d.s.Stop, "restart": d.s.Restart} {
			if err := verb(t.Context(), "nobody"); !errors.Is(err, ErrNoModule) {
				t.Errorf("%s: got %v, want %v", name, err, ErrNoModule)
			}
		}
		if err := d.s.Start(t.Context(), "off"); !errors.Is(err, ErrStopped) {
			t.Errorf("start against the deployment: got %v, want %v", err, ErrStopped)
		}
		if err := d.s.Stop(t.Context(), "off"); err != nil {
			t.Errorf("stop of what is stopped: got %v", err)
		}
	})
}

func TestDeafModuleIsKilledAfterItsTime(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, `,"stopTimeout":3`, "deaf"), "b": wanted("x", "always", ``, ``, "deaf")})
		for name, want := range map[string]time.Duration{"a": 3 * time.Second, "b": 10 * time.Second} {
			begin := time.Now()
			if err := d.s.Stop(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			if got := time.Since(begin); got != want {
				t.Errorf("%s: took %s, want %s", name, got, want)
			}
		}
		d.expectStatuses("a stopped, b stopped")
	})
}

func TestEndOfTheAgentDoesNotCutAStopShort(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``, "deaf")})
		go func() { _ = d.s.Stop(context.Background(), "a") }()
		pass(time.Second)
		begin := time.Now()
		d.end()
		if took := time.Since(begin); took > time.Second || d.fake.Instance("a").Pid() == 0 {
			t.Errorf("the agent took %s to end, module's pid %d; want it gone at once and the module alive", took, d.fake.Instance("a").Pid())
		}
		d.start()
		pass(deployment.DefaultStopTimeout)
		d.expectStatuses("a stopped")
	})
}

func TestModulesOfOneOrderAreStoppedSideBySide(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		modules := map[string]string{}
		for i := range 10 {
			modules[fmt.Sprintf("m%d", i)] = wanted("x", "always", ``, ``, "deaf")
		}
		modules["early"] = wanted("x", "always", `,"startupOrder":1`, ``)
		d.deploy(modules)
		d.happened()
		begin := time.Now()
		d.s.StopAll(t.Context())
		if got := time.Since(begin); got != deployment.DefaultStopTimeout {
			t.Errorf("took %s, want %s", got, deployment.DefaultStopTimeout)
		}
		events := d.happened()
		if events[len(events)-1] != "signal early SIGTERM" {
			t.Errorf("got %v, want the first to start stopped last", events)
		}
		d.restart()
		if got := strings.Count(d.statuses(), "running"); got != 11 {
			t.Errorf("the next agent: %s, want all running", d.statuses())
		}
	})
}

func TestAModuleThatHangsInTheKernelHoldsUpNoOther(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``, "hang"), "b": wanted("x", "always", ``, ``)})
		if err := d.s.Stop(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "does not end after SIGKILL; a device driver may hang") {
			t.Errorf("stop: got %v, want why", err)
		}
		d.deploy(map[string]string{"b": wanted("y", "always", ``, ``), "c": wanted("x", "always", ``, ``)})
		pass(2 * time.Minute)
		d.expectStatuses("a stopped, b running, c running")
		d.expectCode(deployment.CodeFailed, "does not end after SIGKILL")
		if why := d.module("a").Reason(time.Now()); !strings.Contains(why, "does not end after SIGKILL") {
			t.Errorf("why: got %q", why)
		}
		close(d.driver)
		pass(10 * time.Minute)
		d.expectStatuses("b running, c running")
		d.expectCode(deployment.CodeOK, "")
	})
}

func TestADeploymentLetsGoOfWhatWasStoppedThoughThePowerWasCut(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``), "b": wanted("x", "always", ``, ``)})
		for _, name := range []string{"a", "b"} {
			if err := d.s.Stop(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		d.restart()
		d.expectStatuses("a stopped, b stopped")
		d.docs.failing(recordPrefix) // cut between the deployment and the records
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``), "b": wanted("x", "always", ``, ``), "c": wanted("x", "always", ``, ``)})
		d.end()
		d.docs.failing("")
		d.start()
		d.expectStatuses("a running, b running, c running")
		if err := d.s.Stop(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		d.restart()
		d.expectStatuses("a stopped, b running, c running")
	})
}
