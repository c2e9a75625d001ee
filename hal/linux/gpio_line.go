package linux

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lineConfig is how a line is requested: everything goes to the kernel in one call, so that an output never shows
// a level that nobody asked for.
type lineConfig struct {
	_         noCompare
	consumer  string // ≤ 31 bytes; longer ones are cut
	out       bool
	asIs      bool // neither direction: only look
	keep      bool // output: the level that the pin has now, instead of value
	value     bool // output: the first logical level
	activeLow bool
	drive     uint64        // flagsDrive or 0 for push-pull
	bias      uint64        // flagsBias or 0 for as-is
	edges     uint64        // flagsEdges or 0
	debounce  time.Duration // 1 µs resolution; 0 is none
	fifo      int           // events the kernel keeps, 1 to 1024; 0 is the kernel's 16
}

func (c *lineConfig) flags() uint64 {
	f := c.bias
	if c.activeLow {
		f |= flagActiveLow
	}
	if c.asIs {
		return f
	}
	if c.out {
		return f | flagOutput | c.drive
	}
	return f | flagInput | c.edges
}

// requestLine asks the kernel for one line of a chip.
func requestLine(c *device, l *lineInfo, cfg *lineConfig) (*lineResource, error) {
	where := whereLine(c, l)
	fd, err := openChip(c.node)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: c.node, Err: err}
	}
	defer closeFD(fd)
	own := *cfg // with the level that a kept line has
	cfg = &own
	req := gpioRequest{num: 1, fifo: uint32(min(max(cfg.fifo, 0), maxFIFO))}
	req.offsets[0] = l.offset
	copy(req.consumer[:31], cfg.consumer)
	keep := cfg.out && cfg.keep
	if !keep { // else: as it is, neither direction; SET_CONFIG follows with the level that was read
		fill(&req.config, cfg)
	} else if cfg.activeLow {
		req.config.flags = flagActiveLow
	}
	if err := ioctl(fd, gpioGetLine, unsafe.Pointer(&req)); err != nil {
		return nil, busyLine(fd, l, where, err)
	}
	lfd := int(req.fd)
	if keep {
		if cfg.value, err = getValue(lfd); err == nil {
			var set gpioConfig
			fill(&set, cfg)
			err = ioctl(lfd, gpioSetConfig, unsafe.Pointer(&set))
		}
		if err != nil {
			closeFD(lfd)
			return nil, fmt.Errorf("keep the level of %s: %w", where, err)
		}
	}
	return holdLine(c, lfd, l, cfg)
}

// prompt says that the controller is the processor's own: a platform device, but not one that asks a firmware by mail.
func promptChip(c *device) bool {
	return (strings.HasPrefix(c.parent, "platform-") || strings.HasPrefix(c.parent, "amba-")) && !strings.Contains(c.label, "exp-gpio")
}

func whereLine(c *device, l *lineInfo) string {
	if l.name != "" {
		return l.name + " of " + c.label
	}
	return "line " + strconv.Itoa(int(l.offset)) + " of " + c.label
}

func fill(set *gpioConfig, cfg *lineConfig) {
	set.flags = cfg.flags()
	if cfg.out {
		v := uint64(0)
		if cfg.value {
			v = 1
		}
		set.values(v)
		return
	}
	if cfg.debounce > 0 {
		set.debounce(uint32(min(cfg.debounce.Microseconds(), 1<<31)))
	}
}

// holdLine wraps a line's descriptor, a fresh one or one that comes back from the warden. The runtime's poller
// waits for the edges of all lines: one epoll for the whole process.
func holdLine(c *device, fd int, l *lineInfo, cfg *lineConfig) (*lineResource, error) {
	where := whereLine(c, l)
	if err := unix.SetNonblock(fd, true); err != nil {
		closeFD(fd)
		return nil, fmt.Errorf("%s: set its descriptor non-blocking: %w", where, err)
	}
	unix.CloseOnExec(fd)
	return &lineResource{file: os.NewFile(uintptr(fd), where), where: where, prompt: promptChip(c), out: cfg.out, edges: cfg.edges}, nil
}

func busyLine(fd int, l *lineInfo, where string, err error) error {
	if !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("request %s: %w", where, err)
	}
	holder := "an unnamed consumer"
	if now, infoErr := lineAt(fd, l.offset); infoErr == nil && now.consumer != "" {
		holder = now.consumer
	}
	return inUse(where, holder)
}

// differs reports what of a line that came back from the warden differs from how it would be requested now;
// "" when nothing does.
func (l *lineInfo) differs(cfg *lineConfig) string {
	const mask = flagActiveLow | flagInput | flagOutput | flagsEdges | flagsBias | flagsDrive
	if !l.used() {
		return "not requested"
	}
	if got, want := l.flags&mask, cfg.flags()&mask; got != want {
		return fmt.Sprintf("flags %#x instead of %#x", got, want)
	}
	if want := uint32(cfg.debounce.Microseconds()); !cfg.out && l.debounce != want {
		return fmt.Sprintf("debounce %d µs instead of %d", l.debounce, want)
	}
	return ""
}

// monotonic is the kernel's CLOCK_MONOTONIC in ns, the clock of the edges.
func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return ts.Nano()
}
