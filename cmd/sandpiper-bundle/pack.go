package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// pack writes an image's chunks into work, and returns the open payload.
func pack(ctx context.Context, image *os.File, work string, stderr io.Writer) (bundle.Packed, *os.File, error) {
	info, err := image.Stat()
	if err != nil {
		return bundle.Packed{}, nil, err
	}
	if _, err := bundle.CheckImage(image, info.Size()); err != nil { // what a device will do with it
		return bundle.Packed{}, nil, err
	}
	payload, err := os.Create(filepath.Join(work, "payload"))
	if err != nil {
		return bundle.Packed{}, nil, err
	}
	bar := newProgress(stderr, "packing")
	packed, err := bundle.Pack(&until{ctx, io.NewSectionReader(image, 0, info.Size())}, bundle.FormatEROFS, payload,
		func(done int64) { bar.set(done, info.Size()) })
	bar.end()
	if err == nil {
		_, err = payload.Seek(0, io.SeekStart)
	}
	if err != nil {
		return bundle.Packed{}, nil, errors.Join(err, payload.Close())
	}
	return packed, payload, nil
}

// until reads as long as the command was not interrupted.
type until struct {
	ctx context.Context //nolint:containedctx // lives for one copy
	r   io.Reader
}

func (u *until) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// writeBundle writes a bundle whole or not at all.
func writeBundle(out string, e bundle.Envelope, index bundle.Index, payload io.Reader) (int64, error) {
	return writeFile(out, func(w io.Writer) error { return bundle.Write(w, e, index, payload) })
}

// writeFile writes a file beside its place and renames it: a command that fails leaves the old one. It returns the bytes written.
func writeFile(out string, content func(io.Writer) error) (n int64, err error) {
	tmp, err := os.CreateTemp(filepath.Dir(out), ".sandpiper-bundle-*")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tmp.Close(), os.Remove(tmp.Name()))
		}
	}()
	if err := content(tmp); err != nil {
		return 0, err
	}
	if n, err = tmp.Seek(0, io.SeekCurrent); err != nil {
		return 0, err
	}
	if err := errors.Join(tmp.Chmod(0o644), tmp.Sync()); err != nil {
		return 0, err
	}
	if err := os.Rename(tmp.Name(), out); err != nil {
		return 0, err
	}
	return n, tmp.Close()
}

// programThere says early what would only show on a device: the program is not in the image. Links are not followed: what they
// point at may be the host's.
func programThere(tree fileTree, r bundle.Runtime) error {
	name := r.Args[0]
	if r.HostView {
		var inApp bool
		if name, inApp = strings.CutPrefix(name, "/app/"); !inApp {
			return nil // a program of the host
		}
	}
	if !r.HostView && !path.IsAbs(name) {
		return nil // looked up in PATH
	}
	name = strings.TrimPrefix(path.Clean(name), "/")
	at := "."
	for part := range strings.SplitSeq(name, "/") {
		at = path.Join(at, part)
		info, err := tree.Lstat(at)
		if err != nil {
			return fmt.Errorf("--arg %q: there is no %s in it: correct the path as the module sees it, or build it with --host-view if it runs on the device's own files", r.Args[0], at)
		}
		if info.Mode()&os.ModeSymlink != 0 {
			return nil
		}
		if at == name && (info.IsDir() || info.Mode().Perm()&0o111 == 0) {
			return fmt.Errorf("--arg %q: %s is not executable: chmod +x it", r.Args[0], at)
		}
	}
	return nil
}
