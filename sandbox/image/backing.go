package image

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/loop"
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
	device, err := loop.Bind(f, info.Digest.Hex(), true)
	if err != nil {
		return err
	}
	defer func() { _ = device.Close() }()
	return unix.Mount(device.Name(), target, info.Format.String(), mountFlags, "")
}}
