package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// lineResource is a requested line as the contract has it.
type lineResource struct {
	b    *Backend
	req  *requested
	gone atomic.Bool
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
	edgeWords  = []flagWord{{"", 0}, {"rising", flagEdgeRising}, {"falling", flagEdgeFalling}, {"both", flagsEdges}}
)

func (r Resource) lineConfig() (cfg lineConfig, err error) {
	w := r.Wiring
	who := r.Who
	if who == "" {
		who = r.Name
	}
	cfg = lineConfig{consumer: short("sp:" + who), out: w.Out, keep: w.Keep, value: r.Safe != 0, activeLow: w.ActiveLow, debounce: w.Debounce, fifo: w.Buffer}
	if cfg.drive, err = word("drive", w.Drive, driveWords); err != nil {
		return cfg, err
	}
	if cfg.bias, err = word("bias", w.Bias, biasWords); err != nil {
		return cfg, err
	}
	cfg.edges, err = word("edges", w.Edges, edgeWords)
	return cfg, err
}

func (b *Backend) findLine(r Resource) (chip, lineInfo, error) {
	c, err := b.findChip(r.Match.Chip, r.Match.Path)
	if err != nil {
		return c, lineInfo{}, err
	}
	l, err := c.findLine(r.Match.Line, r.Match.Offset)
	return c, l, err
}

func (b *Backend) openLine(r Resource) (*lineResource, error) {
	cfg, err := r.lineConfig()
	if err != nil {
		return nil, err
	}
	c, l, err := b.findLine(r)
	if err != nil {
		return nil, err
	}
	req, err := c.requestLine(l, cfg)
	if err != nil {
		return nil, err
	}
	return b.keepLine(req), nil
}

func (b *Backend) keepLine(req *requested) *lineResource {
	l := &lineResource{b: b, req: req}
	b.mu.Lock()
	b.lines[l] = struct{}{}
	b.mu.Unlock()
	return l
}

// Adopt takes a line back whose descriptor was kept elsewhere: nothing reaches the pin. It refuses, and closes the
// descriptor, when the kernel's line is not wired as the resource is now; the caller makes it safe before that.
func (b *Backend) Adopt(r Resource, fd int) (Line, error) {
	l, err := b.adopt(r, fd)
	if err != nil {
		return nil, coded(r.Kind, errors.Join(fmt.Errorf("adopt %s: %w", r.Name, err), unix.Close(fd)))
	}
	return l, nil
}

func (b *Backend) adopt(r Resource, fd int) (*lineResource, error) {
	if r.Kind != KindLine {
		return nil, fmt.Errorf("kind %q: %w", r.Kind, errors.ErrUnsupported)
	}
	cfg, err := r.lineConfig()
	if err != nil {
		return nil, err
	}
	c, l, err := b.findLine(r)
	if err != nil {
		return nil, err
	}
	if err := sameLine(fd, c, l, cfg.consumer); err != nil {
		return nil, err
	}
	if d := l.differs(cfg); d != "" {
		return nil, &busyError{what: c.where(l), holder: "the agent before, wired otherwise: " + d, err: unix.EBUSY}
	}
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	req, err := holdLine(copied, c.where(l), l.offset, cfg)
	if err != nil {
		return nil, err
	}
	_ = unix.Close(fd)
	req.prompt = c.prompt()
	return b.keepLine(req), nil
}

// sameLine asks the kernel whether a descriptor is a request for this line: /proc names chip and lines of it.
func sameLine(fd int, c chip, l lineInfo, consumer string) error {
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return err
	}
	name, line, ok := fdinfoLine(string(info))
	if !ok { // older kernels do not tell; that the line is in use under our label has to do
		if l.used() && l.consumer == consumer {
			return nil
		}
		return fmt.Errorf("%s is not requested: %w", c.where(l), unix.ENODEV)
	}
	if name != baseName(c.node) || line != l.offset {
		return fmt.Errorf("descriptor of line %d of %s for %s: %w", line, name, c.where(l), unix.EBADF)
	}
	return nil
}

func (l *lineResource) fail(err error) error {
	if l.gone.Load() && errors.Is(err, os.ErrClosed) {
		err = fmt.Errorf("%s was plugged out: %w", l.req.where, unix.ENODEV)
	}
	return coded(KindLine, err)
}

func (l *lineResource) Get(context.Context) (bool, error) {
	on, err := l.req.get()
	return on, l.fail(err)
}

func (l *lineResource) Set(_ context.Context, on bool) error {
	if !l.req.config.out {
		return coded(KindLine, fmt.Errorf("%s is an input: %w", l.req.where, os.ErrPermission))
	}
	return l.fail(l.req.set(on))
}

// Edges gives the line's one reader: the events are of the request, whoever reads them.
func (l *lineResource) Edges(context.Context) (EdgeReader, error) {
	if l.req.config.edges == 0 {
		return nil, coded(KindLine, fmt.Errorf("edges of %s: the owner configured none: %w", l.req.where, errors.ErrUnsupported))
	}
	if err := l.req.file.SetReadDeadline(time.Time{}); err != nil { // after an earlier reader's Close
		return nil, l.fail(err)
	}
	return &lineEdges{line: l, reader: edgeReader{file: l.req.file}}, nil
}

// FD is what a keeper needs to hold the line and to make it safe.
func (l *lineResource) FD(safe float64) (int, hal.SafeAction, error) {
	s := hal.SafeAction{Set: true, Mask: 1}
	if safe != 0 {
		s.Bits = 1
	}
	if !l.req.config.out {
		s = hal.SafeAction{} // an input is kept for its events and has nothing to make safe
	}
	fd, err := l.req.fd()
	return fd, s, l.fail(err)
}

// Close releases the line: what the pin does then is the controller's choice.
func (l *lineResource) Close() error {
	l.b.mu.Lock()
	delete(l.b.lines, l)
	l.b.mu.Unlock()
	if err := l.req.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

type lineEdges struct {
	line   *lineResource
	reader edgeReader
	raw    [edgeBatch]edge
}

func (e *lineEdges) Read(out []Edge) (int, error) {
	n, err := e.reader.read(e.raw[:min(len(out), edgeBatch)])
	for i, r := range e.raw[:n] {
		out[i] = Edge{Mono: r.mono, Seq: r.seq, Rising: r.rising}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, os.ErrClosed
	}
	return n, e.line.fail(err)
}

// Close makes a waiting Read end; the line stays requested.
func (e *lineEdges) Close() error { return e.line.req.file.SetReadDeadline(pastTime) }
