package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// adapters lists the board's I2C buses; n is the kernel's number.
func (h *host) adapters() []*device {
	var list []*device
	for _, name := range h.class("i2c-dev") {
		n, err := strconv.Atoi(strings.TrimPrefix(name, "i2c-"))
		if err != nil {
			continue
		}
		// The class device hangs from the adapter, and the adapter from its controller.
		dir := h.path("sys/class/i2c-dev", name)
		d := deviceOf(filepath.Join(dir, "device"), true)
		d.node, d.dir, d.name, d.n = h.dev(name), dir, attrOr(dir, "name"), n
		list = append(list, d)
	}
	return sorted(list)
}

// findAdapter is the bus with that name: the driver's, the device tree's, or the one in parentheses of the driver's.
func (h *host) findAdapter(name, path string) (*device, error) {
	return h.find("I2C adapter", name, path, h.adapters(), nil)
}

// i2cBus is an open adapter.
type i2cBus struct {
	_     noCompare
	mu    sync.Mutex // one transfer at a time: an SMBus call is two system calls on one descriptor
	at    *device
	h     *host
	fd    int
	funcs uint32
}

// openI2C opens an adapter; a timeout above 0 is how long its driver waits, for every user of the adapter: the kernel rounds to 10 ms.
func (h *host) openI2C(a *device, timeout time.Duration) (*i2cBus, error) {
	fd, err := unix.Open(a.node, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: a.node, Err: err}
	}
	b := &i2cBus{at: a, h: h, fd: fd}
	var funcs uintptr // unsigned long
	err = ioctl(fd, i2cFuncs, unsafe.Pointer(&funcs))
	if err == nil && timeout > 0 {
		err = ioctlInt(fd, i2cTimeout, uintptr(max((timeout+9*time.Millisecond)/(10*time.Millisecond), 1)))
	}
	if err != nil {
		closeFD(fd)
		return nil, fmt.Errorf("set %s up: %w", a, err)
	}
	b.funcs = uint32(funcs)
	return b, nil
}

// free refuses an address that a kernel driver owns, naming the driver: RDWR itself checks nothing.
func (b *i2cBus) free(addr uint16) error {
	d := driver(b.h.path("sys/bus/i2c/devices", fmt.Sprintf("%d-%04x", b.at.n, addr)))
	if d == "" {
		return nil
	}
	return inUse(fmt.Sprintf("address %#02x on %s", addr, b.at), "driver "+d)
}

// do performs the operations as one transfer, each a write, a read into its Data, or both with a repeated start between: with I2C_RDWR nothing
// comes between them, with an SMBus-only adapter each is one transaction.
func (b *i2cBus) do(addr uint16, ops []hal.Op) error {
	if b.funcs&funcI2C == 0 {
		return b.smbus(addr, ops)
	}
	msgs := make([]i2cMessage, 0, 2*len(ops))
	for i := range ops {
		for flags, buf := range [...][]byte{ops[i].Write, msgRead: ops[i].Data} { // a flag of 0 is a write
			if len(buf) > maxI2CLength {
				return fmt.Errorf("%d bytes in one message, the kernel takes %d: %w", len(buf), maxI2CLength, unix.EMSGSIZE)
			}
			if len(buf) > 0 {
				msgs = append(msgs, i2cMessage{addr: addr, flags: uint16(flags), length: uint16(len(buf)), buf: unsafe.Pointer(unsafe.SliceData(buf))})
			}
		}
	}
	if len(msgs) == 0 {
		return nil
	}
	if len(msgs) > maxI2CMessages {
		return fmt.Errorf("%d messages in one transfer, the kernel takes %d: %w", len(msgs), maxI2CMessages, unix.EMSGSIZE)
	}
	t := i2cTransfer{messages: unsafe.Pointer(unsafe.SliceData(msgs)), count: uint32(len(msgs))}
	return ioctl(b.fd, i2cRDWR, unsafe.Pointer(&t))
}

func (b *i2cBus) smbus(addr uint16, ops []hal.Op) error {
	for i := range ops { // all shapes first: no half-done transfer
		if w, r := len(ops[i].Write), len(ops[i].Data); smbusSize(b.funcs, w, r) == smbusNone {
			return fmt.Errorf("write of %d and read of %d bytes on %s: %w", w, r, b.at, errShape)
		}
	}
	// Never I2C_SLAVE_FORCE: a bound driver answers EBUSY here.
	if err := ioctlInt(b.fd, i2cSlave, uintptr(addr)); err != nil {
		return fmt.Errorf("take address %#02x on %s: %w", addr, b.at, err)
	}
	for i := range ops {
		if err := b.smbusOne(ops[i].Write, ops[i].Data); err != nil {
			return err
		}
	}
	return nil
}

// smbusOne writes w, or reads r at the command that w is.
func (b *i2cBus) smbusOne(w, r []byte) error {
	var data smbusData
	t := smbusTransfer{size: smbusSize(b.funcs, len(w), len(r)), readWrite: smbusRead, data: unsafe.Pointer(&data)}
	if len(w) > 0 {
		t.command, w = w[0], w[1:]
	}
	payload := data[:]
	if t.size == smbusI2CBlock {
		data[0] = byte(max(len(w), len(r)))
		payload = data[1:]
	}
	copy(payload, w)
	if len(r) == 0 {
		t.readWrite = smbusWrite
		if t.size == smbusWordData { // the kernel's word is in its own byte order, the wire's is low byte first
			putWord(payload, w)
		}
	}
	if err := ioctl(b.fd, i2cSMBus, unsafe.Pointer(&t)); err != nil {
		return err
	}
	switch {
	case len(r) == 0:
	case t.size == smbusWordData:
		getWord(r, payload)
	case t.size == smbusI2CBlock && int(data[0]) < len(r):
		return fmt.Errorf("block of %d bytes instead of %d: %w", data[0], len(r), unix.EIO)
	default:
		copy(r, payload)
	}
	return nil
}

// probe asks an address whether a chip answers: a read byte where a write could do harm (EEPROMs, protection
// chips) or the adapter cannot do a quick write, else the quick write that moves no data.
func (b *i2cBus) probe(addr uint16) (bool, error) {
	if err := b.free(addr); err != nil {
		return false, err
	}
	if err := ioctlInt(b.fd, i2cSlave, uintptr(addr)); err != nil {
		return false, err
	}
	var data smbusData
	t := smbusTransfer{readWrite: smbusWrite, size: smbusQuick}
	if b.funcs&funcQuick == 0 || addr >= 0x30 && addr <= 0x37 || addr >= 0x50 && addr <= 0x5f {
		if b.funcs&funcReadByte == 0 {
			return false, errShape
		}
		t = smbusTransfer{readWrite: smbusRead, size: smbusByte, data: unsafe.Pointer(&data)}
	}
	err := ioctl(b.fd, i2cSMBus, unsafe.Pointer(&t))
	if isNAK(err) {
		return false, nil
	}
	return err == nil, err
}

// isNAK reports an address or byte that no chip acknowledged: each adapter driver has its own number for it.
func isNAK(err error) bool {
	return errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EREMOTEIO) || errors.Is(err, unix.EIO) || errors.Is(err, unix.ENODEV)
}

func (b *i2cBus) Close() error { return unix.Close(b.fd) }

type i2cDevice struct {
	_     noCompare
	share *share
	addr  uint16
}

// busOf is the adapter behind a share of one.
func busOf(s *share) *i2cBus { return s.it().(*i2cBus) }

// shareI2C takes a share of the adapter, on which no driver of the kernel has the address.
func (b *Board) shareI2C(p *hal.I2CPart) (*share, error) {
	a, err := b.findAdapter(p.Adapter, p.Path)
	if err != nil {
		return nil, err
	}
	s, err := b.i2cs.get(a.node, "", func() (io.Closer, error) { return b.openI2C(a, p.Timeout) })
	if err != nil {
		return nil, err
	}
	if err := busOf(s).free(uint16(p.Addr)); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func (b *Board) openI2CDevice(p *hal.I2CPart) (hal.Device, error) {
	if p.Addr < 0x08 || p.Addr > 0x77 {
		return nil, fmt.Errorf("address %#02x: want 0x08 to 0x77: %w", p.Addr, unix.ERANGE)
	}
	s, err := b.shareI2C(p)
	if err != nil {
		return nil, err
	}
	return &i2cDevice{share: s, addr: uint16(p.Addr)}, nil
}

func (d *i2cDevice) Do(ctx context.Context, ops []hal.Op) error {
	if err := prepare(ctx, ops); err != nil {
		return coded(KindI2C, err)
	}
	return i2cError(d.share, d.addr, busOf(d.share).guarded(d.addr, ops))
}

// guarded is do unless a driver of the kernel has come for the address meanwhile.
func (b *i2cBus) guarded(addr uint16, ops []hal.Op) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.free(addr); err != nil {
		return err
	}
	return b.do(addr, ops)
}

// i2cError tells a chip that does not answer from an adapter that is gone: some drivers say ENODEV for both.
func i2cError(s *share, addr uint16, err error) error {
	if err == nil {
		return nil
	}
	bus := busOf(s)
	err = fmt.Errorf("address %#02x on %s: %w", addr, bus.at, err)
	if !errors.Is(err, unix.ENODEV) {
		return coded(KindI2C, err)
	}
	if exists(bus.h.path("sys/class/i2c-dev", baseName(bus.at.node))) {
		return &Error{Code: CodeNACK, Err: err}
	}
	s.forget()
	return &Error{Code: CodeGone, Err: err}
}

func (d *i2cDevice) Close() error { return d.share.Close() }
