package quota

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/loop"
)

// imageOf is the file that holds a directory's file system.
func imageOf(dir string) string { return dir + ".img" }

// Bounds of a loop file, in bytes: ext4 needs some room for itself, and a journal
// needs more.
const (
	minLoop      = 1 << 20
	minJournal   = 16 << 20
	mkfsPatience = time.Minute
)

// makeLoop makes the file with an empty file system. Its blocks are taken when
// they are written.
func makeLoop(dir string, bytes int64) error {
	mkfs, err := findMkfs()
	if err != nil {
		return err
	}
	fresh := imageOf(dir) + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a power cut
		return err
	}
	f, err := os.OpenFile(fresh, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(max(bytes, minLoop)); err != nil {
		return err
	}
	args := []string{"-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,nodiscard,root_owner=0:0"}
	if bytes < minJournal {
		args = append(args, "-O", "^has_journal")
	}
	ctx, cancel := context.WithTimeout(context.Background(), mkfsPatience)
	defer cancel()
	if out, err := exec.CommandContext(ctx, mkfs, append(args, fresh)...).CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("%s: %w: %s", mkfs, err, strings.Join(strings.Fields(string(out)), " ")), os.Remove(fresh))
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(fresh, imageOf(dir))
}

// findMkfs looks where systems keep it; an agent's PATH may not have it.
func findMkfs() (string, error) {
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin"} {
		if st, err := os.Stat(dir + "/mkfs.ext4"); err == nil && st.Mode().IsRegular() {
			return dir + "/mkfs.ext4", nil
		}
	}
	return "", errors.New("this device has no mkfs.ext4 (e2fsprogs)")
}

// mountLoop mounts the file on its directory. The kernel frees the loop device
// with the mount.
func mountLoop(dir string) error {
	f, err := os.OpenFile(imageOf(dir), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := loop.Alone(f); err != nil {
		return err
	}
	device, err := loop.Bind(f, f.Name(), false)
	if err != nil {
		return err
	}
	defer device.Close()
	if err := unix.Mount(device.Name(), dir, "ext4", unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mount %s: %w", imageOf(dir), err)
	}
	// Not the module's: it would be the one thing in its directory that it did not make.
	if err := os.Remove(dir + "/lost+found"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
