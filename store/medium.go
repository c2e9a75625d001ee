package store

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// medium is the disk as the queue's own files need it: journals and sealed
// segments. A test puts a recorder in its place and asks what a power cut would
// have left. bbolt has its files to itself.
type medium interface {
	// open opens a file to read and write, and makes it if flag says so.
	open(path string, flag int) (file, error)
	rename(from, to string) error
	remove(path string) error
	// syncDir makes creations, renames and removals in a folder durable.
	syncDir(path string) error
}

// file is an open file of a medium.
type file interface {
	io.ReaderAt
	io.WriterAt
	// flush makes what was written durable; the size must not have changed since
	// the last one, unless the file is new.
	flush() error
	Close() error
}

// realMedium is the disk.
type realMedium struct{}

func (realMedium) open(path string, flag int) (file, error) {
	f, err := os.OpenFile(path, flag, fileMode)
	if err != nil {
		return nil, err
	}
	return realFile{f}, nil
}

func (realMedium) rename(from, to string) error { return os.Rename(from, to) }
func (realMedium) remove(path string) error     { return remove(path) }
func (realMedium) syncDir(path string) error    { return syncDir(path) }

type realFile struct{ *os.File }

// flush is fdatasync, which also writes a size that has changed.
func (f realFile) flush() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err == nil {
			return nil
		}
		if err != unix.EINTR { //nolint:errorlint // it comes from the system call itself
			return &fs.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
	}
}

// writeWhole makes a file with the bytes that next returns until it returns
// none, durable and under its name when writeWhole returns nil. After an error
// there is none.
func writeWhole(m medium, temp, path string, next func() []byte) error {
	f, err := m.open(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	at := int64(0)
	for b := next(); len(b) > 0 && err == nil; b = next() {
		var n int
		n, err = f.WriteAt(b, at)
		at += int64(n)
	}
	if err == nil {
		err = f.flush()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = m.rename(temp, path)
	}
	if err != nil {
		m.remove(temp) //nolint:errcheck // the next start removes it
		return err
	}
	return m.syncDir(filepath.Dir(path))
}
