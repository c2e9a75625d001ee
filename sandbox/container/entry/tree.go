package entry

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Tree is a detached mount of what lies at path, with attributes (MOUNT_ATTR_*)
// set on it and, if it is recursive, on all that is mounted below. With
// nofollow a link at the end of the path is an error.
func Tree(path string, attributes uint64, recursive, nofollow bool) (*os.File, error) {
	at, flags := uint(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC), uint(0)
	if recursive {
		flags = unix.AT_RECURSIVE
	}
	if nofollow {
		at |= unix.AT_SYMLINK_NOFOLLOW
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, at|flags)
	return finish(fd, err, path, attributes, flags)
}

// TreeOf is Tree of an open file (O_PATH will do): what was looked at is what is
// mounted, whatever its name means by now.
func TreeOf(f *os.File, attributes uint64, recursive bool) (*os.File, error) {
	flags := uint(0)
	if recursive {
		flags = unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|flags)
	return finish(fd, err, f.Name(), attributes, flags)
}

func finish(fd int, err error, path string, attributes uint64, flags uint) (*os.File, error) {
	if err != nil {
		return nil, &os.PathError{Op: "open tree", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	if attributes == 0 {
		return f, nil
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|flags, &unix.MountAttr{Attr_set: attributes}); err != nil {
		return nil, errors.Join(&os.PathError{Op: "set mount attributes", Path: path, Err: err}, f.Close())
	}
	return f, nil
}

// Supported tells whether this kernel has what a Script needs (Linux 5.12).
func Supported() bool {
	if err := unix.MountSetattr(-1, "", 0, &unix.MountAttr{}); errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return false
	}
	_, err := unix.Openat2(-1, "", &unix.OpenHow{})
	return !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM)
}
