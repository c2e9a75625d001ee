package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// fileSource reads a bundle from a path of this device: a stick, or what a build left there.
type fileSource string

func (f fileSource) transient() bool { return false }

func (f fileSource) open(_ context.Context, offset int64) (io.ReadCloser, bool, error) {
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
	if err == nil && offset > 0 {
		_, err = file.Seek(offset, io.SeekStart)
	}
	if err != nil {
		_ = file.Close()
		return nil, false, err
	}
	return &fileBody{File: file, length: info.Size()}, false, nil
}

// fileBody knows the bundle's length beforehand.
type fileBody struct {
	*os.File
	length int64
}

func (f *fileBody) size() (int64, bool) { return f.length, true }
