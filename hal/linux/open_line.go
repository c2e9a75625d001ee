package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// lineResource is a requested line: the request lives as long as its descriptor or any copy of it.
type lineResource struct {
	_       noCompare
	b       *Board // that closes it when its chip is plugged out; nil = nobody does
	file    *os.File
	where   string // "GPIO17 of pinctrl-bcm2711": for messages
	out     bool
	edges   uint64 // those that the kernel tells
	prompt  bool   // its calls wait for nothing
	gone    atomic.Bool
	reading atomic.Bool // somebody has its edges
}

// flagWord is one word of the configuration and its bits.
type flagWord struct {
	word string
	bits uint64
}

func word(what, s string, words []flagWord) (uint64, error) {
	for _, w := range words {
		if w.word == s {
			return w.bits, nil
		}
	}
	return 0, fmt.Errorf("%s %q: %w", what, clip(s), errors.ErrUnsupported)
}

var (
	driveWords = []flagWord{{"", 0}, {"push-pull", 0}, {"open-drain", flagOpenDrain}, {"open-source", flagOpenSource}}
	biasWords  = []flagWord{{"", 0}, {"as-is", 0}, {"disabled", flagBiasDisabled}, {"pull-up", flagBiasPullUp}, {"pull-down", flagBiasPullDown}}
	edgeWords  = []flagWord{{"", flagsEdges}, {"rising", flagEdgeRising}, {"falling", flagEdgeFalling}, {"both", flagsEdges}}
)

func lineConfigOf(r *hal.Resource) (cfg *lineConfig, err error) {
	p := r.Line
	who := p.Consumer
	if who == "" {
		who = ":" + r.Name
	}
	cfg = &lineConfig{consumer: short("sp:" + strings.TrimPrefix(who, "sp:")), out: p.Direction == hal.Out, keep: p.Initial == "keep", value: r.Safe != nil && *r.Safe != 0,
		activeLow: p.ActiveLow, debounce: time.Duration(p.Debounce), fifo: p.Buffer}
	if cfg.drive, err = word("drive", p.Drive, driveWords); err != nil {
		return cfg, err
	}
	if cfg.bias, err = word("bias", p.Bias, biasWords); err != nil || cfg.out {
		return cfg, err
	}
	cfg.edges, err = word("edges", p.Edges, edgeWords)
	return cfg, err
}

func (b *Board) findLine(p *hal.LinePart) (*device, *lineInfo, error) {
	c, err := b.findChip(p.Chip, p.Path)
	if err != nil {
		return c, nil, err
	}
	l, err := findLine(c, p.Line, p.Offset)
	return c, l, err
}

func (b *Board) openLine(r *hal.Resource) (hal.Device, error) {
	cfg, err := lineConfigOf(r)
	if err != nil {
		return nil, err
	}
	c, l, err := b.findLine(r.Line)
	if err != nil {
		return nil, err
	}
	own, err := requestLine(c, l, cfg)
	if err != nil {
		return nil, err
	}
	b.watch(own)
	return own, nil
}

// watch has the board close a line when its chip is plugged out.
func (b *Board) watch(l *lineResource) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l.b = b
	b.lines[l] = struct{}{}
}

// adopt takes a line back whose descriptor was kept elsewhere: nothing reaches the pin. It refuses when the kernel's line is not wired as
// the resource is now; the descriptor is the caller's then.
func (b *Board) adopt(r *hal.Resource, fd int) (*lineResource, error) {
	cfg, err := lineConfigOf(r)
	if err != nil {
		return nil, err
	}
	c, l, err := b.findLine(r.Line)
	if err != nil {
		return nil, err
	}
	if err := sameLine(fd, c, l, cfg.consumer); err != nil {
		return nil, err
	}
	if d := l.differs(cfg); d != "" {
		return nil, inUse(whereLine(c, l), "the agent before, wired otherwise: "+d)
	}
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	own, err := holdLine(c, copied, l, cfg)
	if err != nil {
		return nil, err
	}
	closeFD(fd)
	b.watch(own)
	return own, nil
}

// sameLine asks the kernel whether a descriptor is a request for this line: /proc names chip and lines of it.
func sameLine(fd int, c *device, l *lineInfo, consumer string) error {
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return err
	}
	name, line, ok := fdinfoLine(string(info))
	if !ok { // older kernels do not tell; that the line is in use under our label has to do
		if l.used() && l.consumer == consumer {
			return nil
		}
		return fmt.Errorf("%s is not requested: %w", whereLine(c, l), unix.ENODEV)
	}
	if name != baseName(c.node) || line != l.offset {
		return fmt.Errorf("descriptor of line %d of %s for %s: %w", line, name, whereLine(c, l), unix.EBADF)
	}
	return nil
}

func (l *lineResource) fail(err error) error {
	if l.gone.Load() && errors.Is(err, os.ErrClosed) {
		err = fmt.Errorf("%s was plugged out: %w", l.where, unix.ENODEV)
	}
	return coded(KindLine, err)
}

// Get reads the level; of an output too, which changes nothing.
func (l *lineResource) Get(context.Context) (bool, error) {
	on, err := l.get()
	return on, l.fail(err)
}

func (l *lineResource) get() (on bool, err error) {
	err = onFD(l.file, func(fd int) error {
		on, err = getValue(fd)
		return err
	})
	return on, err
}

// Set drives an output.
func (l *lineResource) Set(_ context.Context, on bool) error {
	if !l.out {
		return coded(KindLine, fmt.Errorf("%s is an input: %w", l.where, os.ErrPermission))
	}
	return l.fail(onFD(l.file, func(fd int) error { return setValue(fd, on) }))
}

// Prompt is true of a controller in the processor's own memory; one behind I2C, SPI or USB makes its callers wait.
func (l *lineResource) Prompt() bool { return l.prompt }

// FD is what a keeper needs to hold the line and to make it safe.
func (l *lineResource) FD(safe float64) (int, hal.SafeAction) {
	s := hal.SafeAction{Set: true, Mask: 1}
	if safe != 0 {
		s.Bits = 1
	}
	if !l.out {
		s = hal.SafeAction{} // an input is kept for its events and has nothing to make safe
	}
	fd, err := fdOf(l.file)
	if err != nil {
		return -1, hal.SafeAction{}
	}
	return fd, s
}

// Close releases the line: what the pin does then is the controller's choice.
func (l *lineResource) Close() error {
	if l.b != nil {
		l.b.mu.Lock()
		delete(l.b.lines, l)
		l.b.mu.Unlock()
	}
	if err := l.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
