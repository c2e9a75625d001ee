package linux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// character is the time of one character on the line: start bit, data, parity, stop.
func character(p *hal.SerialPart) time.Duration {
	n := 1 + p.Data + p.Stop
	if p.Parity != 'N' {
		n++
	}
	return time.Duration(n) * time.Second / time.Duration(p.Baud)
}

// rs485 is struct serial_rs485 (linux/serial.h): how a port switches the direction of its line.
type rs485 struct {
	flags uint32
	_     [7]uint32 // no delays
}

const (
	rs485Enabled      = 1 << 0
	rs485RTSOnSend    = 1 << 1
	rs485RTSAfterSend = 1 << 2

	tiocSRS485 = 0x542f
)

// ttys lists the serial ports of the board: a USB port or serial number stays when the port's number changes.
func (h host) ttys() []*device {
	var list []*device
	for _, n := range h.class("tty") {
		dir := h.path("sys/class/tty", n)
		up, err := resolved(filepath.Join(dir, "device"))
		if err != nil || attrOr(dir, "type") == "0" {
			continue // consoles, ptys, and places for a port that is not there
		}
		d := deviceOf(dir, false)
		d.node = h.dev(n)
		for ; len(up) > len(h.path("sys")); up = filepath.Dir(up) {
			if d.usbInterface == "" && exists(up, "bInterfaceNumber") {
				d.usbInterface = filepath.Base(up)
			}
			if exists(up, "idVendor") {
				d.usbPort, d.usbSerial = filepath.Base(up), attrOr(up, "serial")
				break
			}
		}
		list = append(list, d)
	}
	return sorted(list)
}

// findTTY is the port at that node or device, USB port or USB serial number.
func (h host) findTTY(p hal.Port) (*device, error) {
	path, usbPort, usbSerial := p.Path, p.USBPort, p.USBSerial
	if strings.HasPrefix(path, "/dev/") {
		return &device{node: h.under(path), name: path}, nil // the owner's own links under /dev/serial/by-path too
	}
	d, err := h.find("serial port", "", path, h.ttys(), func(d *device) bool {
		return (usbPort == "" || d.usbPort == usbPort || d.usbInterface == usbPort) && (usbSerial == "" || d.usbSerial == usbSerial)
	})
	if err != nil && path == "" {
		err = fmt.Errorf("USB port %q, serial number %q: %w", usbPort, usbSerial, err)
	}
	return d, err
}

// tty is an open port that nobody else uses: an exclusive open stops ordinary users, the lock stops programs that
// lock too, root among them.
type tty struct {
	_     apart
	file  *os.File
	where string
	mode  *hal.SerialPart
}

func (h host) openTTY(d *device, mode *hal.SerialPart) (*tty, error) {
	fd, err := unix.Open(d.node, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		if err == unix.EBUSY {
			return nil, inUse(d.String(), "another program")
		}
		return nil, &os.PathError{Op: "open", Path: d.node, Err: err}
	}
	if err := setupTTY(fd, d, mode); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &tty{file: os.NewFile(uintptr(fd), d.node), where: d.String(), mode: mode}, nil
}

func setupTTY(fd int, d *device, mode *hal.SerialPart) error {
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return inUse(d.String(), "another program that locks it")
	}
	if err := ioctlInt(fd, unix.TIOCEXCL, 0); err != nil {
		return fmt.Errorf("take %s for one user: %w", d, err)
	}
	t := termios(mode)
	if err := ioctl(fd, unix.TCSETS2, unsafe.Pointer(&t)); err != nil {
		return fmt.Errorf("set %s to %d baud: %w", d, mode.Baud, err)
	}
	if mode.RS485 {
		half := rs485{flags: rs485Enabled | rs485RTSAfterSend}
		if mode.RTSOnSend {
			half.flags = rs485Enabled | rs485RTSOnSend
		}
		if err := ioctl(fd, tiocSRS485, unsafe.Pointer(&half)); err != nil {
			return fmt.Errorf("RS-485 on %s: %w: this driver cannot switch the direction", d, err)
		}
	}
	return ioctlInt(fd, unix.TCFLSH, unix.TCIOFLUSH)
}

// termios is a raw line with any baud rate, no flow control, and no echo.
func termios(p *hal.SerialPart) unix.Termios {
	t := unix.Termios{Cflag: unix.CREAD | unix.CLOCAL | unix.BOTHER, Ispeed: uint32(p.Baud), Ospeed: uint32(p.Baud)}
	t.Cflag |= [...]uint32{unix.CS5, unix.CS6, unix.CS7, unix.CS8}[p.Data-5]
	switch p.Parity {
	case 'E':
		t.Cflag |= unix.PARENB
		t.Iflag |= unix.INPCK
	case 'O':
		t.Cflag |= unix.PARENB | unix.PARODD
		t.Iflag |= unix.INPCK
	}
	if p.Stop == 2 {
		t.Cflag |= unix.CSTOPB
	}
	t.Cc[unix.VMIN] = 1
	return t
}

// write puts all bytes out within the context's time; drained waits until they have left the wire.
func (t *tty) write(ctx context.Context, b []byte) error {
	if err := t.file.SetWriteDeadline(deadlineOf(ctx)); err != nil {
		return err
	}
	_, err := t.file.Write(b)
	return err
}

// readSome waits for at least one byte until a moment.
func (t *tty) readSome(b []byte, until time.Time) (int, error) {
	if err := t.file.SetReadDeadline(until); err != nil {
		return 0, err
	}
	return t.file.Read(b)
}

// maxExchange bounds what one exchange reads.
const maxExchange = 64 << 10

// serialTime is how long an exchange may take when the caller sets no deadline of its own.
const serialTime = time.Second

// exchange writes w and then reads n bytes, or up to and with the byte until when that is not zero. What came before the
// deadline is returned with it.
func (t *tty) exchange(ctx context.Context, w []byte, until, n int) ([]byte, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, serialTime)
		defer cancel()
	}
	if len(w) > 0 {
		if err := t.discard(); err != nil {
			return nil, err
		}
		if err := t.write(ctx, w); err != nil {
			return nil, err
		}
	}
	if n <= 0 || n > maxExchange {
		if n = maxExchange; until <= 0 {
			return nil, nil
		}
	}
	var got []byte
	buf := make([]byte, min(n, 512))
	for len(got) < n {
		k, err := t.readSome(buf[:min(len(buf), n-len(got))], deadlineOf(ctx))
		got = append(got, buf[:k]...)
		if err != nil {
			return got, err
		}
		if until > 0 {
			if at := bytes.IndexByte(got, byte(until)); at >= 0 {
				return got[:at+1], nil
			}
		}
	}
	return got, nil
}

// discard throws away what came in unasked.
func (t *tty) discard() error {
	return onFD(t.file, func(fd int) error { return ioctlInt(fd, unix.TCFLSH, unix.TCIFLUSH) })
}

func (t *tty) Close() error { return t.file.Close() }

// deadlineOf is the moment at which a context ends; a context without one has no deadline.
func deadlineOf(ctx context.Context) time.Time {
	d, _ := ctx.Deadline()
	return d
}
