package linux

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// led is one of /sys/class/leds: its name is the driver's or the device tree's and stays.
type led struct {
	_    apart
	name string
	file *os.File // brightness
	max  int
}

func joinClose(err error, c io.Closer) error { return errors.Join(err, c.Close()) }

func (h host) openLED(name string) (*led, error) {
	dir, err := attrOf(h.path("sys/class/leds"), name)
	if err != nil {
		return nil, err
	}
	var fit []string
	all := h.class("leds")
	for _, n := range all {
		if n == name {
			fit = append(fit, n)
		}
	}
	if err := only("LED", name, fit, all); err != nil {
		return nil, err
	}
	l := &led{name: name, max: 255}
	if n, err := strconv.Atoi(attrOr(dir, "max_brightness")); err == nil && n > 0 {
		l.max = n
	}
	// A trigger of the kernel would write over us; brightness 0 alone would remove it too, but not brightness 1.
	if exists(dir, "trigger") {
		if err := setAttr("none", dir, "trigger"); err != nil {
			return nil, fmt.Errorf("take LED %s from its trigger: %w", name, err)
		}
	}
	if l.file, err = os.OpenFile(dir+"/brightness", os.O_RDWR, 0); err != nil {
		return nil, err
	}
	return l, nil
}

// set takes 0 to 1.
func (l *led) set(share float64) error {
	if !(share >= 0 && share <= 1) {
		return fmt.Errorf("brightness %v: %w", share, unix.ERANGE)
	}
	_, err := l.file.WriteAt(l.bytes(share), 0)
	return err
}

// bytes is what sets a brightness when written at offset 0 of the descriptor: the warden's safe action.
func (l *led) bytes(share float64) []byte {
	return append(strconv.AppendInt(nil, int64(share*float64(l.max)+0.5), 10), '\n')
}

func (l *led) get() (float64, error) {
	var b [32]byte
	n, err := l.file.ReadAt(b[:], 0)
	if n == 0 && err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	v, err := number(string(b[:n]))
	return v / float64(l.max), err
}

func (l *led) Close() error { return l.file.Close() }
