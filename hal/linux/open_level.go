package linux

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// levelResource is a PWM channel or an LED.
type levelResource struct {
	kind Kind
	dev  interface {
		io.Closer
		get() (float64, error)
		set(float64) error
	}
	file *os.File // what the safe bytes are written to
	safe func(float64) []byte
}

func (l *levelResource) Get(context.Context) (float64, error) {
	v, err := l.dev.get()
	return v, coded(l.kind, err)
}

func (l *levelResource) Set(_ context.Context, v float64) error { return coded(l.kind, l.dev.set(v)) }
func (l *levelResource) Close() error                           { return l.dev.Close() }

// FD is what a keeper needs to hold the output and to make it safe.
func (l *levelResource) FD(safe float64) (int, hal.SafeAction, error) {
	fd, err := fdOf(l.file)
	return fd, hal.SafeAction{Bytes: l.safe(safe)}, err
}

func (b *Backend) openPWM(r Resource) (*levelResource, error) {
	c, err := b.findPWM(r.Match.Chip, r.Match.Path)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(r.Match.Channel)
	if err != nil {
		return nil, fmt.Errorf("channel %q of %s: want a number: %w", clip(r.Match.Channel), c, unix.EINVAL)
	}
	p, err := c.openPWM(n, r.Wiring.Period, r.Wiring.ActiveLow)
	if err != nil {
		return nil, err
	}
	return (&levelResource{kind: KindPWM, dev: p, file: p.duty, safe: p.dutyBytes}).begin(r)
}

func (b *Backend) openLight(r Resource) (*levelResource, error) {
	l, err := b.openLED(r.Match.Channel)
	if err != nil {
		return nil, err
	}
	return (&levelResource{kind: KindLED, dev: l, file: l.file, safe: l.bytes}).begin(r)
}

// begin makes a fresh output safe unless its owner wants it as it is.
func (l *levelResource) begin(r Resource) (*levelResource, error) {
	if r.Wiring.Keep {
		return l, nil
	}
	if err := l.dev.set(r.Safe); err != nil {
		return nil, joinClose(err, l)
	}
	return l, nil
}
