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
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
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
	layer := ocitest.Tar(t, ocitest.File("a", "content"))
	run := ocitest.Object{"Entrypoint": []string{"/a"}}
	l := ocitest.NewLayout(t)
	m := l.Image(run, layer)
	m["annotations"] = ocitest.Object{"org.opencontainers.image.ref.name": "v1", "io.containerd.image.name": "registry.example/team/a:v1"}
	l.Index(m)

	saved := t.TempDir()
	config := ocitest.JSON(t, ocitest.Config(run, ocitest.Sum(layer)))
	for name, content := range map[string][]byte{
		"c.json": config, "l1/layer.tar": layer,
		"manifest.json": ocitest.JSON(t, []ocitest.Object{{"Config": "c.json", "RepoTags": []string{"registry.example/team/a:v1"}, "Layers": []string{"l1/layer.tar"}}}),
	} {
		_ = os.MkdirAll(filepath.Dir(filepath.Join(saved, name)), 0o755)
		if err := os.WriteFile(filepath.Join(saved, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for form, where := range map[string]string{"layout": l.Path, "layout in a tar": tarOf(t, l.Path), "docker save": tarOf(t, saved), "docker save, unpacked": saved} {
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
	for _, h := range ocitest.Documents(t) {
		t.Run(h.Row, func(t *testing.T) {
			t.Parallel()
			if _, _, _, err := merge(t, h.Path); bundle.CodeOf(err) != h.Want {
				t.Errorf("got %v, want %s", err, h.Want)
			}
		})
	}
}

func TestArchivesThatCannotBeReadSayWhy(t *testing.T) {
	t.Parallel()
	l := ocitest.NewLayout(t)
	l.Index(l.Image(ocitest.Object{}, ocitest.Tar(t, ocitest.File("a", strings.Repeat("x", 10_000)))))
	whole, err := os.ReadFile(tarOf(t, l.Path))
	if err != nil {
		t.Fatal(err)
	}
	for says, content := range map[string][]byte{
		"decompress it": ocitest.Gzip(t, whole), "decompress": ocitest.Zstd(t, whole), "copy it": whole[:len(whole)/3], "copy it again": []byte(strings.Repeat("text", 500)), "empty": nil,
	} {
		name := filepath.Join(t.TempDir(), "archive")
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := oci.OpenArchive(name)
		if err == nil {
			_, err = a.Image("", here, limit)
			_ = a.Close()
		}
		if bundle.CodeOf(err) != bundle.ErrOCI || !strings.Contains(err.Error(), says) && says != "empty" {
			t.Errorf("got %v, want %s and something with %q", err, bundle.ErrOCI, says)
		}
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
	l := ocitest.NewLayout(t)
	l.Index(l.Image(ocitest.Object{
		"Entrypoint": []string{"/bin/a", "-x"}, "Cmd": []string{"one"}, "Env": []string{"A=1"}, "WorkingDir": "srv/./app", "User": "app:www",
		"StopSignal": "SIGQUIT", "ExposedPorts": ocitest.Object{"80/tcp": ocitest.Object{}}, "Volumes": ocitest.Object{"/var/data/": ocitest.Object{}}, "Labels": ocitest.Object{"k": "v"},
		"Healthcheck": ocitest.Object{"Test": []string{"CMD", "/bin/check"}, "Interval": int64(5_000_000_000), "StartInterval": 1_000_000_000, "Retries": 3},
		"Shell":       []string{"/bin/bash", "-c"},
	}, ocitest.Tar(t, ocitest.Dir("srv"))))
	img, _, _, err := merge(t, l.Path)
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
		var list []ocitest.Object
		for i, p := range c.there {
			d := ocitest.Object{"mediaType": oci.TypeManifest, "digest": fmt.Sprintf("sha256:%064d", i+1), "size": 1}
			if parts := strings.Split(p, "/"); p != "" {
				platform := ocitest.Object{"os": parts[0], "architecture": parts[1]}
				if len(parts) > 2 {
					platform["variant"] = parts[2]
				}
				d["platform"] = platform
			}
			list = append(list, d)
		}
		got, err := oci.ParseIndex(ocitest.JSON(t, ocitest.Object{"schemaVersion": 2, "manifests": list}), oci.TypeIndex, c.machine)
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
	l := ocitest.NewLayout(f)
	l.Index(l.Image(ocitest.Object{"Env": []string{"A=1"}}, ocitest.Tar(f, ocitest.File("a", "1"))))
	index, err := os.ReadFile(filepath.Join(l.Path, "index.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(index)
	f.Add(ocitest.JSON(f, ocitest.Config(ocitest.Object{"User": "a"}, ocitest.Sum(nil))))
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
	f.Add(ocitest.Tar(f, ocitest.Dir("a"), ocitest.File("a/b", "1"), ocitest.Link("c", "a/b"), ocitest.Symlink("s", "a")), ocitest.Tar(f, ocitest.File("a/.wh.b", ""), ocitest.File("x", "2")))
	f.Add(ocitest.Tar(f, ocitest.File(".wh..wh..opq", "")), ocitest.PAX("SCHILY.xattr.user.a", "b"))
	f.Fuzz(func(t *testing.T, below, above []byte) {
		var layers []oci.Layer
		for _, b := range [][]byte{below, above} {
			layers = append(layers, oci.Layer{DiffID: ocitest.Sum(b), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }})
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
