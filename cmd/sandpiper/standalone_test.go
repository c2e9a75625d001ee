package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

// device is an agent under its warden, with no hub, in folders of its own.
type device struct {
	t      *testing.T
	dir    string
	warden *exec.Cmd
	log    *words
}

// words is what a process has said so far.
type words struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// startDevice starts the real binary as a device's init system would, with more configuration if it is given. The test is skipped,
// loudly, without root.
func startDevice(t *testing.T, more ...string) *device {
	t.Helper()
	return startDeviceAs(t, func(*exec.Cmd) {}, more...)
}

// startDeviceAs is startDevice for a process that is not quite like this one.
func startDeviceAs(t *testing.T, change func(*exec.Cmd), more ...string) *device {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SANDBOX TESTS DO NOT RUN: they need root for namespaces, mounts and cgroups")
	}
	dir, err := os.MkdirTemp("", "sandpiper-test-") //nolint:usetesting // a unix socket's path is short, and modules must be able to walk to it
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	d := &device{t: t, dir: dir, log: &words{}}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("something is left behind: %v", err)
		}
	})
	key, err := bundletest.Key(t, 1).Public().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	d.write("release.pub", string(key))
	d.write("config.toml", fmt.Sprintf("state_dir = %q\nrun_dir = %q\n[[bundles.trusted_keys]]\nfile = %q\n[device]\ngateway = \"gateway\"\n",
		d.path("state"), d.path("run"), d.path("release.pub"))+strings.Join(more, ""))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d.warden = exec.Command(self, "agent", "--config", d.path("config.toml"))
	d.warden.Stderr = d.log
	change(d.warden)
	if err := d.warden.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.stop)
	d.until("the agent answers", func() (bool, string) {
		_, err := d.client().Status(t.Context())
		return err == nil, fmt.Sprint(err)
	})
	return d
}

// stop ends the device as an init system does; its modules end with it.
func (d *device) stop() {
	if err := d.warden.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Error(err)
	}
	if err := d.warden.Wait(); err != nil {
		d.t.Errorf("warden: got %v, want a clean end; its log:\n%s", err, d.log)
	}
	if d.t.Failed() {
		d.t.Logf("log of the agent:\n%s", d.log)
	}
}

func (d *device) path(name string) string { return filepath.Join(d.dir, name) }

func (d *device) client() *control.Client { return control.Dial(d.path("run/control.sock")) }

func (d *device) write(name, text string) string {
	d.t.Helper()
	if err := os.WriteFile(d.path(name), []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return d.path(name)
}

// until polls a running system for at most twenty seconds; there is no event to wait for from outside.
func (d *device) until(what string, ask func() (bool, string)) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, last := ask()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			d.t.Fatalf("%s: not in time; last: %s\nlog of the agent:\n%s", what, last, d.log)
		}
	}
}

// bundle makes a signed native bundle that runs a shell script.
func (d *device) bundle(name, script string) string {
	return d.write(name+".spb", string(bundletest.Build(d.t, bundletest.Options{
		Files: map[string]string{"main.sh": "#!/bin/sh\ntrap 'exit 0' TERM\n" + script},
		Manifest: func(m *bundle.Manifest) {
			m.Name = name
			m.Runtime = &bundle.Runtime{Args: []string{"/bin/sh", "/app/main.sh"}, HostView: true}
		},
	})))
}

// manifest deploys the named native modules from their bundles with the routes.
func manifest(routes map[string]string, images map[string]string) string {
	modules := map[string]any{}
	for name, image := range images {
		modules[name] = map[string]any{"type": "native", "status": "running", "restartPolicy": "always", "settings": map[string]any{"image": "file://" + image}}
	}
	raw, err := json.Marshal(map[string]any{"modulesContent": map[string]any{
		"$edgeAgent": map[string]any{"properties.desired": map[string]any{"schemaVersion": "1.1", "runtime": map[string]any{"type": "docker", "settings": map[string]any{}}, "systemModules": map[string]any{
			"edgeAgent": map[string]any{"type": "docker", "settings": map[string]any{"image": "x"}},
			"edgeHub":   map[string]any{"type": "docker", "settings": map[string]any{"image": "x"}},
		}, "modules": modules}},
		"$edgeHub": map[string]any{"properties.desired": map[string]any{"schemaVersion": "1.1", "routes": routes, "storeAndForwardConfiguration": map[string]any{"timeToLiveSecs": 7200}}},
	}})
	if err != nil {
		panic(err)
	}
	return string(raw)
}

const toConsumer = `FROM /messages/modules/producer/outputs/out INTO BrokeredEndpoint("/modules/consumer/inputs/in")`

func TestAStandaloneDeviceRunsModulesRoutesBetweenThemAndRefusesWhatIsWrong(t *testing.T) {
	t.Parallel()
	d := startDevice(t)
	images := map[string]string{
		"producer": d.bundle("producer", `n=0; while n=$((n+1)); do "$SANDPIPER" send --output out --id "p-$n" "number $n"; sleep 0.2; done`),
		"consumer": d.bundle("consumer", `exec "$SANDPIPER" receive`),
	}
	good := manifest(map[string]string{"between": toConsumer}, images)
	if out, why, code := d.run(good, "deploy", "apply", "-"); code != 0 || !strings.Contains(out, "start   consumer") || !strings.HasSuffix(out, " is applied\n") {
		t.Fatalf("apply: got %d, %s%s, want the steps and that they are done", code, out, why)
	}
	d.until("messages of the producer reach the consumer", func() (bool, string) {
		log := d.logs("consumer")
		return strings.Contains(log, `"text":"number 3"`), log
	})
	if out, why, code := d.run(good, "deploy", "apply", "-"); code != 0 || !strings.Contains(out, "nothing to do") {
		t.Errorf("apply the same again: got %d, %s%s", code, out, why)
	}
	before := d.births()

	for claim, c := range map[string]struct {
		manifest string
		want     string
	}{
		"a manifest that is no JSON":    {`{"modulesContent":`, "JSON"},
		"an unknown route keyword":      {manifest(map[string]string{"r": "FROM /messages/* TO $upstream"}, images), "routes.r"},
		"an unknown module type":        {strings.Replace(good, `"type":"native"`, `"type":"vm"`, 1), "type"},
		"a createOptions member":        {strings.Replace(strings.Replace(good, `"type":"native"`, `"type":"docker"`, 1), `"settings":{"image":"file`, `"settings":{"createOptions":"{\"HostConfig\":{\"Privileged\":true}}","image":"file`, 1), "Privileged"},
		"a twin over the limits":        {strings.Replace(good, `"modulesContent":{`, `"modulesContent":{"producer":{"properties.desired":{"a.b":1}},`, 1), "a.b"},
		"a schema of another age":       {strings.Replace(good, `"schemaVersion":"1.1","systemModules"`, `"schemaVersion":"9.0","systemModules"`, 1), "schemaVersion"},
		"a setting that does not exist": {strings.Replace(good, `"settings":{"image":"file`, `"settings":{"gpu":true,"image":"file`, 1), "gpu"},
		"pins on an agent without any":  {strings.Replace(good, `"settings":{"image":"file`, `"settings":{"hal":[{"line":"led"}],"image":"file`, 1), "hal"},
		"a module without an image":     {strings.Replace(good, `"image":"file://`+images["producer"]+`"`, `"user":"0"`, 1), "image"},
	} {
		if c.manifest == good {
			t.Fatalf("%s: the manifest is the good one, so this row tests nothing", claim)
		}
		_, err := d.client().Apply(t.Context(), []byte(c.manifest))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want one line with %q", claim, err, c.want)
		}
	}

	flipped := bundletest.Build(t, bundletest.Options{Files: map[string]string{"main.sh": "#!/bin/sh\nexit 1\n"}, Manifest: func(m *bundle.Manifest) {
		m.Name, m.Sequence = "producer", 2
		m.Runtime = &bundle.Runtime{Args: []string{"/app/main.sh"}, HostView: true}
	}})
	flipped[len(flipped)-10] ^= 1
	stranger := bundletest.Build(t, bundletest.Options{Files: map[string]string{"main.sh": "#!/bin/sh\n"}, Key: bundletest.Key(t, 9), Manifest: func(m *bundle.Manifest) {
		m.Name, m.Sequence = "producer", 2
	}})
	for claim, c := range map[string]struct {
		image string
		want  string
	}{
		"a bundle with one flipped byte": {d.write("flipped.spb", string(flipped)), "producer"},
		"a bundle of an unknown signer":  {d.write("stranger.spb", string(stranger)), "signer"},
	} {
		bad := manifest(map[string]string{"between": toConsumer}, map[string]string{"producer": c.image, "consumer": images["consumer"]})
		if _, why, code := d.run(bad, "deploy", "apply", "-"); code != 1 || !strings.Contains(why, "is stored and not applied: image of module producer") || strings.Count(why, "\n") != 1 {
			t.Errorf("%s: apply: got %d, %s, want one line that says what became of it", claim, code, why)
		}
		if out, why, code := d.run(bad, "deploy", "apply", "--wait", "0", "--json", "-"); code != 0 || !strings.Contains(out, `"version": `) || strings.Contains(out, `"deployment"`) {
			t.Errorf("%s: apply without waiting: got %d, %s%s", claim, code, out, why)
		}
		d.until(claim+" is reported", func() (bool, string) {
			st, err := d.client().Status(t.Context())
			if err != nil {
				return false, err.Error()
			}
			return st.Deployment.Code == 500 && strings.Contains(st.Deployment.Description, "producer"), fmt.Sprintf("%+v", st.Deployment)
		})
	}
	if after := d.births(); after != before {
		t.Errorf("got %s, want what ran before to go on running: %s", after, before)
	}
	later := manifest(map[string]string{"between": toConsumer}, map[string]string{"producer": d.path("later.spb"), "consumer": images["consumer"]})
	if _, why, code := d.run(later, "deploy", "apply", "-"); code != 1 || !strings.Contains(why, "there is no file") {
		t.Errorf("a bundle that is not there: got %d, %s", code, why)
	}
	if err := os.Link(images["producer"], d.path("later.spb")); err != nil {
		t.Fatal(err)
	}
	if _, why, code := d.run(later, "deploy", "apply", "-"); code != 0 {
		t.Errorf("it is there now, and applied again: got %d, %s, want no wait for the next try", code, why)
	}
}

func TestModulesLiveThroughAKillOfTheAgentAndTheirLogLosesNoLine(t *testing.T) {
	t.Parallel()
	d := startDevice(t)
	image := d.bundle("counter", `n=0; while n=$((n+1)); do echo "line $n"; sleep 0.02; done`)
	if _, err := d.client().Apply(t.Context(), []byte(manifest(map[string]string{}, map[string]string{"counter": image}))); err != nil {
		t.Fatal(err)
	}
	d.until("the module prints", func() (bool, string) { log := d.logs("counter"); return strings.Contains(log, "line 5\n"), log })
	before := d.births()
	st, err := d.client().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(st.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.until("another agent answers", func() (bool, string) {
		now, err := d.client().Status(t.Context())
		return err == nil && now.Pid != st.Pid && len(now.Modules) == 1 && now.Modules[0].Pid != 0, fmt.Sprint(now, err)
	})
	if after := d.births(); after != before {
		t.Errorf("got %s, want the same instance as before: %s", after, before)
	}
	d.until("the log goes on", func() (bool, string) { log := d.logs("counter"); return strings.Contains(log, "line 120\n"), "" })
	want := 1
	for line := range strings.Lines(d.logs("counter")) {
		if _, n, ok := strings.Cut(strings.TrimSpace(line), "line "); ok {
			if n != fmt.Sprint(want) {
				t.Fatalf("got line %s, want line %d: one is missing", n, want)
			}
			want++
		}
	}
}

// logs reads a module's log as an operator does.
func (d *device) logs(module string) string {
	var out bytes.Buffer
	if err := d.client().Logs(d.t.Context(), module, control.LogRequest{Tail: -1}, &out); err != nil {
		return err.Error()
	}
	return out.String()
}

// births tells which instances run, and since when.
func (d *device) births() string {
	d.t.Helper()
	st, err := d.client().Status(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	var list []string
	for _, m := range st.Modules {
		list = append(list, fmt.Sprintf("%s %d since %s", m.Name, m.Pid, m.Started.Format(time.RFC3339Nano)))
	}
	return strings.Join(list, ", ")
}
