package linux

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A thermometer on a 1-wire bus answers in its file temperature in m°C; a read converts for up to 750 ms and holds
// the bus meanwhile, so that each bus has a worker of its own. After a lost supply the chip says 85 °C before it has
// converted anything: that value is refused unless the kernel is told to look at the chip's own word for it
// (features, mask 1: W1_THERM_CHECK_RESULT).

const w1PowerOn = 85000 // m°C in the chip's memory after power-on

// w1Name is "28-0316a279d4ff": family, a dash and the serial number, in hex.
func w1Name(s string) bool {
	family, serial, ok := strings.Cut(s, "-")
	return ok && len(family) == 2 && len(serial) == 12 && hexOnly(family) && hexOnly(serial)
}

func hexOnly(s string) bool {
	return strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

type w1Device struct {
	_               apart
	id, dir, master string
	temperature     bool
}

func (h host) w1Devices() []w1Device {
	var list []w1Device
	for _, n := range h.bus("w1") {
		if !w1Name(n) {
			continue
		}
		dir := h.path("sys/bus/w1/devices", n)
		list = append(list, w1Device{id: n, dir: dir, master: h.w1Master(n), temperature: exists(dir, "temperature")})
	}
	return list
}

// w1Master is the bus that a device hangs from: the folder that holds the device's own.
func (h host) w1Master(id string) string {
	for _, m := range h.bus("w1") {
		if strings.HasPrefix(m, "w1_bus_master") && exists(h.path("sys/bus/w1/devices", m, id)) {
			return m
		}
	}
	return ""
}

type thermometer struct {
	_       apart
	temp    *attribute
	detects bool // the chip tells a power-on value from a real 85 °C
}

var errPowerOn = errors.New("85 °C is the chip's value before its first conversion: its supply failed")

func (h host) openW1(id string) (*thermometer, error) {
	if !w1Name(id) {
		return nil, fmt.Errorf("%q is no 1-wire id; want family and serial number, as in 28-0316a279d4ff: %w", clip(id), unix.EINVAL)
	}
	dir := h.path("sys/bus/w1/devices", id)
	a, err := openAttribute(dir + "/temperature")
	if errors.Is(err, os.ErrNotExist) {
		var known []string
		for _, d := range h.w1Devices() {
			known = append(known, d.id)
		}
		return nil, fmt.Errorf("1-wire thermometer %s: %w; there are: %s", id, os.ErrNotExist, strings.Join(known, ", "))
	}
	if err != nil {
		return nil, err
	}
	t := &thermometer{temp: a}
	if f, err := number(attrOr(dir, "features")); err == nil {
		t.detects = int(f)&1 != 0
	}
	return t, nil
}

// read converts and returns m°C; it takes up to a second.
func (t *thermometer) read() (float64, error) {
	v, err := t.temp.number()
	if err != nil {
		return 0, err
	}
	if v == w1PowerOn && !t.detects {
		return 0, fmt.Errorf("%w: %w", errPowerOn, unix.ENODATA)
	}
	return v, nil
}

func (t *thermometer) Close() error { return t.temp.Close() }
