package linux

import (
	"context"
	"io"
	"os"

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

// Get is the share of the period, or the brightness, now.
func (l *levelResource) Get(context.Context) (float64, error) {
	v, err := l.dev.get()
	return v, coded(l.kind, err)
}

// Set drives it.
func (l *levelResource) Set(_ context.Context, v float64) error { return coded(l.kind, l.dev.set(v)) }

// Close lets go of it; it stays as it is.
func (l *levelResource) Close() error { return l.dev.Close() }

// FD is what a keeper needs to hold the output and to make it safe.
func (l *levelResource) FD(safe float64) (int, hal.SafeAction) {
	fd, err := fdOf(l.file)
	if err != nil {
		return -1, hal.SafeAction{}
	}
	return fd, hal.SafeAction{Bytes: l.safe(safe)}
}

// openLevel finds the output and leaves it as it is.
func (b *Board) openLevel(r *hal.Resource) (*levelResource, error) {
	if r.Kind == KindLED {
		l, err := b.openLED(r.LED.Name)
		if err != nil {
			return nil, err
		}
		return &levelResource{kind: r.Kind, dev: l, file: l.file, safe: l.bytes}, nil
	}
	c, err := b.findPWM(r.PWM.Chip, "")
	if err != nil {
		return nil, err
	}
	p, err := c.openPWM(r.PWM.Channel, r.PWM.Period, r.PWM.Inverted)
	if err != nil {
		return nil, err
	}
	return &levelResource{kind: r.Kind, dev: p, file: p.duty, safe: p.dutyBytes}, nil
}

// openSafe makes a fresh output safe; one whose safe value the deployment is to say is zero until then.
func (b *Board) openSafe(r *hal.Resource) (hal.Device, error) {
	l, err := b.openLevel(r)
	if err != nil {
		return nil, err
	}
	safe := 0.0
	if r.Safe != nil {
		safe = *r.Safe
	}
	if err := l.dev.set(safe); err != nil {
		return nil, joinClose(err, l)
	}
	return l, nil
}
