package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/control"
)

// settings deploys native modules with further settings and policies.
func withSettings(t *testing.T, manifest, module, policy string, settings map[string]any) string {
	t.Helper()
	var doc map[string]map[string]map[string]map[string]any
	if err := json.Unmarshal([]byte(manifest), &doc); err != nil {
		t.Fatal(err)
	}
	m := doc["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"].(map[string]any)[module].(map[string]any)
	m["restartPolicy"] = policy
	for key, value := range settings {
		m["settings"].(map[string]any)[key] = value
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// run is the command line against this device.
func (d *device) run(stdin string, args ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	var out, errs bytes.Buffer
	code = run(d.t.Context(), append([]string{"--run-dir", d.path("run")}, args...), strings.NewReader(stdin), &out, &errs)
	return out.String(), errs.String(), code
}

func (d *device) untilRunning(names ...string) {
	d.t.Helper()
	d.until("the modules run", func() (bool, string) {
		st, err := d.client().Status(d.t.Context())
		for _, name := range names {
			if m := find(st.Modules, name); m.Pid == 0 {
				return false, fmt.Sprintf("%s: %+v, %v", name, m, err)
			}
		}
		return err == nil, fmt.Sprint(err)
	})
}

func TestAnOperatorLooksIntoARunningModule(t *testing.T) {
	t.Parallel()
	d := startDevice(t)
	image := d.bundle("m", `echo out; echo err >&2; n=0; while n=$((n+1)); do echo "tick $n"; sleep 0.05; done`)
	once := d.bundle("once", `exit 3`)
	want := withSettings(t, manifest(map[string]string{}, map[string]string{"m": image, "once": once}), "once", "never", nil)
	if _, err := d.client().Apply(t.Context(), []byte(want)); err != nil {
		t.Fatal(err)
	}
	d.untilRunning("m")

	for claim, c := range map[string]struct {
		stdin, want string
		args        []string
		code        int
	}{
		"a program and its code":       {"", "hello\n", []string{"m", "sh", "-c", "echo hello; exit 5"}, 5},
		"its input":                    {"one\ntwo\n", "2\n", []string{"m", "--", "sh", "-c", "n=0; while read -r x; do n=$((n+1)); done; echo $n"}, 0},
		"the module's own environment": {"", "m /tmp\n", []string{"-e", "X=y", "-w", "/tmp", "m", "sh", "-c", "echo $IOTEDGE_MODULEID $(pwd)"}, 0},
		"no terminal":                  {"", "no\n", []string{"m", "sh", "-c", "test -t 0 && echo yes || echo no"}, 0},
		"a terminal":                   {"", "yes\r\n", []string{"-t", "m", "sh", "-c", "test -t 0 && test -t 1 && test -t 2 && echo yes"}, 0},
		"typed into a terminal":        {"echo typed-$((40+2))\nexit 9\n", "typed-42", []string{"-t", "m", "sh"}, 9},
		"the module's walls":           {"", "1\n", []string{"m", "sh", "-c", "mount -t tmpfs x /tmp 2>/dev/null; echo $?"}, 0},
	} {
		stdout, stderr, code := d.run(c.stdin, append([]string{"module", "exec"}, c.args...)...)
		got := stdout == c.want || strings.HasPrefix(claim, "typed") && strings.Contains(stdout, c.want) || claim == "the module's walls" && stdout != "0\n"
		if !got || code != c.code {
			t.Errorf("%s: got %q, %q and code %d, want %q and %d", claim, stdout, stderr, code, c.want, c.code)
		}
	}
	size := control.ExecRequest{Args: []string{"sh", "-c", "stty size"}, Terminal: &control.Size{Rows: 33, Cols: 101}}
	var out bytes.Buffer
	if code, err := d.client().Exec(t.Context(), "m", size, control.Streams{Out: &out}); err != nil || code != 0 || out.String() != "33 101\r\n" {
		t.Errorf("size of a terminal: got %q, code %d, %v", out.String(), code, err)
	}
	if _, stderr, code := d.run("", "module", "exec", "once", "true"); code != 1 || !strings.Contains(stderr, "module why once") {
		t.Errorf("exec in a module that ended: got %q and code %d", stderr, code)
	}

	d.expectWhy("m", "running: it runs since ")
	d.expectWhy("once", "ended with exit code 3 at ", "its restart policy is never", "`sandpiper module start once` starts it")
	if _, stderr, code := d.run("", "module", "why", "nobody"); code != 1 || !strings.Contains(stderr, "not in the deployment") {
		t.Errorf("why of no module: got %q and code %d", stderr, code)
	}

	stdout, _, code := d.run("", "module", "stats", "--json")
	var usage []control.Usage
	if err := json.Unmarshal([]byte(stdout), &usage); err != nil || code != 0 || len(usage) != 1 || usage[0].Module != "m" {
		t.Fatalf("stats: got %s, %v", stdout, err)
	}
	if u := usage[0]; u.Memory == 0 || u.Pids == 0 || u.PidsLimit != 128 || u.CPUSeconds == 0 || u.MemoryLimit != 128<<20 {
		t.Errorf("stats: got %+v", u)
	}
	if stdout, _, code := d.run("", "module", "stats", "m"); code != 0 || strings.Count(stdout, "\n") != 2 {
		t.Errorf("stats as a table: got %q", stdout)
	}

	stdout, _, _ = d.run("", "module", "logs", "m", "--stream", "stderr", "--json")
	var line struct{ Time, Stream, Line string }
	if err := json.Unmarshal([]byte(stdout), &line); err != nil || line.Stream != "stderr" || line.Line != "err" || line.Time == "" {
		t.Errorf("standard error: got %q, %v", stdout, err)
	}
	d.staysPausedOverAKill()
}

// staysPausedOverAKill pauses the module m, kills the agent, and lets the module go on.
func (d *device) staysPausedOverAKill() {
	d.t.Helper()
	if _, stderr, code := d.run("", "module", "pause", "m"); code != 0 {
		d.t.Fatalf("pause: %s", stderr)
	}
	d.expectWhy("m", "paused: it is paused by an operator")
	st, err := d.client().Status(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	if err := syscall.Kill(st.Pid, syscall.SIGKILL); err != nil {
		d.t.Fatal(err)
	}
	d.until("the next agent knows that the module is paused", func() (bool, string) {
		now, err := d.client().Status(d.t.Context())
		return err == nil && now.Pid != st.Pid && find(now.Modules, "m").Status == "paused", fmt.Sprint(now.Modules, err)
	})
	before := d.logs("m")
	if _, _, code := d.run("", "module", "exec", "m", "true"); code != 1 {
		d.t.Errorf("exec in a paused module: got code %d, want 1", code)
	}
	if after := d.logs("m"); after != before {
		d.t.Errorf("a paused module prints: %d and then %d bytes", len(before), len(after))
	}
	if _, stderr, code := d.run("", "module", "resume", "m"); code != 0 {
		d.t.Fatalf("resume: %s", stderr)
	}
	d.until("the module goes on", func() (bool, string) { return len(d.logs("m")) > len(before), "" })
	if _, stderr, code := d.run("", "module", "pause", "m"); code != 0 {
		d.t.Fatalf("pause: %s", stderr)
	}
	if _, stderr, code := d.run("", "module", "stop", "m"); code != 0 {
		d.t.Fatalf("stop of a paused module: %s", stderr)
	}
	d.expectWhy("m", "stopped: an operator stopped it; `sandpiper module start m` starts it")
}

func (d *device) expectWhy(module string, want ...string) {
	d.t.Helper()
	d.until("why "+module, func() (bool, string) {
		stdout, stderr, code := d.run("", "module", "why", module)
		for _, part := range want {
			if !strings.Contains(stdout, part) {
				return false, stdout + stderr
			}
		}
		return code == 0 && strings.Count(stdout, "\n") == 1, stdout + stderr
	})
}

func TestHealthOfModulesIsLookedAfter(t *testing.T) {
	t.Parallel()
	d := startDevice(t)
	images := map[string]string{
		"command": d.bundle("command", `touch /tmp/well; while :; do sleep 0.1; done`),
		"silent":  d.bundle("silent", `while :; do sleep 0.1; done`),
		"closed":  d.bundle("closed", `while :; do sleep 0.1; done`),
		"stops":   d.bundle("stops", `while :; do sleep 0.1; done`),
	}
	want := manifest(map[string]string{}, images)
	for module, health := range map[string]map[string]any{
		"command": {"command": []string{"test", "-e", "/tmp/well"}, "onUnhealthy": "report"},
		"silent":  {"heartbeat": "1s"},
		"closed":  {"http": "http://127.0.0.1:8080/healthz", "onUnhealthy": "report"},
		"stops":   {"tcp": "127.0.0.1:8080", "onUnhealthy": "stop"},
	} {
		health["interval"], health["retries"], health["start"] = "1s", 1, "1ms"
		want = withSettings(t, want, module, "always", map[string]any{"health": health})
	}
	if _, err := d.client().Apply(t.Context(), []byte(want)); err != nil {
		t.Fatal(err)
	}
	d.untilRunning("command")
	d.expectWhy("closed", "unhealthy: it runs since ", "check of http://127.0.0.1:8080/healthz", "connection refused")
	d.expectWhy("silent", "unhealthy: no heartbeat for ", "it is started again at ")
	d.expectWhy("stops", "unhealthy: check of 127.0.0.1:8080", "`sandpiper module start stops` starts it")
	d.expectWhy("command", "running: it runs since ")
	if stdout, stderr, code := d.run("", "module", "exec", "command", "rm", "/tmp/well"); code != 0 {
		t.Fatalf("exec: %s%s", stdout, stderr)
	}
	d.expectWhy("command", "unhealthy: it runs since ", `check by "test -e /tmp/well": exit code 1`)
	if stdout, stderr, code := d.run("", "module", "exec", "command", "touch", "/tmp/well"); code != 0 {
		t.Fatalf("exec: %s%s", stdout, stderr)
	}
	d.expectWhy("command", "running: it runs since ")
}
