package supervisor

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestTableOfStates(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	reached := map[state]bool{stopped: true}
	for from := range state(len(stateNames)) {
		for e := range event(len(eventNames)) {
			if to, ok := next[from][e]; ok {
				fmt.Fprintf(&out, "%-9s --%s--> %s\n", from, e, to)
				reached[to] = true
			}
		}
		if len(next[from]) == 0 {
			t.Errorf("nothing leads out of %s", from)
		}
	}
	if len(reached) != len(stateNames) {
		t.Errorf("only %v are reached", reached)
	}
	path := filepath.Join("testdata", "states.golden")
	if *update {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || out.String() != string(want) {
		t.Errorf("%s differs, %v: got\n%s", path, err, out.String())
	}
}

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

func TestFailuresInProbationAreReported(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{
			"good": wanted("g", "always", ``, ``),
			"bad":  wanted("b", "always", ``, `,"health":{"probation":60,"restarts":2}`, "exit", "7", "5s"),
		})
		pass(12 * time.Second) // two failures are forgiven
		d.expectCode(200, "")
		pass(15 * time.Second)
		d.expectCode(500, "module bad has not run for 1m0s yet, 3 failures: ended with exit code 7")
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

func TestReportSaysOnlyWhatChanged(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``, "exit", "1", "40s")})
		pass(2 * reportPace)
		reported := func() string { return string(d.twins.Snapshot(edgeAgent).Reported) }
		for _, want := range []string{
			`"lastDesiredVersion":2`, `"lastDesiredStatus":{"code":200,"description":""}`, `"runtimeStatus":"running"`,
			`"imageHash":"sha256:x"`, `"restartCount":0`, `"systemModules":{"edgeAgent"`,
		} {
			if !strings.Contains(reported(), want) {
				t.Errorf("report lacks %s: %s", want, reported())
			}
		}
		puts := d.docs.writes()
		for range 20 {
			signal(d.s.tell)
			pass(reportPace)
		}
		if d.docs.writes() != puts {
			t.Errorf("%d writes for a report that says the same", d.docs.writes()-puts)
		}
		pass(20*time.Second - 500*time.Millisecond)
		if !strings.Contains(reported(), `"runtimeStatus":"backoff"`) && !strings.Contains(reported(), `"restartCount":1`) {
			t.Errorf("the end is not reported: %s", reported())
		}
		d.deploy(map[string]string{})
		pass(2 * reportPace)
		if !strings.Contains(reported(), `"modules":{}`) {
			t.Errorf("a removed module is still reported: %s", reported())
		}
	})
}

func TestReportTooLargeForATwinGoesWithoutItsBulk(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		modules := map[string]string{}
		for i := range 7 {
			modules[fmt.Sprintf("m%d", i)] = wanted("x", "always", `,"env":{"A":{"value":"`+strings.Repeat("v", 4090)+`"}}`, ``)
		}
		d.deploy(modules)
		pass(2 * reportPace)
		reported := string(d.twins.Snapshot(edgeAgent).Reported)
		if strings.Count(reported, `"runtimeStatus":"running"`) != 9 {
			t.Errorf("got a report of %d bytes: %.300s", len(reported), reported)
		}
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

func TestNewRefusesWhatIsMissing(t *testing.T) {
	t.Parallel()
	if s, err := New(Config{Device: "edge1"}); err == nil || s != nil {
		t.Errorf("got %v, %v, want an error", s, err)
	}
}
