package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
	"github.com/sandpiper-edge/sandpiper/sandbox/loop"
)

// verityDisk is an ext4 file system with fs-verity in a file.
type verityDisk struct{ file, at string }

// newVerityDisk skips loudly where the kernel has no fs-verity: the boards of the lab have it.
func newVerityDisk(t *testing.T) *verityDisk {
	t.Helper()
	asRoot(t)
	dir := t.TempDir()
	d := &verityDisk{filepath.Join(dir, "disk"), filepath.Join(dir, "at")}
	if err := errors.Join(os.WriteFile(d.file, nil, 0o600), os.Truncate(d.file, 64<<20), os.Mkdir(d.at, 0o700)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "verity", d.file).CombinedOutput(); err != nil {
		withoutVerity(t, "no mkfs.ext4 that knows verity: %v %s", err, out)
	}
	if err := d.mount(); err != nil {
		withoutVerity(t, "this kernel mounts no ext4 with verity: %v", err)
	}
	t.Cleanup(func() {
		if err := d.unmount(); err != nil {
			t.Error(err)
		}
	})
	if err := probeVerity(d.at); err != nil {
		withoutVerity(t, "this kernel has no fs-verity: %v", err)
	}
	return d
}

// withoutVerity skips loudly, but on a board of the lab, which has it.
func withoutVerity(t *testing.T, why string, args ...any) {
	t.Helper()
	if os.Getenv("LAB") == "1" {
		t.Fatalf(why, args...)
	}
	t.Skipf("SKIPPED, scripts/lab/lab test ./sandbox/image -run Verity -board arm64 covers it: "+why, args...)
}

func (d *verityDisk) mount() error {
	f, err := os.OpenFile(d.file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	device, err := loop.Bind(f, "verity", false)
	if err != nil {
		return err
	}
	defer func() { _ = device.Close() }()
	return unix.Mount(device.Name(), d.at, "ext4", 0, "")
}

func (d *verityDisk) unmount() error { return loop.Unmount(d.at) }

// rot flips a bit of the disk where it holds these bytes, behind the file system's back.
func (d *verityDisk) rot(t *testing.T, content []byte) {
	t.Helper()
	if err := d.unmount(); err != nil {
		t.Fatal(err)
	}
	disk, err := os.ReadFile(d.file)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(disk, content)
	if at < 0 || bytes.Contains(disk[at+1:], content) {
		t.Fatalf("the content is on the disk at %d, and not once", at)
	}
	disk[at] ^= 1
	if err := os.WriteFile(d.file, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.mount(); err != nil {
		t.Fatal(err)
	}
}

// storeOn has a store whose images lie on the disk.
func (d *verityDisk) storeOn(t *testing.T, change func(*Config)) *Store {
	t.Helper()
	s := open(t, func(c *Config) {
		c.Dir = filepath.Join(d.at, "state")
		if change != nil {
			change(c)
		}
	})
	return s
}

func TestVerityGuardsAnImageFromItsFirstMountOn(t *testing.T) {
	t.Parallel()
	d := newVerityDisk(t)
	s := d.storeOn(t, nil)
	img := install(t, s, big(t, nil))
	path := fileOf(t, s, img)
	mountIt(t, s, img)
	r, err := s.record(img.Digest)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if got, ok := sealed(f); !ok || got != r.manifest.Image.Verity {
		t.Fatalf("the kernel measures %v, %v, the manifest says %v", got, ok, r.manifest.Image.Verity)
	}
	if w, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
		t.Error("root may write to it", w.Close())
	}
	if err := s.Unmount(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	s.backings = []backing{{"none", func(*os.File, string, bundle.ImageInfo) error { return unix.EINVAL }}}
	if _, err := s.Mount(t.Context(), img); !errors.Is(err, bundle.ErrPlatform) {
		t.Errorf("got %v, want %s", err, bundle.ErrPlatform)
	}
	if err := s.Verify(t.Context(), img); err != nil {
		t.Error(err)
	}
	if _, err := s.GC(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("a sealed image is not collected")
	}
}

func TestVerityImagesOfAnotherContentAreNotMounted(t *testing.T) {
	t.Parallel()
	d := newVerityDisk(t)
	s := d.storeOn(t, nil)
	img := install(t, s, big(t, nil))
	path := fileOf(t, s, img)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := errors.Join(os.Remove(path), os.WriteFile(path, content, 0o400)); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := sealByVerity(f); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	if _, err := s.Mount(t.Context(), img); !errors.Is(err, bundle.ErrDigest) {
		t.Errorf("got %v, want %s", err, bundle.ErrDigest)
	}
	mountIt(t, s, install(t, s, big(t, nil)))
}

func TestVerityShowsRotToTheModuleAndItIsRepairedBeside(t *testing.T) {
	t.Parallel()
	t.Run("bundle", func(t *testing.T) {
		t.Parallel()
		d := newVerityDisk(t)
		s := d.storeOn(t, nil)
		spb := write(t, big(t, nil))
		img, err := s.Fetch(t.Context(), spb, "", nil)
		verified(t, s, img, err)
		repaired(t, d, s, img, "data", noise(1500<<10, 5))
	})
	t.Run("OCI image", func(t *testing.T) {
		t.Parallel()
		d := newVerityDisk(t)
		r := registryOf(t, &ocitest.Registry{})
		s := d.storeOn(t, trusting(r))
		img, err := s.Fetch(t.Context(), r.Host()+"/team/app:1", "", nil)
		verified(t, s, img, err)
		repaired(t, d, s, img, "app", hiss(400<<10))
	})
}

// repaired has a file of an image rot, and wants it read right after a repair and the next mount.
func repaired(t *testing.T, d *verityDisk, s *Store, img Image, file string, want []byte) {
	t.Helper()
	if _, err := s.Mount(t.Context(), img); err != nil { // which seals it
		t.Fatal(err)
	}
	if err := errors.Join(s.Unmount(t.Context(), img), s.Close()); err != nil {
		t.Fatal(err)
	}
	d.rot(t, want[100<<10:104<<10])
	s = reopen(t, s.cfg, nil)
	dir, err := s.Mount(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Unmount(context.WithoutCancel(t.Context()), img); err != nil {
			t.Error(err)
		}
	})
	if _, err := os.ReadFile(filepath.Join(dir, file)); !errors.Is(err, unix.EIO) {
		t.Errorf("a rotten file reads with %v, want %v", err, unix.EIO)
	}
	if n, err := s.Repair(t.Context(), img.Digest); n != 1 || err != nil {
		t.Fatalf("repair: %d chunks, %v, want 1", n, err)
	}
	if dir, err = s.Mount(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, file)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("after the repair: %d bytes, %v", len(got), err)
	}
	for _, name := range names(t, s.stage()) {
		if !strings.HasSuffix(name, blobSuffix) {
			t.Errorf("%s is left in the stage", name)
		}
	}
}
