package linux

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
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

// canUnit sends and receives frames of an interface. Identifiers have the kernel's flag bits.
type canUnit struct {
	_    noCompare
	file *os.File
	name string
	lost uint32 // the kernel's counter of frames dropped for a full queue
	buf  [canFDFrameSize]byte
	oob  [64]byte
}

// openCAN opens a raw socket on an interface; without identifiers to receive it hears nothing.
func openCAN(p *hal.CANPart) (hal.Device, error) {
	index, err := interfaceIndex(p.Interface)
	if err != nil {
		return nil, fmt.Errorf("CAN interface %s: %w", p.Interface, err)
	}
	fd, err := unix.Socket(unix.AF_CAN, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.CAN_RAW)
	if err != nil {
		return nil, fmt.Errorf("CAN socket: %w", err)
	}
	u := &canUnit{name: p.Interface, file: os.NewFile(uintptr(fd), "can:"+p.Interface)}
	if err := setupCAN(fd, index, p.RX); err != nil {
		u.file.Close()
		return nil, fmt.Errorf("CAN interface %s: %w", p.Interface, err)
	}
	return u, nil
}

func setupCAN(fd, index int, rx []hal.IDMask) error {
	filters := make([]unix.CanFilter, len(rx))
	for i, m := range rx {
		filters[i] = unix.CanFilter{Id: m.ID, Mask: m.Mask | canEFF | canRTR} // extended ones are told apart from standard ones
	}
	if err := unix.SetsockoptCanRawFilter(fd, unix.SOL_CAN_RAW, unix.CAN_RAW_FILTER, filters); err != nil {
		return fmt.Errorf("%d filters: %w", len(filters), err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_CAN_RAW, unix.CAN_RAW_FD_FRAMES, 1) // an old kernel gives classic frames only
	for _, opt := range [...]int{unix.SO_RXQ_OVFL, unix.SO_TIMESTAMPNS} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, 1); err != nil {
			return err
		}
	}
	return unix.Bind(fd, &unix.SockaddrCAN{Ifindex: index})
}

// encodeCAN is a classic frame as the kernel wants it.
func encodeCAN(id uint32, data []byte) ([]byte, error) {
	if len(data) > 8 || id&canERR != 0 || id&canEFF == 0 && id&^canRTR > 0x7ff {
		return nil, fmt.Errorf("identifier %#x with %d bytes: %w", id, len(data), unix.ERANGE)
	}
	b := make([]byte, canFrameSize)
	binary.NativeEndian.PutUint32(b, id)
	b[4] = byte(len(data))
	copy(b[8:], data)
	return b, nil
}

// decodeCAN is the way back, of an FD frame too; error frames are none.
func decodeCAN(b []byte) (id uint32, data []byte, ok bool) {
	if len(b) != canFrameSize && len(b) != canFDFrameSize {
		return 0, nil, false
	}
	id, n := binary.NativeEndian.Uint32(b), int(b[4])
	if id&canERR != 0 || n > len(b)-8 {
		return 0, nil, false
	}
	if id&canEFF == 0 {
		id &= canRTR | 0x7ff
	}
	return id, bytes.Clone(b[8 : 8+n]), true
}

// Do sends one frame an operation.
func (u *canUnit) Do(ctx context.Context, ops []hal.Op) error {
	for i := range ops {
		b, err := encodeCAN(ops[i].ID, ops[i].Write)
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			_, err = u.file.Write(b)
		}
		if err != nil {
			return coded(KindCAN, fmt.Errorf("send on %s: %w", u.name, err))
		}
	}
	return nil
}

// Close leaves the bus.
func (u *canUnit) Close() error { return u.file.Close() }

// Frames gives what the interface hears of the resource's identifiers.
func (u *canUnit) Frames(context.Context) (hal.EdgeReader, error) {
	if err := u.file.SetReadDeadline(time.Time{}); err != nil { // after an earlier reader's end
		return nil, coded(KindCAN, err)
	}
	return &frames{unit: u}, nil
}

// receive waits for a frame, and notes the kernel's count of lost ones.
func (u *canUnit) receive() (hal.Event, error) {
	for {
		n, oobn, err := receive(u.file, u.buf[:], u.oob[:], nil, 0)
		if err != nil {
			return hal.Event{}, err
		}
		e := hal.Event{Mono: monotonic()}
		beside, err := unix.ParseSocketControlMessage(u.oob[:oobn])
		if err != nil {
			return e, err
		}
		for _, m := range beside {
			switch size := len(m.Data); {
			case m.Header.Type == unix.SO_RXQ_OVFL && size >= 4:
				u.lost = binary.NativeEndian.Uint32(m.Data)
			case m.Header.Type == unix.SO_TIMESTAMPNS && size >= int(unsafe.Sizeof(unix.Timespec{})):
				e.Time = time.Unix((*unix.Timespec)(unsafe.Pointer(&m.Data[0])).Unix())
			}
		}
		var ok bool
		if e.ID, e.Data, ok = decodeCAN(u.buf[:n]); ok {
			return e, nil
		}
	}
}

// frames counts what one reader missed.
type frames struct {
	_    noCompare
	unit *canUnit
	seq  uint64
	lost uint32
}

// Read waits for a frame.
func (f *frames) Read(ctx context.Context, into []hal.Event) (int, error) {
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	e, err := f.unit.receive()
	stop()
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.Is(err, os.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
		return 0, &Error{Code: CodeGone, Err: err}
	default:
		return 0, coded(KindCAN, fmt.Errorf("receive on %s: %w", f.unit.name, err))
	}
	e.Lost = uint64(f.unit.lost - f.lost)
	f.lost = f.unit.lost
	f.seq += 1 + e.Lost
	e.Seq = f.seq
	into[0] = e
	return 1, nil
}

// Close makes a waiting Read end.
func (f *frames) Close() error { return f.unit.file.SetReadDeadline(pastTime) }
