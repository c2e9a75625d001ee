package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

const (
	dirMode  = 0o700
	fileMode = 0o600

	newSuffix = ".new"  // a file that means nothing until it is renamed
	badSuffix = ".bad-" // a damaged file, put aside
)

// dir is the store's folder, locked against a second process for as long as it
// is open.
type dir struct {
	path string
	lock *os.File
}

func openDir(path string) (*dir, error) {
	for _, p := range []string{path, filepath.Join(path, "seg")} {
		if err := os.MkdirAll(p, dirMode); err != nil {
			return nil, readOnly(fmt.Errorf("make folder: %w", err))
		}
		if err := os.Chmod(p, dirMode); err != nil {
			return nil, readOnly(fmt.Errorf("close folder to others: %w", err))
		}
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, readOnly(fmt.Errorf("open lock: %w", err))
	}
	d := &dir{path: path, lock: lock}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("take lock: %w", err)
	}
	if err := d.sweep(); err != nil {
		lock.Close()
		return nil, err
	}
	return d, nil
}

// sweep removes what a crash left half made and makes the folders durable.
func (d *dir) sweep() error {
	for _, pattern := range []string{"*" + newSuffix, filepath.Join("seg", "*"+newSuffix)} {
		names, err := filepath.Glob(filepath.Join(d.path, pattern))
		if err != nil {
			return fmt.Errorf("list unfinished files: %w", err)
		}
		for _, name := range names {
			if err := os.Remove(name); err != nil {
				return readOnly(fmt.Errorf("remove unfinished file: %w", err))
			}
		}
	}
	for _, p := range []string{filepath.Dir(d.path), d.path, d.folder()} {
		if err := syncDir(p); err != nil {
			return err
		}
	}
	return nil
}

// close gives the folder free. The lock is given up by name: closing the file
// alone would leave it with a child that is being forked at this moment.
func (d *dir) close() error {
	return errors.Join(unix.Flock(int(d.lock.Fd()), unix.LOCK_UN), d.lock.Close())
}

func (d *dir) state() string { return filepath.Join(d.path, "state.db") }

func (d *dir) folder() string { return filepath.Join(d.path, "seg") }

func (d *dir) segment(number uint64) string {
	return filepath.Join(d.folder(), fmt.Sprintf("%016d.db", number))
}

// segments lists the numbers of the segment files, in no order.
func (d *dir) segments() ([]uint64, error) {
	names, err := filepath.Glob(filepath.Join(d.folder(), "*.db"))
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	var numbers []uint64
	for _, name := range names {
		number, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(name), ".db"), 10, 64)
		if err == nil && name == d.segment(number) {
			numbers = append(numbers, number)
		}
	}
	return numbers, nil
}

// space returns the free and the total bytes of the partition.
func (d *dir) space() (free, total int64, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(d.path, &fs); err != nil {
		return 0, 0, fmt.Errorf("ask for free space: %w", err)
	}
	size := int64(fs.Frsize)
	if size == 0 {
		size = int64(fs.Bsize)
	}
	return int64(fs.Bavail) * size, int64(fs.Blocks) * size, nil
}

// quarantine keeps a damaged file as *.bad-N, puts replacement in its place, or
// nothing if that is "", and returns the new name. At no moment is there neither
// file. Only the last damaged file of a folder is kept: a technician wants an
// example, and a card that rots must not fill itself.
func quarantine(path, replacement string) (string, error) {
	folder := filepath.Dir(path)
	old, err := filepath.Glob(filepath.Join(folder, "*"+badSuffix+"*"))
	if err != nil {
		return "", fmt.Errorf("list quarantine: %w", err)
	}
	last := 0
	for _, name := range old {
		if n, err := strconv.Atoi(name[strings.LastIndex(name, badSuffix)+len(badSuffix):]); err == nil {
			last = max(last, n)
		}
	}
	bad := path + badSuffix + strconv.Itoa(last+1)
	if err := os.Link(path, bad); err != nil { // not every file system has links
		err = os.Rename(path, bad)
		if errors.Is(err, fs.ErrNotExist) {
			bad = ""
		} else if err != nil {
			return "", fmt.Errorf("put aside: %w", err)
		}
	}
	if replacement == "" {
		err = remove(path)
	} else {
		err = os.Rename(replacement, path)
	}
	if err != nil {
		return bad, fmt.Errorf("replace: %w", err)
	}
	for _, name := range old {
		if err := os.Remove(name); err != nil {
			return bad, fmt.Errorf("thin out quarantine: %w", err)
		}
	}
	return bad, syncDir(folder)
}

// syncDir makes creations, renames and removals in a folder durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	defer d.Close()                                                     // only read
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) { // some file systems have no such thing
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

// remove unlinks a file that may already be gone.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// classify gives the errors that a producer can act on their names.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrClosed), errors.Is(err, berrors.ErrDatabaseNotOpen):
		return ErrClosed
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return fmt.Errorf("%w: %w", ErrFull, err)
	default:
		return readOnly(err)
	}
}

func readOnly(err error) error {
	if errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return err
}
