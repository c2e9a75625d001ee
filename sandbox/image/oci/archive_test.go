package oci_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
)

// tarOf packs a directory, as OCI layouts are passed around.
func tarOf(t testing.TB, dir string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "archive.tar")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestAnImageIsFoundInEachFormOfArchive(t *testing.T) {
	t.Parallel()
	layer := layerOf(t, fileOf("a", "content"))
	run := object{"Entrypoint": []string{"/a"}}
	l := newLayout(t)
	m := l.image(run, layer)
	m["annotations"] = object{"org.opencontainers.image.ref.name": "v1", "io.containerd.image.name": "registry.example/team/a:v1"}
	l.index(m)

	saved := t.TempDir()
	config := jsonOf(t, configOf(run, digestOf(layer)))
	for name, content := range map[string][]byte{
		"c.json": config, "l1/layer.tar": layer,
		"manifest.json": jsonOf(t, []object{{"Config": "c.json", "RepoTags": []string{"registry.example/team/a:v1"}, "Layers": []string{"l1/layer.tar"}}}),
	} {
		_ = os.MkdirAll(filepath.Dir(filepath.Join(saved, name)), 0o755)
		if err := os.WriteFile(filepath.Join(saved, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for form, where := range map[string]string{"layout": l.dir, "layout in a tar": tarOf(t, l.dir), "docker save": tarOf(t, saved), "docker save, unpacked": saved} {
		img, _, f, err := merge(t, where)
		if err != nil {
			t.Errorf("%s: %v", form, err)
			continue
		}
		if got, want := listing(t, f), "drwxr-xr-x 0:0 .\n-rw-r--r-- 0:0 a = content\n"; got != want {
			t.Errorf("%s: got %q, want %q", form, got, want)
		}
		if got, want := fmt.Sprint(img.Names, img.Config.Entrypoint), "[registry.example/team/a:v1] [/a]"; got != want {
			t.Errorf("%s: got %s, want %s", form, got, want)
		}
	}
}

func TestHostileDocumentsAreRefused(t *testing.T) {
	t.Parallel()
	layer := layerOf(t, fileOf("a", "1"))
	good := func(l *layout) object { return l.image(object{}, layer) }
	forPlatform := func(d object, arch string) object {
		d["platform"] = object{"os": "linux", "architecture": arch}
		return d
	}
	changed := func(change func(l *layout, m object)) func(*layout) []object {
		return func(l *layout) []object {
			m := object{
				"schemaVersion": 2, "config": l.json(typeConfig, configOf(object{}, digestOf(layer))), "layers": []object{l.blob(typeLayer, layer)},
			}
			change(l, m)
			return []object{l.json(oci.TypeManifest, m)}
		}
	}
	config := func(c object) func(*layout) []object {
		return changed(func(l *layout, m object) { m["config"] = l.json(typeConfig, c) })
	}
	for row, c := range map[string]struct {
		make func(l *layout) []object
		want bundle.Code
	}{
		"J1 no platform of ours": {func(l *layout) []object {
			return []object{forPlatform(good(l), "s390x"), forPlatform(good(l), "arm64")}
		}, bundle.ErrOCI},
		"J1 index in index": {func(l *layout) []object {
			d := good(l)
			for range 100 {
				d = l.json(oci.TypeIndex, object{"schemaVersion": 2, "manifests": []object{d}})
			}
			return []object{d}
		}, bundle.ErrOCI},
		"J1 config as manifest": {func(l *layout) []object {
			d := l.json(typeConfig, configOf(object{}, digestOf(layer)))
			d["mediaType"] = oci.TypeManifest
			return []object{d}
		}, bundle.ErrOCI},
		"J1 manifest as index": {func(l *layout) []object {
			d := good(l)
			d["mediaType"] = oci.TypeIndex
			return []object{d}
		}, bundle.ErrOCI},
		"J1 both at once":          {changed(func(l *layout, m object) { m["manifests"] = []object{} }), bundle.ErrOCI},
		"J1 calls itself an index": {changed(func(l *layout, m object) { m["mediaType"] = oci.TypeIndex }), bundle.ErrOCI},
		"J1 schema 1":              {changed(func(l *layout, m object) { m["schemaVersion"] = 1 }), bundle.ErrOCI},
		"J1 10 000 descriptors": {func(l *layout) []object {
			d, many := good(l), []object{}
			for range 10_000 {
				many = append(many, d)
			}
			return many
		}, bundle.ErrOCI},
		"J1 129 layers": {changed(func(l *layout, m object) {
			one, many := l.blob(typeLayer, layer), []object{}
			for range 129 {
				many = append(many, one)
			}
			m["layers"] = many
		}), bundle.ErrOCI},
		"J1 foreign layer": {changed(func(l *layout, m object) {
			d := l.blob(typeLayer, layer)
			d["urls"] = []string{"https://elsewhere.example/layer"}
			m["layers"] = []object{d}
		}), bundle.ErrOCI},
		"J1 layer of another kind": {changed(func(l *layout, m object) {
			m["layers"] = []object{l.blob("application/vnd.example+encrypted", layer)}
		}), bundle.ErrOCI},
		"J1 an artifact": {changed(func(l *layout, m object) { m["config"] = l.blob("application/vnd.oci.empty.v1+json", []byte("{}")) }), bundle.ErrOCI},
		"J1 manifest of 1 MiB and more": {changed(func(l *layout, m object) {
			m["annotations"] = object{"a": strings.Repeat("x", 1<<20)}
		}), bundle.ErrOCI},
		"J3 size lie of a manifest": {func(l *layout) []object {
			d := good(l)
			d["size"] = 7
			return []object{d}
		}, bundle.ErrDigest},
		"J3 size of nothing":       {changed(func(l *layout, m object) { m["layers"].([]object)[0]["size"] = 0 }), bundle.ErrOCI},
		"J3 size below zero":       {changed(func(l *layout, m object) { m["layers"].([]object)[0]["size"] = -1 }), bundle.ErrOCI},
		"J3 size beyond the limit": {changed(func(l *layout, m object) { m["layers"].([]object)[0]["size"] = int64(1) << 60 }), bundle.ErrOCI},
		"J3 md5": {changed(func(l *layout, m object) {
			m["layers"].([]object)[0]["digest"] = "md5:d41d8cd98f00b204e9800998ecf8427e"
		}), bundle.ErrOCI},
		"J3 63 digits":                  {changed(func(l *layout, m object) { m["layers"].([]object)[0]["digest"] = "sha256:" + strings.Repeat("a", 63) }), bundle.ErrOCI},
		"J3 a path for a digest":        {changed(func(l *layout, m object) { m["layers"].([]object)[0]["digest"] = "sha256:../../../etc/passwd" }), bundle.ErrOCI},
		"J3 manifest that is missing":   {changed(func(l *layout, m object) { m["config"].(object)["digest"] = "sha256:" + strings.Repeat("a", 64) }), bundle.ErrOCI},
		"config of another machine":     {config(object{"os": "linux", "architecture": "s390x", "rootfs": object{"type": "layers", "diff_ids": []string{digestOf(layer).String()}}}), bundle.ErrArch},
		"config with too many layers":   {config(configOf(object{}, digestOf(layer), digestOf(layer))), bundle.ErrOCI},
		"config with a root of no kind": {config(object{"os": "linux", "architecture": "amd64", "rootfs": object{"type": "zfs"}}), bundle.ErrOCI},
		"config with a NUL":             {config(configOf(object{"Entrypoint": []string{"a\x00b"}}, digestOf(layer))), bundle.ErrOCI},
		"config with an odd variable":   {config(configOf(object{"Env": []string{"=x"}}, digestOf(layer))), bundle.ErrOCI},
		"config with the root to keep":  {config(configOf(object{"Volumes": object{"/": object{}}}, digestOf(layer))), bundle.ErrOCI},
	} {
		t.Run(row, func(t *testing.T) {
			t.Parallel()
			l := newLayout(t)
			l.index(c.make(l)...)
			if _, _, _, err := merge(t, l.dir); bundle.CodeOf(err) != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestAnArchiveIsNotLeft(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "index.json")
	if err := os.WriteFile(outside, []byte(`{"schemaVersion":2,"manifests":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "index.json")); err != nil {
		t.Fatal(err)
	}
	a, err := oci.OpenArchive(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := a.Image("", here, limit); err == nil || bundle.CodeOf(err) != "" || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want a refusal of the link", err)
	}
}

func TestTheConfigSaysHowToRun(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	l.index(l.image(object{
		"Entrypoint": []string{"/bin/a", "-x"}, "Cmd": []string{"one"}, "Env": []string{"A=1"}, "WorkingDir": "srv/./app", "User": "app:www",
		"StopSignal": "SIGQUIT", "ExposedPorts": object{"80/tcp": object{}}, "Volumes": object{"/var/data/": object{}}, "Labels": object{"k": "v"},
		"Healthcheck": object{"Test": []string{"CMD", "/bin/check"}, "Interval": 5_000_000_000, "StartInterval": 1_000_000_000, "Retries": 3},
		"Shell":       []string{"/bin/bash", "-c"},
	}, layerOf(t, dirOf("srv"))))
	img, _, _, err := merge(t, l.dir)
	if err != nil {
		t.Fatal(err)
	}
	got := img.Config
	got.DiffIDs = nil
	want := oci.Config{
		Platform: oci.Platform{OS: "linux", Arch: "amd64"}, Entrypoint: []string{"/bin/a", "-x"}, Cmd: []string{"one"}, Env: []string{"A=1"},
		Cwd: "/srv/app", User: "app:www", Stop: "SIGQUIT", Ports: []string{"80/tcp"}, Volumes: []string{"/var/data"}, Labels: map[string]string{"k": "v"},
		Health: &oci.Health{
			Test: []string{"CMD", "/bin/check"}, Shell: []string{"/bin/bash", "-c"}, Interval: 5 * time.Second, StartInterval: time.Second, Retries: 3,
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestAnImagesCheckIsReadAsDockerReadsIt(t *testing.T) {
	t.Parallel()
	for claim, c := range map[string]struct {
		health oci.Health
		want   []string
	}{
		"a program":             {oci.Health{Test: []string{"CMD", "/bin/c", "-x"}}, []string{"/bin/c", "-x"}},
		"a command":             {oci.Health{Test: []string{"CMD-SHELL", "a || b"}}, []string{"/bin/sh", "-c", "a || b"}},
		"the image's shell":     {oci.Health{Test: []string{"CMD-SHELL", "a"}, Shell: []string{"/bin/bash", "-ec"}}, []string{"/bin/bash", "-ec", "a"}},
		"none":                  {oci.Health{Test: []string{"NONE"}}, nil},
		"a kind nobody knows":   {oci.Health{Test: []string{"/bin/c", "x"}}, nil},
		"a kind without a word": {oci.Health{Test: []string{"CMD"}}, nil},
		"nothing":               {oci.Health{}, nil},
	} {
		if got := c.health.Args(); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", claim, got, c.want)
		}
	}
}

func TestTheMachineTakesTheBestImage(t *testing.T) {
	t.Parallel()
	for claim, c := range map[string]struct {
		machine oci.Machine
		there   []string
		want    string // "" = refused
	}{
		"its own":                         {oci.Machine{Arch: []string{"arm64"}}, []string{"linux/amd64", "linux/arm64/v8"}, "linux/arm64/v8"},
		"ARMv7 takes v7 before v6":        {oci.Machine{Arch: []string{"arm"}, Variant: 7}, []string{"linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm/v8"}, "linux/arm/v7"},
		"ARMv7 falls back to v6":          {oci.Machine{Arch: []string{"arm"}, Variant: 7}, []string{"linux/arm64", "linux/arm/v5", "linux/arm/v6"}, "linux/arm/v6"},
		"ARMv6 never takes v7":            {oci.Machine{Arch: []string{"arm"}, Variant: 6}, []string{"linux/arm/v7", "linux/arm"}, ""},
		"64-bit with 32-bit support":      {oci.Machine{Arch: []string{"arm64", "arm"}, Variant: 7}, []string{"linux/arm/v7", "linux/arm/v8"}, "linux/arm/v8"},
		"64-bit before 32-bit":            {oci.Machine{Arch: []string{"arm64", "arm"}, Variant: 7}, []string{"linux/arm/v8", "linux/arm64"}, "linux/arm64"},
		"no fallback for 64-bit":          {oci.Machine{Arch: []string{"arm64"}}, []string{"linux/arm64/v9", "linux/arm/v7"}, ""},
		"no level of amd64 above one":     {oci.Machine{Arch: []string{"amd64"}}, []string{"linux/amd64/v3", "linux/amd64"}, "linux/amd64"},
		"no other system":                 {oci.Machine{Arch: []string{"amd64"}}, []string{"windows/amd64"}, ""},
		"an attestation is not an image":  {oci.Machine{Arch: []string{"amd64"}}, []string{"unknown/unknown", "linux/amd64"}, "linux/amd64"},
		"one without a platform is taken": {oci.Machine{Arch: []string{"amd64"}}, []string{""}, ""},
	} {
		var list []object
		for i, p := range c.there {
			d := object{"mediaType": oci.TypeManifest, "digest": fmt.Sprintf("sha256:%064d", i+1), "size": 1}
			if parts := strings.Split(p, "/"); p != "" {
				platform := object{"os": parts[0], "architecture": parts[1]}
				if len(parts) > 2 {
					platform["variant"] = parts[2]
				}
				d["platform"] = platform
			}
			list = append(list, d)
		}
		got, err := oci.ParseIndex(jsonOf(t, object{"schemaVersion": 2, "manifests": list}), oci.TypeIndex, c.machine)
		switch {
		case c.there[0] == "":
			if err != nil || got.Digest.IsZero() {
				t.Errorf("%s: got %v", claim, err)
			}
		case c.want == "":
			if bundle.CodeOf(err) != bundle.ErrOCI {
				t.Errorf("%s: got %v, %v, want a refusal", claim, got.Platform, err)
			}
		case err != nil || got.Platform.String() != c.want:
			t.Errorf("%s: got %v, %v, want %s", claim, got.Platform, err, c.want)
		}
	}
}

func TestReferencesAreReadAsDockerReadsThem(t *testing.T) {
	t.Parallel()
	sum := "sha256:" + strings.Repeat("ab", 32)
	for text, want := range map[string]string{
		"alpine":                               "docker.io/library/alpine:latest",
		"team/app:1":                           "docker.io/team/app:1",
		"index.docker.io/alpine":               "docker.io/library/alpine:latest",
		"mcr.microsoft.com/azureiotedge/hub:1": "mcr.microsoft.com/azureiotedge/hub:1",
		"localhost/a":                          "localhost/a:latest",
		"host:5000/a/b_c/d-e:v1.2":             "host:5000/a/b_c/d-e:v1.2",
		"[::1]:5000/a":                         "[::1]:5000/a:latest",
		"host.example/a@" + sum:                "host.example/a@" + sum,
		"host.example/a:t@" + sum:              "host.example/a:t@" + sum,
		"":                                     "",
		"UPPER":                                "",
		"host.example/../a":                    "",
		"host.example/a:":                      "",
		"host.example/a@md5:00":                "",
		"host.example:port/a":                  "",
		"a b":                                  "",
		"user:pw@host/a":                       "",
		"host.example/a?x=1":                   "",
	} {
		r, err := oci.ParseReference(text)
		switch {
		case want == "" && bundle.CodeOf(err) != bundle.ErrReference:
			t.Errorf("%q: got %v, %v, want a refusal", text, r, err)
		case want != "" && (err != nil || r.String() != want):
			t.Errorf("%q: got %v, %v, want %s", text, r, err, want)
		}
		if again, aerr := oci.ParseReference(r.String()); err == nil && (aerr != nil || again != r) {
			t.Errorf("%q: printed as %q it reads as %v, %v", text, r, again, aerr)
		}
	}
}

func FuzzDocuments(f *testing.F) {
	l := newLayout(f)
	l.index(l.image(object{"Env": []string{"A=1"}}, layerOf(f, fileOf("a", "1"))))
	index, err := os.ReadFile(filepath.Join(l.dir, "index.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(index)
	f.Add(jsonOf(f, configOf(object{"User": "a"}, digestOf(nil))))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, mediaType := range []string{oci.TypeIndex, oci.TypeDockerList} {
			if d, err := oci.ParseIndex(text, mediaType, here); err == nil && d.Digest.IsZero() {
				t.Error("got no digest")
			}
		}
		if m, err := oci.ParseManifest(text, oci.TypeManifest, limit); err == nil && (m.Size() <= 0 || len(m.Layers) > 128) {
			t.Errorf("got %d bytes in %d layers", m.Size(), len(m.Layers))
		}
		if c, err := oci.ParseConfig(text); err == nil && c.Cwd != "" && c.Cwd[0] != '/' {
			t.Errorf("got the directory %q", c.Cwd)
		}
	})
}

func FuzzMerge(f *testing.F) {
	f.Add(layerOf(f, dirOf("a"), fileOf("a/b", "1"), linkOf("c", "a/b"), symlinkOf("s", "a")), layerOf(f, fileOf("a/.wh.b", ""), fileOf("x", "2")))
	f.Add(layerOf(f, fileOf(".wh..wh..opq", "")), pax("SCHILY.xattr.user.a", "b"))
	f.Fuzz(func(t *testing.T, below, above []byte) {
		var layers []oci.Layer
		for _, b := range [][]byte{below, above} {
			layers = append(layers, oci.Layer{DiffID: digestOf(b), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }})
		}
		out, err := os.Create(filepath.Join(t.TempDir(), "image"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		merged, err := oci.Merge(t.Context(), layers, out, oci.Limits{Bytes: 1 << 20, Entries: 1000}, nil)
		if err != nil {
			if bundle.CodeOf(err) == bundle.ErrImage || bundle.CodeOf(err) == "" {
				t.Fatal(err)
			}
			return
		}
		if entries, err := bundle.CheckImage(out, merged.Size); err != nil || entries != merged.Entries {
			t.Fatalf("got %d entries, %v, want %d", entries, err, merged.Entries)
		}
	})
}
