package image

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// backing is a way to mount an image from its descriptor.
type backing struct {
	name  string
	mount func(f *os.File, target string, info bundle.ImageInfo) error
}

// fileBacked has the kernel read the file itself: Linux 6.12 with CONFIG_EROFS_FS_BACKED_BY_FILE. Older kernels say ENOTBLK.
var fileBacked = backing{"file", func(f *os.File, target string, info bundle.ImageInfo) error {
	return unix.Mount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), target, info.Format.String(), mountFlags, "")
}}

// loopBacked puts a loop device before it: Linux 5.8, for LOOP_CONFIGURE, which makes and binds it in one step. The kernel frees
// the device when it is unmounted.
var loopBacked = backing{"loop", func(f *os.File, target string, info bundle.ImageInfo) error {
	loop, err := bindLoop(f, info.Digest.Hex())
	if err != nil {
		return err
	}
	defer func() { _ = loop.Close() }()
	return unix.Mount(loop.Name(), target, info.Format.String(), mountFlags, "")
}}

// bindTries is how often another process may take the free loop device that we were just told of.
const bindTries = 32

func bindLoop(f *os.File, label string) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("loop control: %w", err)
	}
	defer func() { _ = control.Close() }()
	config := unix.LoopConfig{Fd: uint32(f.Fd())}
	config.Info.Flags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
	copy(config.Info.File_name[:len(config.Info.File_name)-1], label)
	for range bindTries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("free loop device: %w", err)
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDONLY, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if err == nil {
			return loop, nil
		}
		_ = loop.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("bind %s: %w", loop.Name(), err)
		}
	}
	return nil, fmt.Errorf("bind a loop device: others took %d in turn", bindTries)
}
