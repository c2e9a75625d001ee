package image

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

// open returns a store of the test's own that trusts the first test key.
func open(t testing.TB, change func(*Config)) *Store {
	t.Helper()
	dir := t.TempDir()
	return reopen(t, Config{
		Dir: filepath.Join(dir, "state"), MountDir: filepath.Join(dir, "run"),
		Trusted: []bundle.PublicKey{bundletest.Key(t, 1).Public()},
		Reserve: 1,
		Retry:   func(int) time.Duration { return time.Millisecond },
	}, change)
}

func reopen(t testing.TB, cfg Config, change func(*Config)) *Store {
	t.Helper()
	if change != nil {
		change(&cfg)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// write puts a bundle into a file and returns its URL.
func write(t testing.TB, spb []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.spb")
	if err := os.WriteFile(path, spb, 0o600); err != nil {
		t.Fatal(err)
	}
	return "file://" + path
}

func install(t testing.TB, s *Store, spb []byte) Image {
	t.Helper()
	img, err := s.Fetch(t.Context(), write(t, spb), "", nil)
	if err != nil {
		t.Fatalf("fetch: %v", err)
	}
	return img
}

// refused wants err to be one line with the code, and the store as if nothing had happened.
func refused(t testing.TB, s *Store, err error, want bundle.Code) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %s", err, want)
		return
	}
	if line := err.Error(); strings.Contains(line, "\n") {
		t.Errorf("error %q has more than one line", line)
	}
	empty(t, s)
}

// empty wants nothing installed, nothing in work, and no floor moved.
func empty(t testing.TB, s *Store) {
	t.Helper()
	if list := s.List(); len(list) != 0 {
		t.Errorf("installed: %v, want nothing", list)
	}
	for _, dir := range []string{s.blobs(), s.stage()} {
		for _, name := range names(t, dir) {
			t.Errorf("%s is left in %s", name, filepath.Base(dir))
		}
	}
	if len(s.floors.Modules) != 0 {
		t.Errorf("floors: %v, want none", s.floors.Modules)
	}
}

func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	list := make([]string, len(entries))
	for i, e := range entries {
		list[i] = e.Name()
	}
	return list
}

// big is a bundle of several dozen chunks.
func big(t testing.TB, change func(*bundle.Manifest)) []byte {
	t.Helper()
	return bundletest.Build(t, bundletest.Options{
		Files: map[string]string{
			"bin/run": "#!/bin/sh\necho hello\n",
			"data":    string(noise(1500<<10, 5)),
			"text":    strings.Repeat("line after line\n", 40000),
		},
		Manifest: change,
	})
}

func testLog(t testing.TB) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func clone(b []byte) []byte { return bytes.Clone(b) }

// rot flips a bit of an installed image.
func rot(t testing.TB, s *Store, img Image, at int64) {
	t.Helper()
	r, err := s.record(img.Digest)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(s.imagePath(r.manifest.Image.Digest), os.O_RDWR, 0)
	if errors.Is(err, os.ErrPermission) { // not root: the owner may still change the mode
		if err = os.Chmod(s.imagePath(r.manifest.Image.Digest), 0o600); err == nil {
			f, err = os.OpenFile(s.imagePath(r.manifest.Image.Digest), os.O_RDWR, 0)
			defer func() { _ = os.Chmod(s.imagePath(r.manifest.Image.Digest), 0o400) }()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 8
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
