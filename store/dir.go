package store

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
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
	path    string
	lock    *os.File
	settled chan struct{} // closed when the names that a start found are durable, or err says why not
	err     error
}

func openDir(path string) (*dir, error) {
	for _, p := range []string{path, filepath.Join(path, "seg"), filepath.Join(path, "journal")} {
		if err := os.MkdirAll(p, dirMode); err != nil {
			return nil, classify(fmt.Errorf("make folder: %w", err))
		}
		if err := os.Chmod(p, dirMode); err != nil {
			return nil, readOnly(fmt.Errorf("close folder to others: %w", err))
		}
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, readOnly(fmt.Errorf("open lock: %w", err))
	}
	d := &dir{path: path, lock: lock, settled: make(chan struct{})}
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
	go d.settle()
	return d, nil
}

// settle makes durable what a killed process may have left in the page cache only:
// four flushes, for which a start does not wait on a busy disk.
func (d *dir) settle() {
	defer close(d.settled)
	for _, p := range []string{filepath.Dir(d.path), d.path, d.folder(), d.journals()} {
		d.err = errors.Join(d.err, syncDir(p))
	}
}

// sure waits until a file that is there is there for certain. It comes before
// whatever gives up another copy of what is in the file.
func (d *dir) sure() error {
	<-d.settled
	return d.err
}

// sweep removes what a crash left half made.
func (d *dir) sweep() error {
	for _, pattern := range []string{"*" + newSuffix, filepath.Join("*", "*"+newSuffix)} {
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
	return nil
}

// close gives the folder free. The lock is given up by name: closing the file
// alone would leave it with a child that is being forked at this moment.
func (d *dir) close() error {
	<-d.settled
	return errors.Join(unix.Flock(int(d.lock.Fd()), unix.LOCK_UN), d.lock.Close())
}

func (d *dir) state() string { return filepath.Join(d.path, "state.db") }

func (d *dir) folder() string { return filepath.Join(d.path, "seg") }

// bare says that there are neither journals nor segments.
func (d *dir) bare() bool {
	for _, folder := range []string{d.folder(), d.journals()} {
		if all, err := os.ReadDir(folder); err != nil || len(all) > 0 {
			return false
		}
	}
	return true
}

func (d *dir) segment(number uint64) string {
	return filepath.Join(d.folder(), fmt.Sprintf("%016d.db", number))
}

// sealed is the path of a segment of format 2, whose name says what its bytes
// are.
func (d *dir) sealed(number uint64, digest uint32) string {
	return filepath.Join(d.folder(), fmt.Sprintf("%016d-%08x.db", number, digest))
}

func (d *dir) journals() string { return filepath.Join(d.path, "journal") }

// segments lists the segment files by number. Of one number there can be two when
// a crash came between a new file and the end of the old one: a repaired file, of
// format 1, is the one, or else the larger, which has all that the other has. What
// is left over is returned too.
func (d *dir) segments() (paths map[uint64]string, spare []string, err error) {
	names, err := filepath.Glob(filepath.Join(d.folder(), "*.db"))
	if err != nil {
		return nil, nil, fmt.Errorf("list segments: %w", err)
	}
	paths = map[uint64]string{}
	for _, name := range names {
		number, digest, sealed := strings.Cut(strings.TrimSuffix(filepath.Base(name), ".db"), "-")
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil || n == 0 {
			continue
		}
		sum, err := strconv.ParseUint(digest, 16, 32)
		if !sealed && name != d.segment(n) || sealed && (err != nil || name != d.sealed(n, uint32(sum))) {
			continue
		}
		other := paths[n]
		switch {
		case other == "":
		case sealed && (other == d.segment(n) || sizeOf(name) <= sizeOf(other)):
			spare = append(spare, name)
			continue
		default:
			spare = append(spare, other)
		}
		paths[n] = name
	}
	return paths, spare, nil
}

// sizeOf returns the size of a file in bytes, 0 if there is none.
func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// digestOf returns what the name of a segment says of its bytes; ok is false for
// one of format 1, whose name says nothing.
func digestOf(path string) (sum uint32, ok bool) {
	_, digest, ok := strings.Cut(strings.TrimSuffix(filepath.Base(path), ".db"), "-")
	n, err := strconv.ParseUint(digest, 16, 32)
	return uint32(n), ok && err == nil
}

// verifySegment says whether a segment's file is what was written: by its digest,
// or, if it has none, by a walk through its tree. Its error is a *damage if it is
// not.
func verifySegment(path string) error {
	want, ok := digestOf(path)
	if !ok {
		return verify(path, segmentMetas)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	hash := crc32.New(castagnoli)
	switch _, err := io.CopyBuffer(struct{ io.Writer }{hash}, struct{ io.Reader }{f}, make([]byte, 64<<10)); {
	case errors.Is(err, syscall.EIO):
		return damaged(0, "the file cannot be read from the disk")
	case err != nil:
		return fmt.Errorf("read segment: %w", err)
	case hash.Sum32() != want:
		return damaged(0, "the file's digest is %08x, its name says %08x", hash.Sum32(), want)
	}
	return nil
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

// quarantine keeps a damaged file as *.bad-N, puts replacement in its place under
// name, or nothing if replacement is "", and returns the damaged one's new path. At no moment is there neither
// file. Only the last damaged file of a folder is kept: a technician wants an
// example, and a card that rots must not fill itself.
func quarantine(path, replacement, name string) (string, error) {
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
		if err = os.Rename(replacement, name); err == nil && name != path {
			err = remove(path)
		}
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
