package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
)

// rootTar is a small root as a tar, with what a directory of the builder's cannot hold: owners and times of its own.
func rootTar(t *testing.T) []byte {
	t.Helper()
	run := ocitest.File("bin/run", "#!/bin/sh\necho hi\n")
	run.Mode, run.Uid, run.Gid = 0o4755, 1000, 1001
	return ocitest.Tar(t, ocitest.Dir("bin"), run, ocitest.Symlink("bin/sh", "busybox"), ocitest.File("etc/conf", "a = 1\n"))
}

// seen is what inspect says of a bundle.
type seen struct {
	Manifest struct {
		Platform bundle.Platform `json:"platform"`
		Runtime  bundle.Runtime  `json:"runtime"`
	} `json:"manifest"`
}

func described(t *testing.T, spb string) seen {
	t.Helper()
	var s seen
	if err := json.Unmarshal([]byte(ok(t, "inspect", "--json", spb)), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// imageIn is the tree of the image in a bundle.
func imageIn(t *testing.T, spb string) fs.FS {
	t.Helper()
	file, err := os.ReadFile(spb)
	if err != nil {
		t.Fatal(err)
	}
	var img bytes.Buffer
	if _, err := bundle.ExtractUnverified(&img, bytes.NewReader(file), nil); err != nil {
		t.Fatal(err)
	}
	tree, _, err := bundle.OpenImage(bytes.NewReader(img.Bytes()), int64(img.Len()))
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// same builds twice, from two places, and wants the same bytes.
func same(t *testing.T, make func(dir string) string, args ...string) (spb string) {
	t.Helper()
	var first []byte
	for range 2 {
		dir := t.TempDir()
		spb = filepath.Join(dir, "out.spb")
		ok(t, append([]string{"build", "-o", spb, "--name", "demo", "--version", "1", "--sequence", "1", make(dir)}, args...)...)
		b, err := os.ReadFile(spb)
		if err != nil {
			t.Fatal(err)
		}
		if first != nil && !bytes.Equal(first, b) {
			t.Error("two builds of the same give different bytes")
		}
		first = b
		if left, err := filepath.Glob(filepath.Join(dir, ".sandpiper*")); err != nil || len(left) > 0 {
			t.Errorf("left behind: %q, %v", left, err)
		}
	}
	return spb
}

func TestATarBecomesABundleWithWhatStandsInIt(t *testing.T) {
	t.Parallel()
	for form, content := range map[string][]byte{"plain": rootTar(t), "gzip": ocitest.Gzip(t, rootTar(t)), "zstd": ocitest.Zstd(t, rootTar(t))} {
		spb := same(t, func(dir string) string {
			name := filepath.Join(dir, "root.tar")
			if err := os.WriteFile(name, content, 0o600); err != nil {
				t.Fatal(err)
			}
			return name
		}, "--arg", "/bin/run")
		tree := imageIn(t, spb)
		info, err := fs.Stat(tree, "bin/run")
		if err != nil || info.Mode().Perm() != 0o755 || !info.ModTime().Equal(ocitest.Epoch()) {
			t.Errorf("%s: bin/run is %v, %v", form, info, err)
		}
		if text, err := fs.ReadFile(tree, "etc/conf"); err != nil || string(text) != "a = 1\n" {
			t.Errorf("%s: etc/conf is %q, %v", form, text, err)
		}
	}
}

func TestAnImageBecomesABundleThatStartsAsItsConfigSays(t *testing.T) {
	t.Parallel()
	config := ocitest.Object{
		"Entrypoint": []string{"/bin/run"}, "Cmd": []string{"-v"}, "Env": []string{"A=1", "PATH=/bin"}, "WorkingDir": "/etc", "User": "1000:1001", "StopSignal": "SIGINT",
		"Volumes": ocitest.Object{"/data": ocitest.Object{}}, "Healthcheck": ocitest.Object{"Test": []string{"CMD", "/bin/check"}},
	}
	layout := func(dir string) string {
		c := ocitest.NewContent(t)
		c.Layout(filepath.Join(dir, "layout"), "v1", c.Image("arm64", config, rootTar(t), ocitest.Tar(t, ocitest.File("etc/.wh.conf", ""), ocitest.File("etc/new", "b"))))
		return filepath.Join(dir, "layout")
	}
	packed := func(dir string) string {
		name := filepath.Join(dir, "layout.tar")
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		if err := w.AddFS(os.DirFS(layout(dir))); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, buf.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for form, make := range map[string]func(string) string{"layout": layout, "layout in a tar": packed} {
		spb := same(t, make)
		got := described(t, spb).Manifest
		r := got.Runtime
		if got.Platform.Arch != "arm64" || !slices.Equal(r.Args, []string{"/bin/run", "-v"}) || r.Env["A"] != "1" || r.Cwd != "/etc" || r.User != "1000:1001" || r.Stop != "SIGINT" {
			t.Errorf("%s: got %+v", form, got)
		}
		tree := imageIn(t, spb)
		if _, err := fs.Stat(tree, "etc/conf"); err == nil {
			t.Errorf("%s: what the upper layer hides is there", form)
		}
		if text, err := fs.ReadFile(tree, "etc/new"); err != nil || string(text) != "b" {
			t.Errorf("%s: etc/new is %q, %v", form, text, err)
		}
		r = described(t, same(t, make, "--arg", "/bin/run", "--env", "A=2", "--user", "app", "--image", "v1")).Manifest.Runtime
		if !slices.Equal(r.Args, []string{"/bin/run"}) || r.Env["A"] != "2" || r.Env["PATH"] != "/bin" || r.User != "app" || r.Cwd != "/etc" {
			t.Errorf("%s: under flags: got %+v", form, r)
		}
	}
	_, _, notes := cli(t, "build", "-o", filepath.Join(t.TempDir(), "x.spb"), "--name", "demo", "--version", "1", "--sequence", "1", layout(t.TempDir()))
	for _, want := range []string{"/data", "HEALTHCHECK", "setuid"} {
		if !strings.Contains(notes, want) {
			t.Errorf("build says %q, want something about %s", notes, want)
		}
	}
}

func TestOfSeveralMachinesOneIsAskedFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := ocitest.NewContent(t)
	c.Layout(filepath.Join(dir, "layout"), "v1", c.Index(c.Image("arm64", ocitest.Object{"Cmd": []string{"/bin/run"}}, rootTar(t)), c.Image("amd64", ocitest.Object{"Cmd": []string{"/bin/run"}}, rootTar(t))))
	args := []string{"build", "-o", filepath.Join(dir, "x.spb"), "--name", "demo", "--version", "1", "--sequence", "1", filepath.Join(dir, "layout")}
	if code, _, errs := cli(t, args...); code != 1 || !strings.Contains(errs, "say --arch") || strings.Count(errs, "\n") != 1 {
		t.Errorf("exit code %d, %q, want one line that asks for --arch", code, errs)
	}
	ok(t, append(args, "--arch", "amd64")...)
	if got := described(t, filepath.Join(dir, "x.spb")).Manifest.Platform.Arch; got != "amd64" {
		t.Errorf("got %s, want amd64", got)
	}
}

func TestWhatCannotBecomeABundleIsSaid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	hostile := ocitest.NewContent(t)
	hostile.Layout(filepath.Join(dir, "out"), "v1", hostile.Image("arm64", ocitest.Object{"Cmd": []string{"/x"}}, ocitest.Tar(t, ocitest.File("../x", "1"))))
	bare := ocitest.NewContent(t)
	bare.Layout(filepath.Join(dir, "bare"), "v1", bare.Image("arm64", ocitest.Object{}, rootTar(t)))
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no tar":                      {[]string{write("text", []byte(strings.Repeat("text\n", 300)))}, 1, "cannot be read"},
		"an empty file":               {[]string{write("empty", nil)}, 1, "empty"},
		"a tar that leads out":        {[]string{filepath.Join(dir, "out")}, 1, "leads out"},
		"a tar with a device":         {[]string{write("dev.tar", ocitest.Tar(t, ocitest.Node(tar.TypeChar, "dev/null")))}, 1, "device"},
		"an image that is compressed": {[]string{write("lay.tgz", ocitest.Gzip(t, ocitest.Tar(t, ocitest.File("oci-layout", "{}"), ocitest.File("index.json", "{}"))))}, 1, "decompress"},
		"a program that is missing":   {[]string{write("root.tar", rootTar(t)), "--arg", "/bin/none"}, 1, "/bin/none"},
		"an image without a start":    {[]string{filepath.Join(dir, "bare")}, 2, "--arg"},
		"no such image":               {[]string{filepath.Join(dir, "bare"), "--image", "v2"}, 1, "v2"},
		"--image of a tar":            {[]string{write("r.tar", rootTar(t)), "--image", "v1"}, 2, "--image"},
		"--go with a tar":             {[]string{write("g.tar", rootTar(t)), "--go", "."}, 2, "--go"},
		"nothing there":               {[]string{filepath.Join(dir, "nothing")}, 1, "nothing"},
	} {
		out := filepath.Join(dir, strings.ReplaceAll(name, " ", "")+".spb")
		code, _, errs := cli(t, append([]string{"build", "-o", out, "--name", "demo", "--version", "1", "--sequence", "1"}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.says) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: exit code %d, %q, want %d and one line with %q", name, code, errs, c.code, c.says)
		}
		if _, err := os.Lstat(out); err == nil {
			t.Errorf("%s: a bundle was written", name)
		}
	}
}
