package linux

import (
	"fmt"
	"slices"
	"strconv"
)

// openLED takes one of /sys/class/leds: its name is the driver's or the device tree's and stays.
func (h *host) openLED(name string) (*levelResource, error) {
	dir, err := attrOf(h.path("sys/class/leds"), name)
	if err != nil {
		return nil, err
	}
	if all := h.class("leds"); !slices.Contains(all, name) {
		return nil, only("LED", name, nil, all)
	}
	most := 255
	if n, err := strconv.Atoi(attrOr(dir, "max_brightness")); err == nil && n > 0 {
		most = n
	}
	// A trigger of the kernel would write over us; brightness 0 alone would remove it too, but not brightness 1.
	if exists(dir, "trigger") {
		if err := setAttr("none", dir, "trigger"); err != nil {
			return nil, fmt.Errorf("take LED %s from its trigger: %w", name, err)
		}
	}
	return openLevel(KindLED, dir+"/brightness", "", float64(most))
}
