package linux

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"sort"
	"strings"
)

// iioDevice is one converter or sensor of the industrial I/O subsystem.
type iioDevice struct{ *device }

func (h host) iioDevices() []*device {
	var list []*device
	for _, n := range h.bus("iio") {
		if strings.HasPrefix(n, "iio:device") {
			d := deviceOf(h.path("sys/bus/iio/devices", n), true)
			d.node = h.dev(n)
			list = append(list, d)
		}
	}
	return sorted(list)
}

// findIIO is the device with that label or name, or at that device path.
func (h host) findIIO(name, path string) (iioDevice, error) {
	d, err := h.find("IIO device", name, path, h.iioDevices(), nil)
	return iioDevice{d}, err
}

// channels lists what can be read of a device: "voltage0", "temp".
func (d iioDevice) channels() []string {
	var list []string
	seen := map[string]bool{}
	for _, n := range names(d.dir) {
		c, ok := strings.CutPrefix(n, "in_")
		if !ok {
			continue
		}
		for _, end := range []string{"_raw", "_input"} {
			if name, ok := strings.CutSuffix(c, end); ok && !seen[name] {
				seen[name] = true
				list = append(list, name)
			}
		}
	}
	sort.Strings(list)
	return list
}

// iioChannel is a value that is read one at a time: (raw + offset) · scale in the unit of the kernel's ABI; times milli
// it is in unit.
type iioChannel struct {
	_             apart
	value         *attribute
	scale, offset float64
	milli         float64
	unit          string
}

// openChannel opens "voltage0" or "in_voltage0". A channel without a raw value has one that the driver computed.
func (d iioDevice) openChannel(name string) (*iioChannel, error) {
	name = strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(name, "in_"), "_raw"), "_input")
	path, err := attrOf(d.dir, "in_"+name+"_raw")
	if err != nil {
		return nil, err
	}
	c := &iioChannel{scale: 1}
	c.milli, c.unit = scaleOf(iioScales, name)
	if !exists(path) {
		path = filepath.Join(d.dir, "in_"+name+"_input")
		if !exists(path) {
			return nil, fmt.Errorf("channel %q of %s: %w; there are: %s", name, d, fs.ErrNotExist, strings.Join(d.channels(), ", "))
		}
	} else {
		c.scale = d.shared(name, "scale", 1)
		c.offset = d.shared(name, "offset", 0)
	}
	c.value, err = openAttribute(path)
	return c, err
}

// shared is an attribute of the channel, or of all channels of its type, or of the device.
func (d iioDevice) shared(channel, what string, or float64) float64 {
	kind := strings.TrimRight(channel, "0123456789")
	for _, n := range []string{"in_" + channel, "in_" + kind, "in_" + strings.SplitN(kind, "_", 2)[0], "in"} {
		if v, err := number(attrOr(d.dir, n+"_"+what)); err == nil {
			return v
		}
	}
	return or
}

// read is one conversion, in the unit of the kernel's ABI.
func (c *iioChannel) read() (float64, error) {
	raw, err := c.value.number()
	if err != nil {
		return 0, err
	}
	return c.convert(raw), nil
}

func (c *iioChannel) convert(raw float64) float64 { return (raw + c.offset) * c.scale }

func (c *iioChannel) Close() error { return c.value.Close() }

// iioScales bring the kernel's units to UCUM codes (Documentation/ABI/testing/sysfs-bus-iio). Longer names first where one begins another.
var iioScales = []scale{
	{"voltage", 1e-3, "V"}, {"altvoltage", 1e-3, "V"}, {"current", 1e-3, "A"}, {"power", 1e-3, "W"},
	{"temp", 1e-3, "Cel"}, {"humidityrelative", 1e-3, "%"}, {"pressure", 1, "kPa"}, {"capacitance", 1, "nF"},
	{"resistance", 1, "Ohm"}, {"accel", 1, "m/s2"}, {"anglvel", 1, "rad/s"}, {"magn", 1, "G"},
	{"illuminance", 1, "lx"}, {"distance", 1, "m"}, {"proximity", 1, ""}, {"concentration", 1, "%"},
	{"energy", 1, "J"}, {"velocity", 1, "m/s"}, {"steps", 1, ""}, {"count", 1, ""}, {"angl", 1, "rad"},
	{"electricalconductivity", 1, "S/m"}, {"ph", 1, "[pH]"}, {"massconcentration", 1, "ug/m3"},
}
