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
	fsckPatience = 5 * time.Minute
)

// makeLoop makes the file with an empty file system. Its blocks are taken when
// they are written.
func makeLoop(dir string, bytes int64) error {
	mkfs, err := find("mkfs.ext4")
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

// find looks where systems keep a tool; an agent's PATH may not have it.
func find(tool string) (string, error) {
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin"} {
		if st, err := os.Stat(dir + "/" + tool); err == nil && st.Mode().IsRegular() {
			return dir + "/" + tool, nil
		}
	}
	return "", fmt.Errorf("this device has no %s (e2fsprogs)", tool)
}

// repair puts a file system right that a power cut or a disk left wrong: first what is safe, and where that is not enough all there is, as
// nobody is there to be asked.
func repair(image string) error {
	fsck, err := find("e2fsck")
	if err != nil {
		return err
	}
	const uncorrected = 4 // and more: exit codes of e2fsck
	ctx, cancel := context.WithTimeout(context.Background(), fsckPatience)
	defer cancel()
	for _, how := range [][]string{{"-p"}, {"-f", "-y"}} {
		out, failed := exec.CommandContext(ctx, fsck, append(how, image)...).CombinedOutput()
		code, ran := errors.AsType[*exec.ExitError](failed)
		if failed == nil || ran && code.ExitCode() >= 0 && code.ExitCode() < uncorrected {
			return nil
		}
		text := strings.Join(strings.Fields(string(out)), " ")
		err = fmt.Errorf("%s %s: %w: %.200s", fsck, image, failed, text)
	}
	return err
}

// mountLoop mounts the file on its directory, repaired if it has to be: one without a
// journal is looked at each time, which costs a clean one nothing.
func mountLoop(dir string) error {
	f, err := os.OpenFile(imageOf(dir), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := loop.Alone(f); err != nil { // else it would be repaired under somebody's hands
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	looked := st.Size() < minJournal && repair(f.Name()) == nil // without the tool the kernel takes it as it is
	err = mountImage(f, dir)
	if looked || !errors.Is(err, unix.EUCLEAN) && !errors.Is(err, unix.EFSBADCRC) {
		return err
	}
	if failed := repair(f.Name()); failed != nil {
		return fmt.Errorf("%w; %w", err, failed)
	}
	return mountImage(f, dir)
}

// mountImage mounts it as it is. The kernel frees the loop device with the mount.
func mountImage(f *os.File, dir string) error {
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
