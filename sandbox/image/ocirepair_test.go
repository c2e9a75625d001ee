package image

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
)

// fileOf is an installed image's file.
func fileOf(t *testing.T, s *Store, img Image) string {
	t.Helper()
	r, err := s.record(img.Digest)
	if err != nil {
		t.Fatal(err)
	}
	return s.imagePath(r.manifest.Image.Digest)
}

func TestOCIImageThatRotsIsPulledAndMergedAgain(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, s *Store, img Image){
		"two flipped bits": func(t *testing.T, s *Store, img Image) {
			t.Helper()
			rot(t, s, img, 5000)
			rot(t, s, img, img.Size-3)
		},
		"shorter": func(t *testing.T, s *Store, img Image) {
			t.Helper()
			if err := errors.Join(os.Chmod(fileOf(t, s, img), 0o600), os.Truncate(fileOf(t, s, img), 8192)); err != nil {
				t.Fatal(err)
			}
		},
		"gone": func(t *testing.T, s *Store, img Image) {
			t.Helper()
			if err := os.Remove(fileOf(t, s, img)); err != nil {
				t.Fatal(err)
			}
		},
		"a link": func(t *testing.T, s *Store, img Image) {
			t.Helper()
			path := fileOf(t, s, img)
			other := filepath.Join(t.TempDir(), "other")
			if err := errors.Join(os.Rename(path, other), os.Symlink(other, path)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := registryOf(t, &ocitest.Registry{User: "me", Pass: secret})
			s := open(t, trusting(r, login(r)))
			img, err := s.Fetch(t.Context(), r.Host()+"/team/app:multi", "", nil)
			verified(t, s, img, err)
			r.Tags = nil // they are not asked for
			damage(t, s, img)
			if n, err := s.Scrub(t.Context(), 0); n != 1 || err != nil {
				t.Errorf("scrub: %d damaged, %v, want 1", n, err)
			}
			verified(t, s, img, nil)
			if n, err := s.Repair(t.Context(), img.Digest); n != 0 || err != nil {
				t.Errorf("repair of what was repaired: %d, %v", n, err)
			}
			if info, err := os.Lstat(fileOf(t, s, img)); err != nil || info.Mode() != 0o400 {
				t.Errorf("the image's file is %v, %v, want mode 0400", info.Mode(), err)
			}
		})
	}
}

func TestOCIImageIsRepairedUnderTheModuleThatRuns(t *testing.T) {
	t.Parallel()
	asRoot(t)
	noLeaks(t)
	r := registryOf(t, &ocitest.Registry{})
	s := open(t, trusting(r))
	img, err := s.Fetch(t.Context(), r.Host()+"/team/app:1", "", nil)
	verified(t, s, img, err)
	dir := mountIt(t, s, img)
	rot(t, s, img, img.Size-5000)
	rot(t, s, img, img.Size/3)
	if n, err := s.Repair(t.Context(), img.Digest); n != 2 || err != nil {
		t.Errorf("repair: %d pieces, %v, want 2", n, err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "app")); err != nil || !bytes.Equal(got, hiss(400<<10)) {
		t.Errorf("app: got %d bytes, %v", len(got), err)
	}
	if _, ok := s.Mounted(img); !ok {
		t.Error("the mount is not known any more")
	}
}

func TestOCIImageThatCannotBeRepairedStaysAndSaysWhy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		away func(r *ocitest.Registry)
		want bundle.Code
	}{
		"registry away": {func(r *ocitest.Registry) {
			r.Answer = func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }
		}, ""},
		"image gone there": {func(r *ocitest.Registry) { r.Content.Blobs = nil }, bundle.ErrTransfer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := registryOf(t, &ocitest.Registry{})
			s := open(t, trusting(r))
			img, err := s.Fetch(t.Context(), r.Host()+"/team/app:1", "", nil)
			verified(t, s, img, err)
			rot(t, s, img, 5000)
			c.away(r)
			_, err = s.Repair(t.Context(), img.Digest)
			if err == nil || bundle.CodeOf(err) != c.want || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, c.want)
			}
			if n, err := s.Scrub(t.Context(), 0); n != 1 || err != nil {
				t.Errorf("scrub: %d damaged, %v, want 1", n, err)
			}
			if _, ok := s.Lookup(img.Digest); !ok {
				t.Error("the image is not installed any more")
			}
		})
	}
}

func TestLoadedImageThatRotsIsRepairedByLoadingItAgain(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	c := ocitest.NewContent(t)
	layout := filepath.Join(t.TempDir(), "layout")
	c.Layout(layout, "v1", c.Image(ThisMachine().Arch[0], ocitest.Object{}, ocitest.Layer(t, ocitest.Entry{Name: "data", Content: hiss(200 << 10)})))
	img, err := s.Load(t.Context(), layout, "", "there.example/data:1", nil)
	verified(t, s, img, err)
	rot(t, s, img, img.Size-4000)
	if _, err := s.Repair(t.Context(), img.Digest); !errors.Is(err, bundle.ErrDigest) || !strings.Contains(err.Error(), "image load") {
		t.Errorf("got %v, want %s and what to do", err, bundle.ErrDigest)
	}
	img, err = s.Load(t.Context(), layout, "", "", nil)
	verified(t, s, img, err)
	if len(img.OCI.Names) != 1 {
		t.Errorf("its names are %q", img.OCI.Names)
	}
}
