package quota_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/quota"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED FOR LACK OF ROOT: no directory was bounded")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("SKIPPED FOR LACK OF LOOP DEVICES: no directory was bounded")
	}
}

// fill writes until it may not, and tells how many bytes there are then.
func fill(t *testing.T, dir string) int64 {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for total := int64(0); total < 64<<20; {
		n, err := f.Write(block)
		total += int64(n)
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			return total
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("64 MiB were written and nothing stopped it")
	return 0
}

func TestADirectoryHoldsWhatItMayAndNoMore(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := filepath.Join(t.TempDir(), "data")
	t.Cleanup(func() { _ = quota.Release(dir) })
	const bytes = 4 << 20
	means, err := quota.Bound(dir, bytes, 4711)
	if errors.Is(err, quota.ErrUnbounded) && strings.Contains(err.Error(), "no mkfs.ext4") {
		t.Skip("SKIPPED FOR LACK OF mkfs.ext4 AND OF PROJECT QUOTAS here")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Log("bounded by a ", means)
	if got := fill(t, dir); got > bytes || got < bytes/2 {
		t.Errorf("got %d bytes in, want at most %d and more than half of that", got, bytes)
	}
	if again, err := quota.Bound(dir, bytes, 4711); err != nil || again != means {
		t.Errorf("again: got %s, %v, want %s", again, err, means)
	}
	if means != quota.Loop {
		return
	}
	if err := quota.Release(dir); err != nil { // as a boot does
		t.Fatal(err)
	}
	if err := quota.Release(dir); err != nil {
		t.Errorf("a second release: %v", err)
	}
	if _, err := quota.Bound(dir, bytes, 4711); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, "fill")); err != nil || st.Size() == 0 {
		t.Errorf("the data did not come back: %v, %v", st, err)
	}
}

func TestDataFromBeforeIsNotHidden(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "old"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = quota.Release(dir) })
	means, err := quota.Bound(dir, 4<<20, 4712)
	if means != quota.Project && !errors.Is(err, quota.ErrUnbounded) {
		t.Errorf("got %s, %v, want an error that says it is not bounded", means, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "old")); err != nil {
		t.Errorf("what was there is gone: %v", err)
	}
}

// TestProjectQuota needs a kernel with quotas of ext4.
func TestProjectQuota(t *testing.T) {
	t.Parallel()
	needRoot(t)
	image, at := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 64<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-O", "quota,project", image).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED FOR LACK OF A mkfs.ext4 with project quotas: %v %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop,prjquota", image, at).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED FOR LACK OF PROJECT QUOTAS in this kernel: %v %s", err, out)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	dir := filepath.Join(at, "data")
	means, err := quota.Bound(dir, 4<<20, 4713)
	if err != nil || means != quota.Project {
		t.Fatalf("got %s, %v, want a project quota", means, err)
	}
	// Root is not stopped by quotas: somebody else is.
	if err := os.Chmod(at, 0o777); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-c", "chown 1000 "+dir+"; chroot --userspec=1000:1000 / dd if=/dev/zero of="+dir+"/f bs=64k count=200 2>&1; stat -c %s "+dir+"/f").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "quota") {
		t.Errorf("got %v, %s, want a refusal for the quota", err, out)
	}
}
