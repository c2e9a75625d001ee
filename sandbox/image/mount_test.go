package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

// asRoot skips loudly where nothing can be mounted, and checks after the test that nothing is left mounted or bound.
func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: mounting an image needs root; run the tests as root to cover it")
	}
}

// noLeaks runs before the store is opened, so that its check comes after the store's own cleanup.
func noLeaks(t *testing.T) {
	t.Helper()
	dir := t.TempDir() // the parent of every other directory of this test
	t.Cleanup(func() {
		f, err := os.Open("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		all, err := parseMountinfo(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			if strings.HasPrefix(m.point, filepath.Dir(dir)) {
				t.Errorf("left mounted: %s", m.point)
				_ = unix.Unmount(m.point, unix.MNT_DETACH)
			}
		}
	})
}

func mountStore(t *testing.T, backings ...backing) *Store {
	t.Helper()
	asRoot(t)
	noLeaks(t)
	s := open(t, nil)
	if len(backings) > 0 {
		s.backings = backings
	}
	return s
}

func mountIt(t *testing.T, s *Store, img Image) string {
	t.Helper()
	dir, err := s.Mount(t.Context(), img)
	if err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Unmount(t.Context(), img); err != nil && t.Context().Err() == nil {
			t.Errorf("unmount: %v", err)
		}
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	})
	return dir
}

func entry(t *testing.T, dir string) mountEntry {
	t.Helper()
	list, err := mountsAt(dir)
	if err != nil || len(list) != 1 {
		t.Fatalf("mounts at %s: got %v %v, want one", dir, list, err)
	}
	return list[0]
}

func TestMountShowsTheFilesReadOnly(t *testing.T) {
	t.Parallel()
	for name, backings := range map[string][]backing{"from the file": {fileBacked}, "through a loop device": {loopBacked}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := mountStore(t, backings...)
			img := install(t, s, big(t, nil))
			dir := mountIt(t, s, img)
			if got, err := os.ReadFile(filepath.Join(dir, "data")); err != nil || !bytes.Equal(got, noise(1500<<10, 5)) {
				t.Errorf("data: got %d bytes %v", len(got), err)
			}
			info, err := os.Stat(filepath.Join(dir, "bin/run"))
			if err != nil || info.Mode() != 0o755 {
				t.Errorf("bin/run: %v %v, want mode 0755", info, err)
			}
			if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
				t.Errorf("write: got %v, want %v", err, unix.EROFS)
			}
			if m := entry(t, dir); !m.sealed() {
				t.Errorf("mounted as %+v, want erofs ro,nodev,nosuid", m)
			}
			if got, ok := s.Mounted(img); !ok || got != dir {
				t.Errorf("mounted: got %s %v, want %s", got, ok, dir)
			}
			if err := s.Unmount(t.Context(), img); err != nil {
				t.Errorf("unmount: %v", err)
			}
			if left := names(t, s.cfg.MountDir); len(left) != 0 {
				t.Errorf("left in the mount directory: %v", left)
			}
			if err := s.Unmount(t.Context(), img); err != nil {
				t.Errorf("unmount again: %v", err)
			}
		})
	}
}

func TestMountIsFoundAgainByTheNextAgent(t *testing.T) {
	t.Parallel()
	s := mountStore(t)
	img := install(t, s, big(t, nil))
	dir := mountIt(t, s, img)
	before := entry(t, dir)
	if again, err := s.Mount(t.Context(), img); err != nil || again != dir {
		t.Errorf("mount again: %s %v, want %s", again, err, dir)
	}
	cfg := s.cfg
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, cfg, nil)
	if again, err := s.Mount(t.Context(), img); err != nil || again != dir {
		t.Errorf("mount by the next agent: %s %v, want %s", again, err, dir)
	}
	if after := entry(t, dir); after.name() != before.name() {
		t.Errorf("mount %s became %s, want the same", before.name(), after.name())
	}
	if _, err := s.GC(t.Context(), nil); err != nil {
		t.Fatalf("gc: %v", err)
	}
	if _, ok := s.Lookup(img.Digest); !ok {
		t.Error("gc removed a mounted image")
	}
	if err := s.Unmount(t.Context(), img); err != nil {
		t.Errorf("unmount: %v", err)
	}
	if removed, err := s.GC(t.Context(), nil); err != nil || len(removed) != 1 {
		t.Errorf("gc after unmount: %v %v, want the image", removed, err)
	}
}

// usurpations put something else where an image is mounted: row H5.
func usurpations() map[string]func(t *testing.T, s *Store, img Image, dir string) {
	return map[string]func(t *testing.T, s *Store, img Image, dir string){
		"a tmpfs in its place": func(t *testing.T, s *Store, img Image, dir string) {
			t.Helper()
			if err := s.Unmount(t.Context(), img); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("x", dir, "tmpfs", mountFlags, ""); err != nil {
				t.Fatal(err)
			}
		},
		"a tmpfs over it": func(t *testing.T, _ *Store, _ Image, dir string) {
			t.Helper()
			if err := unix.Mount("x", dir, "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
		},
		"the note is gone": func(t *testing.T, _ *Store, _ Image, dir string) {
			t.Helper()
			if err := os.Remove(dir + markSuffix); err != nil {
				t.Fatal(err)
			}
		},
		"another image in its place": func(t *testing.T, s *Store, img Image, dir string) {
			t.Helper()
			if err := s.Unmount(t.Context(), img); err != nil {
				t.Fatal(err)
			}
			other := bundletest.Image(t, map[string]string{"evil": "x"})
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := fileBacked.mount(other, dir, bundle.ImageInfo{Format: bundle.FormatEROFS}); err != nil {
				t.Fatal(err)
			}
		},
	}
}

func TestH5MountsThatAreNotOursAreReplaced(t *testing.T) {
	t.Parallel()
	for name, plant := range usurpations() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := mountStore(t)
			img := install(t, s, big(t, nil))
			dir := mountIt(t, s, img)
			plant(t, s, img, dir)
			if _, err := s.Mount(t.Context(), img); err != nil {
				t.Fatalf("mount: %v", err)
			}
			entry(t, dir)
			if _, err := os.Stat(filepath.Join(dir, "bin/run")); err != nil {
				t.Errorf("bin/run: %v", err)
			}
		})
	}
}

func TestH1LinkInPlaceOfTheMountPointIsNotFollowed(t *testing.T) {
	t.Parallel()
	s := mountStore(t)
	img := install(t, s, big(t, nil))
	elsewhere := t.TempDir()
	if err := os.Symlink(elsewhere, s.point(img.Digest)); err != nil {
		t.Fatal(err)
	}
	if dir, err := s.Mount(t.Context(), img); err == nil {
		t.Errorf("mounted at %s through a link", dir)
	}
	if left := names(t, elsewhere); len(left) != 0 {
		t.Errorf("behind the link: %v", left)
	}
}

// tamperings change an installed image's file: rows H1 and H2.
func tamperings() map[string]func(path string) error {
	return map[string]func(path string) error{
		"one flipped bit": func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b[len(b)/2] ^= 4
			return os.WriteFile(path, b, 0o600)
		},
		"another file renamed over it": func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b[len(b)-1] ^= 4
			if err := os.WriteFile(path+".x", b, 0o600); err != nil {
				return err
			}
			return os.Rename(path+".x", path)
		},
		"longer":    func(path string) error { return os.Truncate(path, 64<<20) },
		"shorter":   func(path string) error { return os.Truncate(path, 4096) },
		"a link":    func(path string) error { return errors.Join(os.Rename(path, path+".x"), os.Symlink(path+".x", path)) },
		"two names": func(path string) error { return os.Link(path, path+".x") },
		"gone":      os.Remove,
	}
}

func TestH1H2ChangedImageIsNotMountedAndIsMendedByTheNextFetch(t *testing.T) {
	t.Parallel()
	spb := big(t, nil)
	for name, change := range tamperings() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := mountStore(t)
			img := install(t, s, spb)
			r, err := s.record(img.Digest)
			if err != nil {
				t.Fatal(err)
			}
			path := s.imagePath(r.manifest.Image.Digest)
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			if dir, err := s.Mount(t.Context(), img); err == nil {
				t.Errorf("mounted at %s", dir)
			} else {
				t.Log(err)
			}
			if err := s.Verify(t.Context(), img); err == nil {
				t.Error("verified")
			}
			img = install(t, s, spb)
			mountIt(t, s, img)
		})
	}
}

func TestMountSaysWhatTheKernelLacks(t *testing.T) {
	t.Parallel()
	fails := func(name string, err error) backing {
		return backing{name, func(*os.File, string, bundle.ImageInfo) error { return err }}
	}
	s := open(t, nil)
	img := install(t, s, big(t, nil))
	for name, tc := range map[string]struct {
		backings []backing
		says     []string
	}{
		"neither way": {[]backing{fails("file", unix.ENOTBLK), fails("loop", fmt.Errorf("loop control: %w", fs.ErrNotExist))}, []string{"6.12", "CONFIG_BLK_DEV_LOOP", "module loop", "loop control", "not unpacked"}},
		"no EROFS":    {[]backing{fails("file", unix.ENODEV)}, []string{"CONFIG_EROFS_FS", "not unpacked"}},
		"not root":    {[]backing{fails("file", unix.EPERM)}, []string{"CAP_SYS_ADMIN"}},
	} {
		s.backings = tc.backings
		_, err := s.Mount(t.Context(), img)
		if !errors.Is(err, bundle.ErrPlatform) {
			t.Errorf("%s: got %v, want %s", name, err, bundle.ErrPlatform)
			continue
		}
		for _, word := range tc.says {
			if !strings.Contains(err.Error(), word) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: got %q, want one line with %q", name, err, word)
			}
		}
		if left := names(t, s.cfg.MountDir); len(left) != 0 {
			t.Errorf("%s: left in the mount directory: %v", name, left)
		}
	}
	if _, ok := s.Lookup(img.Digest); !ok {
		t.Error("the image is gone because the kernel could not mount it")
	}
}

func TestTreeOfThousandsReadsBackIdentical(t *testing.T) {
	t.Parallel()
	s := mountStore(t)
	files := make(map[string]string)
	for i := range 4000 {
		files[fmt.Sprintf("node_modules/@scope%d/package-%d/lib/file%d.js", i%7, i%211, i)] = string(noise(i%9000, byte(i)))
	}
	files["bin/run"] = "#!/bin/sh\n" + string(noise(3<<20, 1))
	dir := mountIt(t, s, install(t, s, bundletest.Build(t, bundletest.Options{Files: files})))
	seen := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		seen++
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		got, err := io.ReadAll(f)
		if name := strings.TrimPrefix(path, dir+"/"); err != nil || string(got) != files[name] {
			t.Errorf("%s: got %d bytes %v, want %d", name, len(got), err, len(files[name]))
		}
		return nil
	})
	if err != nil || seen != len(files) {
		t.Errorf("walked %d files %v, want %d", seen, err, len(files))
	}
}

func BenchmarkMount(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("SKIPPED: mounting an image needs root")
	}
	s := open(b, nil)
	img := install(b, s, big(b, nil))
	b.SetBytes(img.Size)
	for b.Loop() {
		if _, err := s.Mount(b.Context(), img); err != nil {
			b.Fatal(err)
		}
		if err := s.Unmount(b.Context(), img); err != nil {
			b.Fatal(err)
		}
	}
}
