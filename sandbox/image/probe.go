package image

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
)

// Ways are how images are mounted on a device, and what watches over their bytes while they are.
type Ways struct {
	Backing string // "file": the kernel reads the image's file itself; "loop": through a loop device
	Verity  error  // nil: fs-verity guards images from their first mount on; else why it does not, and each is read whole at each mount
}

// Probe tries it out, in a directory of its own below dir, which it takes away again: an empty image is mounted, and a file is sealed. It
// needs root. The error says what to do.
func Probe(dir string) (w Ways, err error) {
	own, err := os.MkdirTemp(dir, ".probe-")
	if err != nil {
		return w, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(own)) }()
	w.Verity = probeVerity(own)
	f, err := os.Create(filepath.Join(own, "image"))
	if err != nil {
		return w, err
	}
	defer func() { _ = f.Close() }()
	if _, err := oci.Merge(context.Background(), nil, f, oci.Limits{}, nil); err != nil {
		return w, err
	}
	at := filepath.Join(own, "at")
	if err := os.Mkdir(at, dirMode); err != nil {
		return w, err
	}
	s := &Store{backings: []backing{fileBacked, loopBacked}}
	if w.Backing, err = s.attach(f, at, bundle.ImageInfo{Format: bundle.FormatEROFS}); err != nil {
		return w, err
	}
	return w, unix.Unmount(at, unix.MNT_DETACH)
}

// probeVerity seals a file in a directory and removes it again.
func probeVerity(dir string) error {
	name := filepath.Join(dir, "sealed")
	if err := os.WriteFile(name, make([]byte, verityBlocks), 0o600); err != nil {
		return err
	}
	defer func() { _ = os.Remove(name) }()
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err = sealByVerity(f); err == nil {
		_, err = io.Copy(io.Discard, f)
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) {
		err = errors.New("its file system has no fs-verity (ext4 has it when it is made with -O verity, and the kernel with CONFIG_FS_VERITY)")
	}
	return err
}
