package linux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// character is the time of one character on the line: start bit, data, parity, stop.
func character(p *hal.LineMode) time.Duration {
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
func (h *host) ttys() []*device {
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
func (h *host) findTTY(p *hal.SerialPart) (*device, error) {
	path, usbPort, usbSerial := p.Path, p.USB.Port, p.USB.Serial
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
	_     noCompare
	file  *os.File
	where string
	mode  *hal.LineMode
}

func (h *host) openTTY(p *hal.SerialPart) (*tty, error) {
	mode, err := hal.ParseMode(p.Mode)
	if err != nil {
		return nil, err
	}
	d, err := h.findTTY(p)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(d.node, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, inUse(d.String(), "another program")
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: d.node, Err: err}
	}
	t := &tty{file: os.NewFile(uintptr(fd), d.node), where: d.String(), mode: mode}
	if err := t.setup(fd, p.RS485); err != nil {
		_ = t.Close()
		return nil, err
	}
	return t, nil
}

func (t *tty) setup(fd int, half *hal.RS485Config) error {
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return inUse(t.where, "another program that locks it")
	}
	if err := ioctlInt(fd, unix.TIOCEXCL, 0); err != nil {
		return fmt.Errorf("take %s for one user: %w", t.where, err)
	}
	line := termios(t.mode)
	if err := ioctl(fd, unix.TCSETS2, unsafe.Pointer(&line)); err != nil {
		return fmt.Errorf("set %s to %d baud: %w", t.where, t.mode.Baud, err)
	}
	if half != nil {
		set := rs485{flags: rs485Enabled | rs485RTSAfterSend}
		if half.RTSOnSend {
			set.flags = rs485Enabled | rs485RTSOnSend
		}
		if err := ioctl(fd, tiocSRS485, unsafe.Pointer(&set)); err != nil {
			return fmt.Errorf("RS-485 on %s: %w: this driver cannot switch the direction", t.where, err)
		}
	}
	return ioctlInt(fd, unix.TCFLSH, unix.TCIOFLUSH)
}

// termios is a raw line with any baud rate, no flow control, and no echo.
func termios(p *hal.LineMode) unix.Termios {
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

// serialTime is how long an exchange may take when the caller sets no deadline of its own.
const serialTime = time.Second

// Do writes and reads each step; what came before a deadline is in Data beside the error.
func (t *tty) Do(ctx context.Context, ops []hal.Op) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, serialTime)
		defer cancel()
	}
	for i := range ops {
		if err := t.exchange(ctx, &ops[i]); err != nil {
			return portError(t.where, err)
		}
	}
	return nil
}

// portError is gone when the port hung up: a read at the end of a plugged-out port gives EOF.
func portError(where string, err error) error {
	if errors.Is(err, io.EOF) {
		err = unix.ENODEV
	}
	return coded(KindSerial, fmt.Errorf("%s: %w", where, err))
}

// exchange writes and then reads as many bytes as are wanted, or up to and with the byte that ends the answer.
func (t *tty) exchange(ctx context.Context, o *hal.Op) error {
	n := o.Read
	if n < 0 || n > maxRead {
		return fmt.Errorf("read of %d bytes: %w", n, unix.EMSGSIZE)
	}
	if len(o.Write) > 0 {
		if err := t.discard(); err != nil {
			return err
		}
		if err := t.write(ctx, o.Write); err != nil {
			return err
		}
	}
	if n == 0 && o.Until > 0 {
		n = maxRead
	}
	buf := make([]byte, min(n, 512))
	for len(o.Data) < n {
		k, err := t.readSome(buf[:min(len(buf), n-len(o.Data))], deadlineOf(ctx))
		o.Data = append(o.Data, buf[:k]...)
		if at := bytes.IndexByte(o.Data, byte(o.Until)); o.Until > 0 && at >= 0 {
			o.Data = o.Data[:at+1]
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
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
