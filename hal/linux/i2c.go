package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// adapters lists the board's I2C buses; n is the kernel's number.
func (h host) adapters() []*device {
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
func (h host) findAdapter(name, path string) (*device, error) {
	return h.find("I2C adapter", name, path, h.adapters(), nil)
}

// i2cBus is an open adapter.
type i2cBus struct {
	_  apart
	mu sync.Mutex // one transfer at a time: an SMBus call is two system calls on one descriptor
	*device
	h     host
	fd    int
	funcs uint32
}

func (h host) openI2C(a *device) (*i2cBus, error) {
	fd, err := unix.Open(a.node, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: a.node, Err: err}
	}
	b := &i2cBus{device: a, h: h, fd: fd}
	var funcs uintptr // unsigned long
	if err := ioctl(fd, i2cFuncs, unsafe.Pointer(&funcs)); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("ask %s for its functions: %w", a, err)
	}
	b.funcs = uint32(funcs)
	return b, nil
}

// setTimeout sets how long the adapter's driver waits, for every user of the adapter; the kernel rounds to 10 ms.
func (b *i2cBus) setTimeout(d time.Duration) error {
	units := max((d+9*time.Millisecond)/(10*time.Millisecond), 1)
	if err := ioctlInt(b.fd, i2cTimeout, uintptr(units)); err != nil {
		return fmt.Errorf("set the time-out of %s: %w", b, err)
	}
	return nil
}

// boundDriver is the kernel driver that owns an address, "" when none does. RDWR itself checks nothing.
func (b *i2cBus) boundDriver(addr uint16) string {
	return driver(b.h.path("sys/bus/i2c/devices", fmt.Sprintf("%d-%04x", b.n, addr)))
}

// free refuses an address that a kernel driver owns, naming the driver and what it offers instead.
func (b *i2cBus) free(addr uint16) error {
	d := b.boundDriver(addr)
	if d == "" {
		return nil
	}
	return inUse(fmt.Sprintf("address %#02x on %s", addr, b), "driver "+d)
}

// do performs the pieces as one transfer: with I2C_RDWR nothing comes between them, with an SMBus-only adapter
// each piece is one transaction.
func (b *i2cBus) do(addr uint16, pieces []piece) error {
	if b.funcs&funcI2C == 0 {
		return b.smbus(addr, pieces)
	}
	msgs := make([]i2cMessage, 0, 2*len(pieces))
	for _, p := range pieces {
		if len(p.w) > maxI2CLength || len(p.r) > maxI2CLength {
			return fmt.Errorf("%d bytes in one message, the kernel takes %d: %w", max(len(p.w), len(p.r)), maxI2CLength, unix.EMSGSIZE)
		}
		if len(p.w) > 0 {
			msgs = append(msgs, i2cMessage{addr: addr, length: uint16(len(p.w)), buf: unsafe.Pointer(unsafe.SliceData(p.w))})
		}
		if len(p.r) > 0 {
			msgs = append(msgs, i2cMessage{addr: addr, flags: msgRead, length: uint16(len(p.r)), buf: unsafe.Pointer(unsafe.SliceData(p.r))})
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

func (b *i2cBus) smbus(addr uint16, pieces []piece) error {
	calls := make([]call, len(pieces))
	for i, p := range pieces { // all shapes first: no half-done transfer
		c, err := smbusCall(b.funcs, p)
		if err != nil {
			return fmt.Errorf("write of %d and read of %d bytes on %s: %w", len(p.w), len(p.r), b, err)
		}
		calls[i] = c
	}
	// Never I2C_SLAVE_FORCE: a bound driver answers EBUSY here.
	if err := ioctlInt(b.fd, i2cSlave, uintptr(addr)); err != nil {
		if errors.Is(err, unix.EBUSY) {
			if busy := b.free(addr); busy != nil {
				return busy
			}
		}
		return fmt.Errorf("take address %#02x on %s: %w", addr, b, err)
	}
	for _, c := range calls {
		if err := b.smbusOne(c); err != nil {
			return err
		}
	}
	return nil
}

func (b *i2cBus) smbusOne(c call) error {
	var data smbusData
	t := smbusTransfer{command: c.command, size: c.size, readWrite: smbusRead, data: unsafe.Pointer(&data)}
	payload := data[:]
	if c.size == smbusI2CBlock {
		data[0] = byte(len(c.data))
		payload = data[1:]
	}
	if c.write {
		t.readWrite = smbusWrite
		copy(payload, c.data)
		if c.size == smbusWordData { // the kernel's word is in its own byte order, the wire's is low byte first
			putWord(payload, c.data)
		}
	}
	if err := ioctl(b.fd, i2cSMBus, unsafe.Pointer(&t)); err != nil {
		return err
	}
	if c.write {
		return nil
	}
	switch c.size {
	case smbusWordData:
		getWord(c.data, payload)
	case smbusI2CBlock:
		if int(data[0]) < len(c.data) {
			return fmt.Errorf("block of %d bytes instead of %d: %w", data[0], len(c.data), unix.EIO)
		}
		copy(c.data, payload)
	default:
		copy(c.data, payload)
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
