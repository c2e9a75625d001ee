package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
	"github.com/sandpiper-edge/sandpiper/sandbox/container/entry"
)

// errUnmappable: this kernel, or the image's file system, has no idmapped mounts.
var errUnmappable = errors.New("ids of a mount cannot be mapped")

// mapImage mounts the image at place such that an id in it is the same id inside
// the user namespace: what root owns in the image is the sandbox's root's, while
// on the disk nothing changes.
func mapImage(image, place string, owner *os.File) (string, error) {
	tree, err := entry.Tree(image, 0, true, false)
	if err != nil {
		return "", err
	}
	defer tree.Close()
	attr := unix.MountAttr{
		Attr_set:  unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV,
		Userns_fd: uint64(owner.Fd()),
	}
	if err := unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return "", fmt.Errorf("%w: %w", errUnmappable, err)
	}
	if err := os.Mkdir(place, 0o755); err != nil {
		return "", err
	}
	if err := unix.MoveMount(int(tree.Fd()), "", unix.AT_FDCWD, place, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return "", &os.PathError{Op: "move mount", Path: place, Err: err}
	}
	return place, nil
}

// shiftOwners does to the skeleton, which is ours, what the mount does to the
// image: the two are one tree to the module.
func shiftOwners(dir string, base int) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		sys, ok := st.Sys().(*syscall.Stat_t)
		if !ok || sys.Uid >= sandbox.IDCount || sys.Gid >= sandbox.IDCount {
			return nil
		}
		return os.Lchown(path, base+int(sys.Uid), base+int(sys.Gid))
	})
}
