package linux

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
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
func (h host) spiDevices() []*device {
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
func (h host) findSPI(controller, path string, cs int) (*device, error) {
	return h.find("SPI device", controller, path, h.spiDevices(), func(d *device) bool { return d.n == cs || d.node == h.under(path) })
}

// spiConfig is how a device is talked to. The kernel keeps it per device, so nothing else may open the node.
type spiConfig struct {
	_     apart
	mode  uint32 // SPI_CPHA 1, SPI_CPOL 2, SPI_CS_HIGH 4, SPI_LSB_FIRST 8, SPI_3WIRE 16, SPI_NO_CS 64
	bits  uint8  // per word; 0 is 8
	speed uint32 // Hz, the highest
}

type spiPort struct {
	*device
	fd      int
	cfg     spiConfig
	bufSize int
}

func (h host) openSPI(d *device, cfg spiConfig) (*spiPort, error) {
	fd, err := unix.Open(d.node, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: d.node, Err: err}
	}
	if cfg.bits == 0 {
		cfg.bits = 8
	}
	p := &spiPort{device: d, fd: fd, cfg: cfg, bufSize: spiBufSize}
	if n, err := strconv.Atoi(attrOr(h.path("sys/module/spidev/parameters/bufsiz"))); err == nil && n > 0 {
		p.bufSize = n
	}
	if err := p.configure(); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return p, nil
}

func (p *spiPort) configure() error {
	if err := ioctl(p.fd, spiSetMode32, unsafe.Pointer(&p.cfg.mode)); err != nil {
		return fmt.Errorf("mode %#x of %s: %w", p.cfg.mode, p, err)
	}
	if err := ioctl(p.fd, spiSetBits, unsafe.Pointer(&p.cfg.bits)); err != nil {
		return fmt.Errorf("%d bits a word on %s: %w", p.cfg.bits, p, err)
	}
	if p.cfg.speed == 0 {
		return nil
	}
	if err := ioctl(p.fd, spiSetSpeed, unsafe.Pointer(&p.cfg.speed)); err != nil {
		return fmt.Errorf("%d Hz on %s: %w", p.cfg.speed, p, err)
	}
	return nil
}

// do performs the pieces under one chip select. In a piece with both, w and r of one length run at the same time;
// with different lengths the read follows the write.
func (p *spiPort) do(pieces []piece) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	list := make([]spiTransfer, 0, 2*len(pieces))
	total := 0
	add := func(w, r []byte) {
		t := spiTransfer{length: uint32(max(len(w), len(r))), bits: p.cfg.bits, speed: p.cfg.speed}
		if len(w) > 0 {
			pin.Pin(&w[0])
			t.tx = uint64(uintptr(unsafe.Pointer(&w[0])))
		}
		if len(r) > 0 {
			pin.Pin(&r[0])
			t.rx = uint64(uintptr(unsafe.Pointer(&r[0])))
		}
		total += int(t.length)
		list = append(list, t)
	}
	for _, s := range pieces {
		switch {
		case len(s.w) == len(s.r) && len(s.w) > 0:
			add(s.w, s.r)
		default:
			if len(s.w) > 0 {
				add(s.w, nil)
			}
			if len(s.r) > 0 {
				add(nil, s.r)
			}
		}
	}
	if len(list) == 0 {
		return nil
	}
	if len(list) > maxSPISegments || total > p.bufSize {
		return fmt.Errorf("%d segments of %d bytes, the device takes %d of %d: %w", len(list), total, maxSPISegments, p.bufSize, unix.EMSGSIZE)
	}
	return ioctl(p.fd, spiMessage|uint(len(list)*spiTransferSize)<<16, unsafe.Pointer(unsafe.SliceData(list)))
}

func (p *spiPort) Close() error { return unix.Close(p.fd) }
