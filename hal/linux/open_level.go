package linux

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// levelResource is a PWM channel or an LED: a number in a file, as a share of the most that it can be.
type levelResource struct {
	_      noCompare
	kind   Kind
	value  *attribute // duty cycle in ns, or brightness
	enable *attribute // of a PWM channel; nil = there is none
	most   float64
}

func openLevel(kind Kind, value, enable string, most float64) (l *levelResource, err error) {
	l = &levelResource{kind: kind, most: most}
	if l.value, err = openAttribute(value, os.O_RDWR); err != nil {
		return nil, err
	}
	if enable != "" {
		if l.enable, err = openAttribute(enable, os.O_RDWR); err != nil {
			_ = l.value.Close()
			return nil, err
		}
	}
	return l, nil
}

// Get is the share now, 0 to 1; a channel that is off has none.
func (l *levelResource) Get(context.Context) (float64, error) {
	v, err := l.value.number()
	if err == nil && l.enable != nil {
		var on float64
		if on, err = l.enable.number(); on == 0 {
			v = 0
		}
	}
	return v / l.most, coded(l.kind, err)
}

// Set drives it. Zero keeps a PWM channel on with no pulse, because a disabled channel's level is the controller's choice.
func (l *levelResource) Set(_ context.Context, share float64) error {
	if !(share >= 0 && share <= 1) {
		return coded(l.kind, fmt.Errorf("%v is no share from 0 to 1: %w", share, unix.ERANGE))
	}
	_, err := l.value.file.WriteAt(l.bytes(share), 0)
	if err == nil && l.enable != nil {
		_, err = l.enable.file.WriteAt([]byte("1"), 0)
	}
	return coded(l.kind, err)
}

// bytes is what sets a share when written at offset 0 of the descriptor: the warden's safe action.
func (l *levelResource) bytes(share float64) []byte {
	return append(strconv.AppendInt(nil, int64(share*l.most+0.5), 10), '\n')
}

// Close lets go of it; it stays as it is.
func (l *levelResource) Close() error {
	if l.enable != nil {
		_ = l.enable.Close()
	}
	return l.value.Close()
}

// FD is what a keeper needs to hold the output and to make it safe.
func (l *levelResource) FD(safe float64) (int, hal.SafeAction) {
	fd, err := fdOf(l.value.file)
	if err != nil {
		return -1, hal.SafeAction{}
	}
	return fd, hal.SafeAction{Bytes: l.bytes(safe)}
}

// findLevel opens the output and leaves it as it is.
func (b *Board) findLevel(r *hal.Resource) (*levelResource, error) {
	if r.Kind == KindLED {
		return b.openLED(r.LED)
	}
	c, err := b.findClass(&pwmClass, "", r.PWM.Chip)
	if err != nil {
		return nil, err
	}
	return openPWM(c, r.PWM.Channel, r.PWM.Period)
}

// openSafe makes a fresh output safe; one whose safe value the deployment is to say is zero until then.
func (b *Board) openSafe(r *hal.Resource) (hal.Device, error) {
	l, err := b.findLevel(r)
	if err != nil {
		return nil, err
	}
	safe := 0.0
	if r.Safe != nil {
		safe = *r.Safe
	}
	if err := l.Set(context.Background(), safe); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}
