package linux

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receive waits for a message: recvmsg, what came, and how many bytes stand beside it. The library's own knows every family of addresses,
// and is a tenth of this room. It ends with os.ErrClosed after Close.
func receive(file *os.File, buf, oob []byte, from unsafe.Pointer, size uint32) (n, oobn int, err error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var errno unix.Errno
	err = raw.Read(func(fd uintptr) bool {
		iov := unix.Iovec{Base: unsafe.SliceData(buf)}
		iov.SetLen(len(buf))
		msg := unix.Msghdr{Name: (*byte)(from), Namelen: size, Iov: &iov, Control: unsafe.SliceData(oob)}
		msg.SetIovlen(1)
		msg.SetControllen(len(oob))
		var r uintptr
		r, _, errno = unix.Syscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&msg)), 0)
		n, oobn = int(r), int(msg.Controllen)
		return errno != unix.EAGAIN && errno != unix.EINTR
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return n, oobn, err
}

// interfaceIndex is the kernel's number of a network interface.
func interfaceIndex(name string) (int, error) {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return 0, unix.ENODEV
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer closeFD(fd)
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r); err != nil {
		return 0, err
	}
	return int(r.Uint32()), nil
}
