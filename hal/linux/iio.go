package linux

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// iioChannels lists what can be read of a device: "voltage0", "temp".
func iioChannels(d *device) []string {
	var list []string
	for _, n := range names(d.dir) {
		name, in := strings.CutPrefix(n, "in_")
		name, raw := strings.CutSuffix(name, "_raw")
		name, computed := strings.CutSuffix(name, "_input")
		if in && (raw || computed) && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}

// iioSensor is a channel: one that is read one at a time, and can be captured too.
type iioSensor struct {
	_ noCompare
	*attribute
	dev     *device
	channel string
}

// openIIO opens "voltage0" or "in_voltage0" of a device. A channel without a raw value has one that the driver computed.
func openIIO(d *device, name string) (*iioSensor, error) {
	name = strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(name, "in_"), "_raw"), "_input")
	path, err := attrOf(d.dir, "in_"+name+"_raw")
	if err != nil {
		return nil, err
	}
	scaled := iioLinear(d, name)
	if !exists(path) {
		path, scaled = filepath.Join(d.dir, "in_"+name+"_input"), linear{scale: 1}
	}
	if !exists(path) {
		return nil, fmt.Errorf("channel %q of %s: %w; there are: %s", name, d, fs.ErrNotExist, strings.Join(iioChannels(d), ", "))
	}
	a, err := openAttribute(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	a.linear = scaled
	return &iioSensor{attribute: a, dev: d, channel: name}, nil
}

// iioLinear is what brings a channel to the unit of the kernel's ABI: its own scale and offset, or of all channels of its type, or of the
// device.
func iioLinear(d *device, channel string) linear {
	l := linear{scale: 1}
	kind := strings.TrimRight(channel, "0123456789")
	first, _, _ := strings.Cut(kind, "_")
	for _, n := range []string{"in", "in_" + first, "in_" + kind, "in_" + channel} { // the nearest is read last
		if v, err := number(attrOr(d.dir, n+"_scale")); err == nil {
			l.scale = v
		}
		if v, err := number(attrOr(d.dir, n+"_offset")); err == nil {
			l.offset = v
		}
	}
	return l
}

// iioScales bring the kernel's units to UCUM codes (Documentation/ABI/testing/sysfs-bus-iio). Longer names first where one begins another.
var iioScales = []scale{
	{"voltage", 1e-3, "V"}, {"altvoltage", 1e-3, "V"}, {"current", 1e-3, "A"}, {"power", 1e-3, "W"},
	{"temp", 1e-3, "Cel"}, {"humidityrelative", 1e-3, "%"}, {"pressure", 1, "kPa"}, {"capacitance", 1, "nF"},
	{"resistance", 1, "Ohm"}, {"accel", 1, "m/s2"}, {"anglvel", 1, "rad/s"}, {"magn", 1, "G"},
	{"illuminance", 1, "lx"}, {"distance", 1, "m"}, {"proximity", 1, ""}, {"concentration", 1, "%"},
	{"energy", 1, "J"}, {"velocity", 1, "m/s"}, {"steps", 1, ""}, {"count", 1, ""}, {"angl", 1, "rad"},
	{"electricalconductivity", 1, "S/m"}, {"ph", 1, "[pH]"}, {"massconcentration", 1, "ug/m3"},
}
