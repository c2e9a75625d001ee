package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A raw CAN socket (linux/can.h, linux/can/raw.h). Only the network namespace keeps a program off the bus, so a
// sandbox's seccomp filter denies the address family, and what a module may send is judged before it gets here.

const (
	canFrameSize   = 16 // struct can_frame
	canFDFrameSize = 72 // struct canfd_frame

	canEFF = 0x80000000
	canRTR = 0x40000000
	canERR = 0x20000000
)

// canFrame is a classic or FD frame. Identifiers carry no flag bits.
type canFrame struct {
	id       uint32
	extended bool
	remote   bool
	fd       bool
	data     []byte // ≤ 8, ≤ 64 with fd
}

// canFilter lets frames pass whose identifier equals id under mask, both with the kernel's flag bits.
type canFilter struct{ id, mask uint32 }

type canSocket struct {
	_    apart
	file *os.File
	name string
	lost uint32 // the kernel's counter of frames dropped for a full queue
	fd   bool
	buf  [canFDFrameSize]byte
	oob  [64]byte
}

// openCAN opens a raw socket on an interface; without filters it receives nothing.
func openCAN(name string, filters []canFilter) (*canSocket, error) {
	index, err := interfaceIndex(name)
	if err != nil {
		return nil, fmt.Errorf("CAN interface %s: %w", name, err)
	}
	fd, err := unix.Socket(unix.AF_CAN, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.CAN_RAW)
	if err != nil {
		return nil, fmt.Errorf("CAN socket: %w", err)
	}
	c := &canSocket{name: name}
	if err := c.setup(fd, index, filters); err != nil {
		return nil, errors.Join(fmt.Errorf("CAN interface %s: %w", name, err), unix.Close(fd))
	}
	c.file = os.NewFile(uintptr(fd), "can:"+name)
	return c, nil
}

func (c *canSocket) setup(fd, index int, filters []canFilter) error {
	list := make([]unix.CanFilter, len(filters))
	for i, f := range filters {
		list[i] = unix.CanFilter{Id: f.id, Mask: f.mask}
	}
	if err := setCANFilters(fd, list); err != nil {
		return err
	}
	// An interface without FD refuses FD frames at the write, not here.
	c.fd = unix.SetsockoptInt(fd, unix.SOL_CAN_RAW, unix.CAN_RAW_FD_FRAMES, 1) == nil
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return err
	}
	return unix.Bind(fd, &unix.SockaddrCAN{Ifindex: index})
}

func setCANFilters(fd int, list []unix.CanFilter) error {
	if len(list) > unix.CAN_RAW_FILTER_MAX {
		return fmt.Errorf("%d filters, the kernel takes %d", len(list), unix.CAN_RAW_FILTER_MAX)
	}
	if len(list) == 0 {
		// A length of zero drops all frames.
		_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_CAN_RAW, unix.CAN_RAW_FILTER, 0, 0, 0)
		if errno != 0 {
			return errno
		}
		return nil
	}
	size := uintptr(len(list)) * unsafe.Sizeof(list[0])
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_CAN_RAW, unix.CAN_RAW_FILTER, uintptr(unsafe.Pointer(&list[0])), size, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// encode is a frame as the kernel wants it.
func (f canFrame) encode(b []byte) ([]byte, error) {
	limit, size := 8, canFrameSize
	if f.fd {
		limit, size = 64, canFDFrameSize
	}
	switch {
	case len(f.data) > limit:
		return nil, fmt.Errorf("%d bytes in a frame of %d: %w", len(f.data), limit, unix.ERANGE)
	case f.extended && f.id > 0x1fffffff, !f.extended && f.id > 0x7ff:
		return nil, fmt.Errorf("identifier %#x: %w", f.id, unix.ERANGE)
	case f.fd && f.remote:
		return nil, fmt.Errorf("remote frame with FD: %w", unix.ERANGE)
	}
	id := f.id
	if f.extended {
		id |= canEFF
	}
	if f.remote {
		id |= canRTR
	}
	b = append(b[:0], make([]byte, size)...)
	binary.NativeEndian.PutUint32(b, id)
	b[4] = byte(len(f.data))
	copy(b[8:], f.data)
	return b, nil
}

// decodeCAN is the way back; error frames are none.
func decodeCAN(b []byte) (canFrame, bool) {
	if len(b) != canFrameSize && len(b) != canFDFrameSize {
		return canFrame{}, false
	}
	id, n := binary.NativeEndian.Uint32(b), int(b[4])
	if id&canERR != 0 || n > len(b)-8 {
		return canFrame{}, false
	}
	f := canFrame{extended: id&canEFF != 0, remote: id&canRTR != 0, fd: len(b) == canFDFrameSize, data: append([]byte(nil), b[8:8+n]...)}
	f.id = id & 0x7ff
	if f.extended {
		f.id = id & 0x1fffffff
	}
	return f, true
}

func (c *canSocket) send(f canFrame) error {
	var room [canFDFrameSize]byte
	b, err := f.encode(room[:0])
	if err != nil {
		return err
	}
	_, err = c.file.Write(b)
	return err
}

// canReceived is a frame with the kernel's time and the socket's count of lost ones so far.
type canReceived struct {
	canFrame
	wall int64 // ns since 1970
	lost uint32
}

// receive waits for a frame. It ends with os.ErrClosed after Close.
func (c *canSocket) receive() (canReceived, error) {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return canReceived{}, err
	}
	for {
		var n, oobn int
		var inner error
		err := raw.Read(func(fd uintptr) bool {
			n, oobn, inner = receive(fd, c.buf[:], c.oob[:], nil, 0)
			return !again(inner)
		})
		if err != nil {
			return canReceived{}, err
		}
		if inner != nil {
			return canReceived{}, inner
		}
		wall := c.control(c.oob[:oobn])
		if f, ok := decodeCAN(c.buf[:n]); ok {
			return canReceived{canFrame: f, wall: wall, lost: c.lost}, nil
		}
	}
}

// control reads the time and the loss counter beside a frame.
func (c *canSocket) control(oob []byte) (wall int64) {
	const head = int(unsafe.Sizeof(unix.Cmsghdr{}))
	for len(oob) >= head {
		h := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(oob)))
		n := int(h.Len)
		if n < head || n > len(oob) {
			return wall
		}
		data := oob[head:n]
		switch {
		case h.Level != unix.SOL_SOCKET:
		case h.Type == unix.SO_RXQ_OVFL && len(data) >= 4:
			c.lost = binary.NativeEndian.Uint32(data)
		case h.Type == unix.SO_TIMESTAMPNS && len(data) >= int(unsafe.Sizeof(unix.Timespec{})):
			if unsafe.Sizeof(unix.Timespec{}) == 16 {
				wall = int64(binary.NativeEndian.Uint64(data))*1e9 + int64(binary.NativeEndian.Uint64(data[8:]))
			} else {
				wall = int64(int32(binary.NativeEndian.Uint32(data)))*1e9 + int64(binary.NativeEndian.Uint32(data[4:]))
			}
		}
		oob = oob[min(unix.CmsgSpace(n-head), len(oob)):]
	}
	return wall
}

func (c *canSocket) Close() error { return c.file.Close() }
