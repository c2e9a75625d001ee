package quota

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/loop"
)

// Means is how a directory is bounded.
type Means string

// The means.
const (
	Project Means = "project quota"
	Loop    Means = "loop file"
)

// ErrUnbounded says that this device has no means to bound the directory.
var ErrUnbounded = errors.New("the size of the directory is not bounded")

// Bound makes dir, if it is not there, and has it hold no more than so many
// bytes, and a file for each 4 KiB of them. The id names the project on this file system: each directory needs one
// of its own. It must be called again after a boot, and may be at any time.
func Bound(dir string, bytes int64, id uint32) (Means, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	mounted, err := isMounted(dir)
	if err != nil {
		return "", err
	}
	if mounted {
		return Loop, nil
	}
	if _, err := os.Lstat(imageOf(dir)); err == nil { // it began with a loop file, and that holds the data
		return Loop, mountLoop(dir)
	}
	why := setProject(dir, bytes, id)
	if why == nil {
		return Project, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if len(entries) > 0 {
		return "", fmt.Errorf("%w: no project quota (%w), and a loop file cannot take over what is in %s already", ErrUnbounded, why, dir)
	}
	if err := makeLoop(dir, bytes); err != nil {
		return "", fmt.Errorf("%w: no project quota (%w), and no loop file: %w", ErrUnbounded, why, err)
	}
	return Loop, mountLoop(dir)
}

// Release unmounts what Bound mounted; there need not be anything.
func Release(dir string) error {
	mounted, err := isMounted(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !mounted {
		return nil
	}
	if err != nil {
		return err
	}
	return loop.Unmount(dir)
}

// isMounted tells whether something is mounted on dir itself.
func isMounted(dir string) (bool, error) {
	var here, above unix.Stat_t
	if err := unix.Lstat(dir, &here); err != nil {
		return false, &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	if err := unix.Lstat(filepath.Dir(dir), &above); err != nil {
		return false, &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	return here.Dev != above.Dev, nil
}
