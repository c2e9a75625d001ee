package linux

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl calls with a pointer to a kernel structure and repeats an interrupted call.
func ioctl(fd int, request uint, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

// ioctlInt calls with a number for an argument.
func ioctlInt(fd int, request uint, arg uintptr) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), arg)
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

// onFD calls f with a file's descriptor, which nobody closes meanwhile; a file's own Fd would have its reads hold a thread.
func onFD(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	if raw.Control(func(fd uintptr) { err = f(int(fd)) }) != nil {
		return os.ErrClosed
	}
	return err
}

// ctext is the text of a C array up to its end mark.
func ctext(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
