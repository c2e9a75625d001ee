package linux

import (
	"fmt"
	"os"
	"path/filepath"
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

// w1Devices lists the chips of all 1-wire buses; the device behind each is its bus.
func (h *host) w1Devices() []*device {
	var list []*device
	for _, n := range h.bus("w1") {
		if w1Name(n) {
			list = append(list, &device{name: n, dir: h.path("sys/bus/w1/devices", n), parent: h.w1Master(n)})
		}
	}
	return list
}

// w1Master is the bus that a device hangs from: the folder that holds the device's own.
func (h *host) w1Master(id string) string {
	for _, m := range h.bus("w1") {
		if strings.HasPrefix(m, "w1_bus_master") && exists(h.path("sys/bus/w1/devices", m, id)) {
			return m
		}
	}
	return ""
}

var errPowerOn = fmt.Errorf("85 °C is the chip's value before its first conversion, its supply failed: %w", unix.ENODATA)

// openW1 opens a thermometer, which gives m°C and takes up to a second.
func (h *host) openW1(id string) (*attribute, error) {
	if !w1Name(id) {
		return nil, fmt.Errorf("%q is no 1-wire id; want family and serial number, as in 28-0316a279d4ff: %w", clip(id), unix.EINVAL)
	}
	d, err := h.find("1-wire thermometer", id, "", h.w1Devices(), nil)
	if err != nil {
		return nil, err
	}
	a, err := openAttribute(filepath.Join(d.dir, "temperature"), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	if f, err := number(attrOr(d.dir, "features")); err != nil || int(f)&1 == 0 { // else the chip tells a power-on value from a real 85 °C
		a.lies = w1PowerOn
	}
	return a, nil
}
