package loop_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/loop"
)

// mounted is a directory with a file system of its own and an open file in it.
func mounted(t *testing.T) (point string, open *os.File) {
	t.Helper()
	point = t.TempDir()
	if err := unix.Mount("none", point, "tmpfs", 0, "size=64k"); errors.Is(err, unix.EPERM) {
		t.Skip("SKIPPED FOR LACK OF ROOT: nothing was mounted")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(point, unix.MNT_DETACH) })
	open, err := os.Create(filepath.Join(point, "open"))
	if err != nil {
		t.Fatal(err)
	}
	return point, open
}

func TestAMountThatIsBusyForAMomentIsTakenAway(t *testing.T) {
	t.Parallel()
	point, open := mounted(t)
	time.AfterFunc(50*time.Millisecond, func() { _ = open.Close() })
	if err := loop.Unmount(point); err != nil {
		t.Error(err)
	}
}

func TestAMountThatStaysBusyStaysAndTheErrorSaysWhy(t *testing.T) {
	t.Parallel()
	point, open := mounted(t)
	defer open.Close()
	if err := loop.Unmount(point); !errors.Is(err, unix.EBUSY) {
		t.Errorf("got %v, want EBUSY", err)
	}
	if _, err := os.Stat(filepath.Join(point, "open")); err != nil {
		t.Errorf("it was taken away: %v", err)
	}
}

func TestAFileIsAloneWhenItsDeviceIsGone(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	if err := loop.Alone(f); err != nil {
		t.Errorf("a file without a device: got %v", err)
	}
	device, err := loop.Bind(f, "alone", false)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
		t.Skip("SKIPPED FOR LACK OF ROOT or of loop devices: nothing was bound")
	} else if err != nil {
		t.Fatal(err)
	}
	if err := loop.Alone(f); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), device.Name()) {
		t.Errorf("bound: got %v, want EBUSY and the device's name", err)
	}
	time.AfterFunc(50*time.Millisecond, func() { _ = device.Close() })
	if err := loop.Alone(f); err != nil {
		t.Errorf("its device goes: got %v", err)
	}
}
