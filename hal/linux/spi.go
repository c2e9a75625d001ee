package linux

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// The SPI character device (linux/spi/spidev.h). Buffers are 64-bit numbers on every machine.
const (
	spiSetMode32 = 0x40046b05
	spiSetBits   = 0x40016b03
	spiSetSpeed  = 0x40046b04
	spiGetMode32 = 0x80046b05
	spiMessage   = 0x40006b00 // + the size of the array << 16

	spiTransferSize = 32
	maxSPISegments  = 64
	spiBufSize      = 4096 // default of the module's parameter bufsiz
)

type spiTransfer struct {
	tx, rx    uint64
	length    uint32
	speed     uint32 // Hz; 0 is the device's
	delay     uint16 // µs after the transfer
	bits      uint8
	csChange  uint8
	txNBits   uint8
	rxNBits   uint8
	wordDelay uint8
	padding   uint8
}

// spiDevices lists the chip selects that the kernel gives to programs; n is the number of the chip select, and the
// names are the controller's.
func (h *host) spiDevices() []*device {
	var list []*device
	for _, name := range h.class("spidev") {
		_, cs, ok := strings.Cut(strings.TrimPrefix(name, "spidev"), ".")
		n, err := strconv.Atoi(cs)
		if !ok || err != nil {
			continue
		}
		d := new(device)
		dir := h.path("sys/class/spidev", name)
		if dev, err := resolved(filepath.Join(dir, "device")); err == nil {
			up := filepath.Dir(dev) // …/CONTROLLER/spi_master/spi0/spi0.0 or …/CONTROLLER/spi0/spi0.0
			if filepath.Base(filepath.Dir(up)) == "spi_master" {
				up = filepath.Dir(up)
			}
			d = deviceOf(up, true)
		}
		d.node, d.dir, d.n, d.name, d.label = h.dev(name), dir, n, "", ""
		list = append(list, d)
	}
	return sorted(list)
}

// findSPI is the device at that controller (device tree name or device path) and chip select, or at that node.
func (h *host) findSPI(controller, path string, cs int) (*device, error) {
	return h.find("SPI device", controller, path, h.spiDevices(), func(d *device) bool { return d.n == cs || d.node == h.under(path) })
}

// spiUnit is one chip select. The kernel keeps its settings per device, so nothing else may open the node.
type spiUnit struct {
	_       noCompare
	where   string
	fd      int
	bits    uint8  // per word
	speed   uint32 // Hz, the highest; 0 is the device's
	bufSize int
}

func (b *Board) openSPI(p *hal.SPIPart) (hal.Device, error) {
	d, err := b.findSPI(p.Controller, p.Path, p.CS)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(d.node, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: d.node, Err: err}
	}
	u := &spiUnit{where: d.String(), fd: fd, bits: uint8(cmp.Or(p.Bits, 8)), speed: uint32(p.Hz), bufSize: spiBufSize}
	if n, err := strconv.Atoi(attrOr(b.path("sys/module/spidev/parameters/bufsiz"))); err == nil && n > 0 {
		u.bufSize = n
	}
	mode := uint32(p.Mode)
	err = ioctl(fd, spiSetMode32, unsafe.Pointer(&mode))
	if err == nil {
		err = ioctl(fd, spiSetBits, unsafe.Pointer(&u.bits))
	}
	if err == nil && u.speed != 0 {
		err = ioctl(fd, spiSetSpeed, unsafe.Pointer(&u.speed))
	}
	if err != nil {
		_ = u.Close()
		return nil, fmt.Errorf("mode %d, %d bits a word, %d Hz on %s: %w", mode, u.bits, u.speed, d, err)
	}
	return u, nil
}

// Do performs the operations under one chip select. Write and Data of one length run at the same time; with different lengths the read
// follows the write.
func (u *spiUnit) Do(ctx context.Context, ops []hal.Op) error {
	err := prepare(ctx, ops)
	if err == nil {
		err = u.do(ops)
	}
	if err != nil {
		return coded(KindSPI, fmt.Errorf("%s: %w", u.where, err))
	}
	return nil
}

func (u *spiUnit) do(ops []hal.Op) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	address := func(b []byte) uint64 {
		if len(b) == 0 {
			return 0
		}
		pin.Pin(&b[0])
		return uint64(uintptr(unsafe.Pointer(&b[0])))
	}
	list := make([]spiTransfer, 0, 2*len(ops))
	total := 0
	for i := range ops {
		steps := [...][2][]byte{{ops[i].Write, nil}, {nil, ops[i].Data}}
		if len(ops[i].Write) == len(ops[i].Data) {
			steps = [...][2][]byte{{ops[i].Write, ops[i].Data}, {}}
		}
		for _, s := range steps {
			if n := max(len(s[0]), len(s[1])); n > 0 {
				total += n
				list = append(list, spiTransfer{tx: address(s[0]), rx: address(s[1]), length: uint32(n), bits: u.bits, speed: u.speed})
			}
		}
	}
	if len(list) == 0 {
		return nil
	}
	if len(list) > maxSPISegments || total > u.bufSize {
		return fmt.Errorf("%d segments of %d bytes, the device takes %d of %d: %w", len(list), total, maxSPISegments, u.bufSize, unix.EMSGSIZE)
	}
	return ioctl(u.fd, spiMessage|uint(len(list)*spiTransferSize)<<16, unsafe.Pointer(unsafe.SliceData(list)))
}

// Close lets go of the chip select.
func (u *spiUnit) Close() error { return unix.Close(u.fd) }
