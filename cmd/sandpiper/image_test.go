package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
)

// operate runs an image verb with --json and returns the images it prints.
func (d *device) operate(code int, args ...string) []control.Image {
	d.t.Helper()
	out, got := d.sandpiper(append([]string{"image"}, append(args, "--json")...)...)
	if got != code {
		d.t.Fatalf("image %v: code %d, want %d: %s", args, got, code, out)
	}
	var list []control.Image
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&list); err != nil {
		d.t.Fatalf("image %v: %v in %q", args, err, out)
	}
	return list
}

func TestImagesAreVerifiedPinnedAndCollectedByTheOperator(t *testing.T) {
	t.Parallel()
	d := startDevice(t)
	var loaded []control.Image
	for _, name := range []string{"one", "two", "three"} { // each takes the name of the one before
		c := ocitest.NewContent(t)
		c.Layout(d.path(name), "v1", c.Image(runtime.GOARCH, ocitest.Object{}, ocitest.Layer(t, ocitest.Entry{Name: name, Content: []byte(name)})))
		img, err := d.client().Load(t.Context(), d.path(name), "", "registry.example/team/app:1")
		if err != nil {
			t.Fatal(err)
		}
		loaded = append(loaded, img)
	}
	spb := d.path("x.spb")
	if err := os.WriteFile(spb, bundletest.Build(t, bundletest.Options{}), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := d.client().Pull(t.Context(), "file://"+spb)
	if err != nil {
		t.Fatal(err)
	}
	if out, code := d.sandpiper("image", "pin", "demo"); code != 0 || !strings.Contains(out, b.Digest) {
		t.Errorf("pin by name: %d %s", code, out)
	}
	if out, code := d.sandpiper("image", "pin", loaded[1].Digest[:20]); code != 0 {
		t.Errorf("pin by the first digits: %d %s", code, out)
	}
	if out, code := d.sandpiper("image", "pin", "nobody"); code != 1 || !strings.Contains(out, "image list") {
		t.Errorf("pin of what is not here: %d %s", code, out)
	}
	for _, args := range [][]string{{"gc", "--dry-run"}, {"gc"}} {
		if gone := d.operate(0, args...); len(gone) != 1 || gone[0].Digest != loaded[0].Digest {
			t.Errorf("%v: got %v, want the one without name and pin", args, gone)
		}
	}
	if left := d.operate(0, "verify"); len(left) != 3 {
		t.Errorf("verify: %d images, want 3", len(left))
	}
	rotten, err := filepath.Glob(d.path("state/images/blobs/*.img"))
	if err != nil || len(rotten) != 3 {
		t.Fatalf("image files: %v, %v, want 3", rotten, err)
	}
	for _, name := range rotten {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("rot"), 4096); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	out, code := d.sandpiper("image", "verify", "--repair")
	if code != 1 || !strings.Contains(out, "2 of 3 images are damaged") || !strings.Contains(out, "repaired: chunks that were fetched again: 1") {
		t.Errorf("verify --repair of a bundle and two images whose layers are gone: %d %s", code, out)
	}
	if out, code := d.sandpiper("image", "verify", "demo"); code != 0 || !strings.Contains(out, "good") {
		t.Errorf("verify of what was repaired: %d %s", code, out)
	}
	if out, code := d.sandpiper("image", "unpin", "demo"); code != 0 {
		t.Errorf("unpin: %d %s", code, out)
	}
	if gone := d.operate(0, "gc"); len(gone) != 1 || gone[0].Digest != b.Digest {
		t.Errorf("gc after unpin: %v, want the bundle", gone)
	}
	if out, _ := d.sandpiper("image", "list"); !strings.Contains(out, "pinned") {
		t.Errorf("list: got %q, want one that is pinned", out)
	}
}
