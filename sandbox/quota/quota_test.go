package quota_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/quota"
)

// inLab tells a virtual board: its disk keeps project quotas, and it has mkfs.ext4 and loop devices, so that nothing here is skipped.
func inLab() bool { return os.Getenv("LAB") == "1" }

func skip(t *testing.T, why string, args ...any) {
	t.Helper()
	if inLab() {
		t.Fatalf(why, args...)
	}
	t.Skipf("SKIPPED FOR LACK OF "+why, args...)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "ROOT: no directory was bounded")
	}
}

// humbly runs f on a thread without the one capability before which no quota holds; a module has none.
func humbly(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&head, &data[0])
		if err == nil {
			data[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
			err = unix.Capset(&head, &data[0])
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// fill writes until it may not, and tells how many bytes there are then.
func fill(t *testing.T, dir string) (total int64) {
	t.Helper()
	humbly(t, func() error {
		f, err := os.Create(filepath.Join(dir, "fill"))
		if err != nil {
			return err
		}
		defer f.Close()
		block := make([]byte, 64<<10)
		for total < 64<<20 {
			n, err := f.Write(block)
			total += int64(n)
			if full(err) {
				return nil
			}
			if err != nil {
				return err
			}
		}
		return errors.New("64 MiB were written and nothing stopped it")
	})
	return total
}

// mounted is a new ext4 with these features of mkfs.ext4 and these options of mount.
func mounted(t *testing.T, options string) string {
	t.Helper()
	image, at := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 64<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-O", "quota,project", image).CombinedOutput(); err != nil {
		skip(t, "A mkfs.ext4 with project quotas: %v %s", err, out)
	}
	if out, err := exec.Command("mount", "-t", "ext4", "-o", options, image, at).CombinedOutput(); err != nil {
		skip(t, "PROJECT QUOTAS in this kernel: %v %s", err, out)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

// bounded is a directory under a project quota; what before puts there is there before.
func bounded(t *testing.T, bytes int64, id uint32, before func(dir string)) string {
	t.Helper()
	needRoot(t)
	at := t.TempDir()
	if !inLab() {
		at = mounted(t, "loop,prjquota")
	}
	dir := filepath.Join(at, "data")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if before != nil {
		before(dir)
	}
	if means, err := quota.Bound(dir, bytes, id); err != nil || means != quota.Project {
		t.Fatalf("got %s, %v, want a project quota", means, err)
	}
	return dir
}

func TestADirectoryHoldsWhatItMayAndNoMore(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := filepath.Join(t.TempDir(), "data")
	t.Cleanup(func() { _ = quota.Release(dir) })
	const bytes = 4 << 20
	means, err := quota.Bound(dir, bytes, 4711)
	if errors.Is(err, quota.ErrUnbounded) {
		skip(t, "ANY MEANS HERE: %v", err)
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
}

// withoutProjects is where a directory to bound is to be, on a file system without project quotas.
func withoutProjects(t *testing.T) string {
	t.Helper()
	parent := t.TempDir()
	if inLab() { // whose disk has them
		if err := unix.Mount("tmpfs", parent, "tmpfs", 0, "size=16m"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(parent, unix.MNT_DETACH) })
	}
	return filepath.Join(parent, "data")
}

func TestALoopFileBringsItsDataBack(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := withoutProjects(t)
	const bytes = 4 << 20
	means, err := quota.Bound(dir, bytes, 4712)
	if err != nil || means != quota.Loop {
		skip(t, "LOOP FILES HERE: %s %v", means, err)
	}
	t.Cleanup(func() { _ = quota.Release(dir) })
	if got := fill(t, dir); got > bytes || got < bytes/2 {
		t.Errorf("got %d bytes in, want at most %d and more than half of that", got, bytes)
	}
	for range 2 { // as a boot does; a second one changes nothing
		if err := quota.Release(dir); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := quota.Bound(dir, bytes, 4712); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, "fill")); err != nil || st.Size() == 0 {
		t.Errorf("the data did not come back: %v, %v", st, err)
	}
}

// A mount namespace that is made while a loop file is mounted has a copy of the mount, and its file system lives until that is gone too.
func TestALoopFileIsNotMountedBesideACopyOfItsMount(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := withoutProjects(t)
	if means, err := quota.Bound(dir, 4<<20, 4716); err != nil || means != quota.Loop {
		skip(t, "LOOP FILES HERE: %s %v", means, err)
	}
	t.Cleanup(func() { _ = quota.Release(dir) })
	if err := os.WriteFile(filepath.Join(dir, "kept"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	holder := exec.Command("/bin/sleep", "100")
	holder.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	if err := quota.Release(dir); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(200*time.Millisecond, func() { _ = holder.Process.Kill(); ended <- holder.Wait() })
	if _, err := quota.Bound(dir, 4<<20, 4716); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "kept")); err != nil {
		t.Errorf("the data did not come back: %v", err)
	}
	<-ended
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
	means, err := quota.Bound(dir, 4<<20, 4713)
	if means != quota.Project && !errors.Is(err, quota.ErrUnbounded) {
		t.Errorf("got %s, %v, want an error that says it is not bounded", means, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "old")); err != nil {
		t.Errorf("what was there is gone: %v", err)
	}
}

func TestAProjectHoldsWhatItMayAndSaysSo(t *testing.T) {
	t.Parallel()
	const bytes = 4 << 20
	dir := bounded(t, bytes, 4720, nil)
	if got := fill(t, dir); got > bytes || got < bytes*3/4 {
		t.Errorf("got %d bytes in, want nearly %d", got, bytes)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if got := st.Blocks * uint64(st.Bsize); got != bytes || st.Bavail > st.Blocks/20 {
		t.Errorf("df: got %d bytes, %d of %d blocks free, want a full directory of %d bytes", got, st.Bavail, st.Blocks, bytes)
	}
	if _, err := quota.Bound(dir, 2*bytes, 4720); err != nil { // a deployment gives it more
		t.Fatal(err)
	}
	if got := fill(t, dir); got <= bytes || got > 2*bytes {
		t.Errorf("with twice as much: got %d bytes in, want more than %d", got, bytes)
	}
}

func TestAProjectIsNotFilledByEmptyFiles(t *testing.T) {
	t.Parallel()
	dir := bounded(t, 4<<20, 4721, nil)
	const most = 1024
	made := 0
	humbly(t, func() error {
		for ; made <= most; made++ {
			err := os.WriteFile(filepath.Join(dir, fmt.Sprint(made)), nil, 0o600)
			if full(err) {
				return nil
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if made > most || made < most/2 {
		t.Errorf("got %d empty files in 4 MiB, want an end below %d", made, most)
	}
}

func TestWhatWasThereIsCountedAndWhatItPointsToIsNot(t *testing.T) {
	t.Parallel()
	outside := ""
	dir := bounded(t, 4<<20, 4722, func(dir string) {
		outside = filepath.Join(filepath.Dir(dir), "outside")
		deep := filepath.Join(dir, "a", "b")
		for _, err := range []error{
			os.Mkdir(outside, 0o755), os.MkdirAll(deep, 0o755), os.WriteFile(filepath.Join(deep, "old"), make([]byte, 3<<20), 0o600),
			os.Symlink(outside, filepath.Join(dir, "link")), unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	if got := fill(t, filepath.Join(dir, "a", "b")); got > 1<<20 {
		t.Errorf("got %d bytes beside 3 MiB of 4, want at most 1 MiB", got)
	}
	if got := projectOf(t, outside); got != 0 {
		t.Errorf("what a link points to: got project %d, want none", got)
	}
	for path, want := range map[string]uint32{dir: 4722, filepath.Join(dir, "a", "b", "old"): 4722} {
		if got := projectOf(t, path); got != want {
			t.Errorf("%s: got project %d, want %d", path, got, want)
		}
	}
}

func projectOf(t *testing.T, path string) uint32 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var attr [28]byte
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), 0x801c581f, uintptr(unsafe.Pointer(&attr))); errno != 0 {
		t.Fatal(errno)
	}
	return *(*uint32)(unsafe.Pointer(&attr[12]))
}

func TestAFileSystemThatOnlyCountsIsNoBound(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := filepath.Join(mounted(t, "loop"), "data")
	t.Cleanup(func() { _ = quota.Release(dir) })
	if means, err := quota.Bound(dir, 4<<20, 4723); means == quota.Project {
		t.Errorf("got %s, %v, want another means: nobody is held to it", means, err)
	}
	if got := fill(t, dir); got > 4<<20 {
		t.Errorf("got %d bytes into 4 MiB", got)
	}
}

func TestWithoutAnyMeansTheReasonsAreNamed(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(filepath.Join(dir, "there"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := quota.Bound(dir, 4<<20, 4724)
	if err == nil {
		return // this disk has quotas
	}
	if !strings.Contains(err.Error(), "no project quota (") || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v, want what is lacking and where", err)
	}
}

func TestALoopFileThatWasDamagedIsRepaired(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for name, bytes := range map[string]int64{"without a journal": 4 << 20, "with one": 32 << 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := withoutProjects(t)
			if means, err := quota.Bound(dir, bytes, 4725); err != nil || means != quota.Loop {
				skip(t, "LOOP FILES HERE: %s %v", means, err)
			}
			t.Cleanup(func() { _ = quota.Release(dir) })
			if err := os.WriteFile(filepath.Join(dir, "kept"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := quota.Release(dir); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(dir+".img", os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			var head [32]byte
			if _, err := f.ReadAt(head[:], 1024); err != nil { // the superblock
				t.Fatal(err)
			}
			block := int64(1024) << head[24] // s_log_block_size
			// The checksum of the first group's descriptor, which lies in the block behind the superblock's.
			if _, err := f.WriteAt([]byte{0xde, 0xad}, (1024/block+1)*block+0x1e); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := quota.Bound(dir, bytes, 4725); err != nil {
				t.Fatal(err)
			}
			if raw, err := os.ReadFile(filepath.Join(dir, "kept")); err != nil || string(raw) != "x" {
				t.Errorf("got %q, %v, want what was there", raw, err)
			}
		})
	}
}
