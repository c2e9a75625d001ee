package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
)

// program is what an image in these tests runs: it tells what it was given, and stays.
const program = `package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	cwd, _ := os.Getwd()
	switch os.Args[1] {
	case "check":
		fmt.Println("cwd", cwd, "uid", os.Getuid(), "A", os.Getenv("A"))
		if _, err := os.Stat("/tmp/sick"); err == nil {
			os.Exit(1)
		}
		return
	case "open":
		for _, node := range os.Args[2:] {
			for mode, flags := range map[string]int{"read": os.O_RDONLY, "write": os.O_RDWR} {
				f, err := os.OpenFile(node, flags, 0)
				fmt.Println(node, mode, err)
				f.Close()
			}
		}
		fmt.Println("mknod", syscall.Mknod("/tmp/mem", syscall.S_IFCHR|0o600, 1<<8|1))
		return
	case "sicken":
		fmt.Println(os.WriteFile("/tmp/sick", nil, 0o600))
		return
	}
	conf, err := os.ReadFile("/etc/app.conf")
	fmt.Println("args", os.Args[1:], "cwd", cwd, "uid", os.Getuid(), "gid", os.Getgid(), "A", os.Getenv("A"), "B", os.Getenv("B"), "conf", string(conf), err)
	_, secret := os.ReadFile("/etc/mine")
	fmt.Println("own file:", secret)
	_, gone := os.Stat("/etc/gone")
	fmt.Println("whiteout:", os.IsNotExist(gone))
	fmt.Println("volume:", os.WriteFile("/var/keep/x", []byte("1"), 0o600))
	fmt.Println("root:", os.WriteFile("/etc/new", nil, 0o600) != nil)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGQUIT, syscall.SIGTERM)
	fmt.Println("ended by", <-stop)
}
`

// buildProgram compiles it, static.
func buildProgram(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w", "-o", filepath.Join(dir, "app"), filepath.Join(dir, "main.go"))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "app"))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// appImage is an image of two layers around the program.
func appImage(t *testing.T, c *ocitest.Content, more ocitest.Object) ocitest.Object {
	t.Helper()
	directory := tar.Header{Typeflag: tar.TypeDir}
	base := ocitest.Layer(t,
		ocitest.Entry{Name: "etc/", Header: directory}, ocitest.Entry{Name: "srv/", Header: directory},
		ocitest.Entry{Name: "etc/passwd", Content: []byte("root:x:0:0::/:/\napp:x:1234:1234::/srv:/\n")},
		ocitest.Entry{Name: "etc/group", Content: []byte("root:x:0:\napp:x:1234:\nwww:x:77:\n")},
		ocitest.Entry{Name: "etc/app.conf", Content: []byte("old")}, ocitest.Entry{Name: "etc/gone", Content: []byte("x")},
		ocitest.Entry{Name: "app", Content: buildProgram(t), Header: tar.Header{Mode: 0o755}},
	)
	top := ocitest.Layer(t, ocitest.Entry{Name: "etc/app.conf", Content: []byte("new")}, ocitest.Entry{Name: "etc/.wh.gone"},
		ocitest.Entry{Name: "etc/mine", Content: []byte("x"), Header: tar.Header{Mode: 0o400, Uid: 1234, Gid: 77}})
	config := ocitest.Object{
		"Entrypoint": []string{"/app", "-e"}, "Cmd": []string{"default"}, "Env": []string{"A=image", "B=image"}, "WorkingDir": "/srv", "User": "app:www",
		"StopSignal": "SIGQUIT", "Volumes": ocitest.Object{"/var/keep": ocitest.Object{}}, "ExposedPorts": ocitest.Object{"80/tcp": ocitest.Object{}},
	}
	maps.Copy(config, more)
	return c.Image(runtime.GOARCH, config, base, top)
}

// dockerManifest deploys one module as a manifest for Azure IoT Edge does.
func dockerManifest(t *testing.T, image, createOptions string, logins ocitest.Object) []byte {
	t.Helper()
	type o = ocitest.Object
	system := o{"type": "docker", "settings": o{"image": "x"}}
	settings := o{}
	if logins != nil {
		settings["registryCredentials"] = logins
	}
	raw, err := json.Marshal(o{"modulesContent": o{
		"$edgeAgent": o{"properties.desired": o{
			"schemaVersion": "1.1", "runtime": o{"type": "docker", "settings": settings}, "systemModules": o{"edgeAgent": system, "edgeHub": system},
			"modules": o{"app": o{
				"version": "1", "type": "docker", "status": "running", "restartPolicy": "always", "env": o{"B": o{"value": "manifest"}},
				"settings": o{"image": image, "createOptions": createOptions},
			}},
		}},
		"$edgeHub": o{"properties.desired": o{"schemaVersion": "1.1", "routes": o{}, "storeAndForwardConfiguration": o{"timeToLiveSecs": 7200}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// sandpiper runs a verb against the device and returns what it printed.
func (d *device) sandpiper(args ...string) (string, int) {
	d.t.Helper()
	var out, errs bytes.Buffer
	code := run(d.t.Context(), append([]string{"--run-dir", d.path("run")}, args...), strings.NewReader(""), &out, &errs)
	return out.String() + errs.String(), code
}

func TestADockerModuleRunsFromALoadedImage(t *testing.T) {
	t.Parallel()
	d := startDevice(t)
	c := ocitest.NewContent(t)
	c.Layout(d.path("layout"), "v1", appImage(t, c, nil))
	if out, code := d.sandpiper("image", "load", d.path("layout"), "--name", "registry.example/team/app:1"); code != 0 {
		t.Fatalf("image load: %d %s", code, out)
	}
	if out, _ := d.sandpiper("image", "list"); !strings.Contains(out, "registry.example/team/app") || !strings.Contains(out, "oci") {
		t.Errorf("image list: got %q", out)
	}
	if _, err := d.client().Apply(t.Context(), dockerManifest(t, "registry.example/team/app:1", `{"Cmd":["one","two"],"HostConfig":{"LogConfig":{"Type":"json-file"}}}`, nil)); err != nil {
		t.Fatal(err)
	}
	d.until("the module tells what it was given", func() (bool, string) { log := d.logs("app"); return strings.Contains(log, "root:"), log })
	log := d.logs("app")
	for _, want := range []string{
		"args [-e one two] cwd /srv uid 1234 gid 77 A image B manifest conf new <nil>", "whiteout: true", "volume: <nil>", "root: true", "own file: <nil>",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("got\n%s\nwant something with %q", log, want)
		}
	}
	before := d.births()

	for claim, row := range map[string]struct{ image, options, want string }{
		"an option that cannot be honoured": {"registry.example/team/app:1", `{"HostConfig":{"Privileged":true}}`, "Privileged"},
		"a user the image has not":          {"registry.example/team/app:1", `{"User":"nobody-here"}`, "nobody-here"},
		"a reference that is none":          {"registry.example/Team:1", `{}`, "lower-case"},
	} {
		_, err := d.client().Apply(t.Context(), dockerManifest(t, row.image, row.options, nil))
		if err != nil {
			if !strings.Contains(err.Error(), row.want) {
				t.Errorf("%s: got %v, want %q", claim, err, row.want)
			}
			continue
		}
		d.until(claim+" is reported", func() (bool, string) {
			st, err := d.client().Status(t.Context())
			if err != nil {
				return false, err.Error()
			}
			return strings.Contains(st.Deployment.Description, row.want), st.Deployment.Description
		})
	}
	if after := d.births(); after != before {
		t.Errorf("got %s, want what ran before to go on running: %s", after, before)
	}
	if err := d.client().Verb(t.Context(), "stop", "app"); err != nil {
		t.Fatal(err)
	}
	d.until("the image's stop signal", func() (bool, string) { log := d.logs("app"); return strings.Contains(log, "ended by quit"), log })
}

// TestAnImagesOwnCheckIsRunInside: as Docker runs it, with the module's environment, directory and user.
func TestAnImagesOwnCheckIsRunInside(t *testing.T) {
	t.Parallel()
	d := startDevice(t)
	c := ocitest.NewContent(t)
	c.Layout(d.path("layout"), "v1", appImage(t, c, ocitest.Object{"Healthcheck": ocitest.Object{"Test": []string{"CMD", "/app", "check"}, "Interval": 1e9, "Retries": 1}}))
	if out, code := d.sandpiper("image", "load", d.path("layout"), "--name", "registry.example/team/app:1"); code != 0 {
		t.Fatalf("image load: %d %s", code, out)
	}
	deploy := func(options string) {
		t.Helper()
		want := strings.Replace(string(dockerManifest(t, "registry.example/team/app:1", options, nil)), `"restartPolicy":"always"`, `"restartPolicy":"never"`, 1)
		if _, err := d.client().Apply(t.Context(), []byte(want)); err != nil {
			t.Fatal(err)
		}
	}
	deploy(`{}`)
	d.untilRunning("app")
	if out, _, code := d.run("", "module", "exec", "app", "/app", "sicken"); code != 0 || out != "<nil>\n" {
		t.Fatalf("exec: %d %s", code, out)
	}
	d.expectWhy("app", "unhealthy: it runs since ", `check by "/app check": exit code 1: "cwd /srv uid 1234 A image`)
	deploy(`{"Healthcheck":{"Test":["NONE"]}}`)
	d.expectWhy("app", "running: it runs since ")
}
