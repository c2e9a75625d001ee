package linux

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The character device of GPIO lines, version 2 (linux/gpio.h, since Linux 5.10). The layouts are the same on
// 32 and 64 bits: the kernel's 64-bit members are aligned by explicit padding. Tests assert the sizes.

const (
	gpioGetChipInfo = 0x8044b401
	gpioGetLineInfo = 0xc100b405
	gpioGetLine     = 0xc250b407
	gpioSetConfig   = 0xc110b40d
	gpioGetValues   = 0xc010b40e
	gpioSetValues   = 0xc010b40f
)

// Flags of a line.
const (
	flagUsed         = 1 << 0
	flagActiveLow    = 1 << 1
	flagInput        = 1 << 2
	flagOutput       = 1 << 3
	flagEdgeRising   = 1 << 4
	flagEdgeFalling  = 1 << 5
	flagOpenDrain    = 1 << 6
	flagOpenSource   = 1 << 7
	flagBiasPullUp   = 1 << 8
	flagBiasPullDown = 1 << 9
	flagBiasDisabled = 1 << 10

	flagsEdges = flagEdgeRising | flagEdgeFalling
	flagsBias  = flagBiasPullUp | flagBiasPullDown | flagBiasDisabled
	flagsDrive = flagOpenDrain | flagOpenSource
)

// Attributes of a request.
const (
	attrFlags    = 1
	attrValues   = 2
	attrDebounce = 3
)

const maxFIFO = 1024 // the kernel's cap of events per request

type gpioChipInfo struct {
	name  [32]byte
	label [32]byte
	lines uint32
}

// gpioAttr has one union: flags, values, or the debounce period in µs in its first four bytes.
type gpioAttr struct {
	id    uint32
	_     uint32
	union [8]byte
}

type gpioConfigAttr struct {
	attr gpioAttr
	mask uint64
}

type gpioConfig struct {
	flags uint64
	num   uint32
	_     [5]uint32
	attrs [10]gpioConfigAttr
}

type gpioRequest struct {
	offsets  [64]uint32
	consumer [32]byte
	config   gpioConfig
	num      uint32
	fifo     uint32
	_        [5]uint32
	fd       int32
}

type gpioLineInfo struct {
	name     [32]byte
	consumer [32]byte
	offset   uint32
	num      uint32
	flags    uint64
	attrs    [10]gpioAttr
	_        [4]uint32
}

type gpioValues struct{ bits, mask uint64 }

type gpioEvent struct {
	time    int64  // ns, CLOCK_MONOTONIC
	id      uint32 // 1 rising, 2 falling
	_       uint32 // offset
	_       uint32 // sequence of the request
	lineSeq uint32
	_       [6]uint32
}

const (
	gpioEventSize = 48
	edgeRising    = 1
	edgeFalling   = 2
)

func (c *gpioConfig) values(v uint64) {
	a := &c.attrs[c.num]
	a.attr.id, a.mask = attrValues, 1
	*(*uint64)(unsafe.Pointer(&a.attr.union)) = v
	c.num++
}

func (c *gpioConfig) debounce(us uint32) {
	a := &c.attrs[c.num]
	a.attr.id, a.mask = attrDebounce, 1
	*(*uint32)(unsafe.Pointer(&a.attr.union)) = us
	c.num++
}

func (i *gpioLineInfo) debounce() uint32 {
	for _, a := range i.attrs[:min(int(i.num), len(i.attrs))] {
		if a.id == attrDebounce {
			return *(*uint32)(unsafe.Pointer(&a.union))
		}
	}
	return 0
}

func getLineInfo(fd int, offset uint32) (gpioLineInfo, error) {
	info := gpioLineInfo{offset: offset}
	err := ioctl(fd, gpioGetLineInfo, unsafe.Pointer(&info))
	return info, err
}

func getChipInfo(fd int) (gpioChipInfo, error) {
	var info gpioChipInfo
	err := ioctl(fd, gpioGetChipInfo, unsafe.Pointer(&info))
	return info, err
}

func getValue(fd int) (bool, error) {
	v := gpioValues{mask: 1}
	err := ioctl(fd, gpioGetValues, unsafe.Pointer(&v))
	return v.bits&1 != 0, err
}

func setValue(fd int, on bool) error {
	v := gpioValues{mask: 1}
	if on {
		v.bits = 1
	}
	return ioctl(fd, gpioSetValues, unsafe.Pointer(&v))
}

// closeFD closes what was only asked: nothing can be done about an error, and nothing was written.
func closeFD(fd int) { _ = unix.Close(fd) }

// openChip opens a chip's node only for as long as lines are looked up and requested.
func openChip(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}
