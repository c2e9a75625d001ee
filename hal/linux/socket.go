package linux

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// receive is recvmsg: what came, and how many bytes stand beside it. The library's own knows every family of addresses, and is a tenth of
// this room.
func receive(fd uintptr, buf, oob []byte, from unsafe.Pointer, size uint32) (n, oobn int, err error) {
	iov := unix.Iovec{Base: unsafe.SliceData(buf)}
	iov.SetLen(len(buf))
	msg := unix.Msghdr{Name: (*byte)(from), Namelen: size, Iov: &iov, Control: unsafe.SliceData(oob)}
	msg.SetIovlen(1)
	msg.SetControllen(len(oob))
	r, _, errno := unix.Syscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&msg)), 0)
	if errno != 0 {
		return 0, 0, errno
	}
	return int(r), int(msg.Controllen), nil
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
