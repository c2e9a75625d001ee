package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// fileSource reads a bundle from a path of this device: a stick, or what a build left there.
type fileSource string

func (f fileSource) transient() bool { return false }

func (f fileSource) sibling(name string) source {
	return fileSource(filepath.Join(filepath.Dir(string(f)), name))
}

func (f fileSource) validator() string { return "" }

func (f fileSource) validate(string) {}

func (f fileSource) open(_ context.Context, from, to int64) (io.ReadCloser, bool, error) {
	file, err := os.OpenFile(string(f), os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe must not hold the agent up
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, &bundle.Error{Code: bundle.ErrTransfer, Why: fmt.Sprintf("there is no file %s: copy the bundle there, or correct the URL", string(f)), Err: err}
	}
	if err != nil {
		return nil, false, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = bundle.Reject(bundle.ErrTransfer, "%s is not a regular file: correct the URL", string(f))
	}
	if err == nil && from > 0 {
		_, err = file.Seek(from, io.SeekStart)
	}
	if err != nil {
		_ = file.Close()
		return nil, false, err
	}
	b := &fileBody{Reader: file, file: file, length: info.Size()}
	if to != toEnd {
		b.Reader = io.LimitReader(file, to-from)
	}
	return b, false, nil
}

// fileBody knows the bundle's length beforehand.
type fileBody struct {
	io.Reader
	file   *os.File
	length int64
}

func (f *fileBody) Close() error { return f.file.Close() }

func (f *fileBody) size() (int64, bool) { return f.length, true }
