package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
)

// ownersNode is a node of this host that no sandbox has by itself, and that harms nobody when it is opened.
func ownersNode(t *testing.T) string {
	t.Helper()
	for _, node := range []string{"/dev/fuse", "/dev/loop-control", "/dev/hwrng", "/dev/net/tun"} {
		if f, err := os.Open(node); err == nil {
			f.Close()
			return node
		}
	}
	t.Skip("SKIPPED: this host has no device node to grant: one of /dev/fuse, /dev/loop-control, /dev/hwrng, /dev/net/tun")
	return ""
}

func TestADeviceNodeOfTheOwnerOpensInItsModuleAndInNoOther(t *testing.T) {
	t.Parallel()
	node := ownersNode(t)
	d := startDevice(t, "[hal]\nbackend = \"sim\"\n[[hal.device]]\nname = \"port\"\npath = \""+node+"\"\nallow = [\"raw\"]\n")
	images := map[string]string{}
	for _, name := range []string{"raw", "other"} {
		images[name] = d.bundle(name, `if [ -c `+node+` ]; then : <`+node+` && echo opened; else echo "no node"; fi; while :; do sleep 0.2; done`)
	}
	doc := map[string]any{}
	if err := json.Unmarshal([]byte(manifest(nil, images)), &doc); err != nil {
		t.Fatal(err)
	}
	modules := doc["modulesContent"].(map[string]any)["$edgeAgent"].(map[string]any)["properties.desired"].(map[string]any)["modules"].(map[string]any)
	settings := func(name string) map[string]any { return modules[name].(map[string]any)["settings"].(map[string]any) }
	settings("raw")["hal"] = []any{"port:rw"}
	apply := func() error {
		raw, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.client().Apply(t.Context(), raw)
		return err
	}
	if err := apply(); err != nil {
		t.Fatalf("apply: %v", err)
	}
	for name, want := range map[string]string{"raw": "opened", "other": "no node"} {
		d.until(name+" says what it has", func() (bool, string) { got := d.logs(name); return strings.Contains(got, want), got })
	}
	if got := d.hal("list"); !strings.Contains(got, "unmediated") {
		t.Errorf("list: got\n%s\nwant the node as unmediated", got)
	}

	modules["docker"] = map[string]any{"type": "docker", "status": "running", "restartPolicy": "always", "settings": map[string]any{
		"image": "registry.invalid/x:1", "createOptions": `{"HostConfig":{"Devices":[{"PathOnHost":"/dev/mem"}]}}`}}
	if err := apply(); err == nil || !strings.Contains(err.Error(), "/dev/mem is no [[hal.device]]") {
		t.Errorf("a node that the owner did not name: got %v, want it refused by name", err)
	}
	delete(modules, "docker")
	settings("other")["hal"] = []any{"port:rw"}
	if err := apply(); err == nil || !strings.Contains(err.Error(), "does not allow it to module other") {
		t.Errorf("a module that the owner did not allow: got %v, want it refused by name", err)
	}
}

func TestADockerModuleGetsTheNodesOfItsCreateOptionsThatTheOwnerAllows(t *testing.T) {
	t.Parallel()
	node := ownersNode(t)
	d := startDevice(t, "[hal]\nbackend = \"sim\"\n[[hal.device]]\nname = \"scale\"\npath = \""+node+"\"\nallow = [\"app\"]\n[[hal.device]]\nname = \"kernel-log\"\npath = \"/dev/kmsg\"\n")
	c := ocitest.NewContent(t)
	c.Layout(d.path("layout"), "v1", appImage(t, c, nil))
	if out, code := d.sandpiper("image", "load", d.path("layout"), "--name", "registry.example/team/app:1"); code != 0 {
		t.Fatalf("image load: %d %s", code, out)
	}
	deploy := func(devices ...ocitest.Object) error {
		t.Helper()
		options, err := json.Marshal(ocitest.Object{"HostConfig": ocitest.Object{"Devices": devices}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.client().Apply(t.Context(), dockerManifest(t, "registry.example/team/app:1", string(options), nil))
		return err
	}
	opens := func() string {
		t.Helper()
		out, _, code := d.run("", "module", "exec", "app", "/app", "open", "/dev/scale", node, "/dev/kmsg")
		if code != 0 {
			t.Fatalf("exec: %d %s", code, out)
		}
		return out
	}
	was := 0
	denied := []string{node + " read open ", node + " write open ", "/dev/kmsg read open ", "/dev/kmsg write open ", "mknod operation not permitted"}
	for access, want := range map[string][]string{
		"rwm": {"/dev/scale read <nil>", "/dev/scale write <nil>"},
		"r":   {"/dev/scale read <nil>", "/dev/scale write open /dev/scale: "},
	} {
		if err := deploy(ocitest.Object{"PathOnHost": node, "PathInContainer": "/dev/scale", "CgroupPermissions": access}); err != nil {
			t.Fatalf("%s: %v", access, err)
		}
		d.until(access+" runs, and not what ran before", func() (bool, string) {
			st, err := d.client().Status(t.Context())
			app := find(st.Modules, "app")
			if err != nil || app.Status != "running" || app.Pid == 0 || app.Pid == was {
				return false, fmt.Sprint(app, err)
			}
			was = app.Pid
			return true, ""
		})
		out := opens()
		for _, line := range append(want, denied...) {
			if !strings.Contains(out, line) {
				t.Errorf("%s: got\n%s\nwant something with %q", access, out, line)
			}
		}
	}
	if got := d.hal("list"); strings.Count(got, "unmediated") != 2 {
		t.Errorf("list: got\n%s\nwant both nodes as unmediated", got)
	}
	before := d.births()
	for path, want := range map[string]string{"/dev/mem": "/dev/mem is no [[hal.device]]", "/dev/kmsg": "does not allow it to module app"} {
		if err := deploy(ocitest.Object{"PathOnHost": path}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want it refused with %q", path, err, want)
		}
	}
	if after := d.births(); after != before {
		t.Errorf("got %s after what was refused, want %s to go on", after, before)
	}
}
