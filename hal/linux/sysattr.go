package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// attribute is one sysfs number as a sensor: (raw + offset) · scale. Its descriptor is kept: reading again costs one call instead of three,
// and the device's number can change under its name without harm. A device that goes answers ENODEV.
type attribute struct {
	_ noCompare
	linear
	file *os.File
	lies float64  // a raw number that is no reading; 0 = none
	buf  [64]byte // the kernel's numbers are short
}

// linear brings a raw number to the unit of the kernel's document.
type linear struct{ scale, offset float64 }

func (l linear) of(raw float64) float64 { return (raw + l.offset) * l.scale }

func openAttribute(path string, flag int) (*attribute, error) {
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, err
	}
	return &attribute{linear: linear{scale: 1}, file: f}, nil
}

// number reads the raw value. One goroutine at a time.
func (a *attribute) number() (float64, error) {
	n, err := a.file.ReadAt(a.buf[:], 0)
	if n == 0 && err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	v, err := number(string(a.buf[:n]))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", baseName(a.file.Name()), err)
	}
	return v, nil
}

// Read gives the number as the kernel's document means it: the owner's configuration says what is made of it.
func (a *attribute) Read(ctx context.Context) (hal.Value, error) {
	v := hal.Value{Time: time.Now(), Mono: monotonic()}
	err := ctx.Err()
	if err == nil {
		v.Num, err = a.number()
	}
	if err == nil && a.lies != 0 && v.Num == a.lies {
		err = errPowerOn
	}
	v.Num = a.of(v.Num)
	return v, coded(KindSensor, err)
}

// Close lets go of it.
func (a *attribute) Close() error { return a.file.Close() }

// class is a kind of device whose numbers change between boots, and where the kernel keeps them.
type class struct {
	_           noCompare
	what        string
	dir, prefix string  // of their folders, below the root
	name        string  // attribute with the name; "" = the folder's own
	up          bool    // the device behind it is the folder around
	word        string  // of a sensor's source in the configuration
	end         string  // of the attributes that are read; "" = those whose unit is known
	scales      []scale // of its attributes
}

// The units are those of Documentation/hwmon/sysfs-interface, driver-api/thermal/sysfs-api.rst, and ABI/testing/sysfs-class-power: µV, µA, µW,
// µAh, 0.1 °C.
var (
	hwmonClass = class{what: "hwmon device", dir: "sys/class/hwmon", name: "name", word: "hwmon", end: "_input", scales: []scale{
		{"temp", 1e-3, "Cel"}, {"in", 1e-3, "V"}, {"curr", 1e-3, "A"}, {"power", 1e-6, "W"}, {"energy", 1e-6, "J"}, {"humidity", 1e-3, "%"}, {"fan", 1, "/min"},
	}}
	thermalClass = class{what: "thermal zone", dir: "sys/class/thermal", prefix: "thermal_zone", name: "type", word: "thermal", scales: []scale{{"temp", 1e-3, "Cel"}}}
	powerClass   = class{what: "power supply", dir: "sys/class/power_supply", word: "power", scales: []scale{
		{"voltage", 1e-6, "V"}, {"current", 1e-6, "A"}, {"power", 1e-6, "W"}, {"charge", 1e-6, "A.h"}, {"energy", 1e-6, "W.h"},
		{"capacity_", 1, ""}, {"capacity", 1, "%"}, {"temp", 0.1, "Cel"}, // capacity_level is a word
	}}
	iioClass = class{what: "IIO device", dir: "sys/bus/iio/devices", prefix: "iio:device", name: "name", up: true}
	pwmClass = class{what: "PWM controller", dir: "sys/class/pwm", prefix: "pwmchip"} // n is the number of channels
)

// devices lists the devices of a class.
func (h *host) devices(k *class) []*device {
	var list []*device
	for _, n := range names(h.path(k.dir)) {
		if !strings.HasPrefix(n, k.prefix) {
			continue
		}
		d := deviceOf(h.path(k.dir, n), k.up)
		d.node = h.dev(n)
		d.n, _ = strconv.Atoi(attrOr(d.dir, "npwm"))
		if d.name = n; k.name != "" {
			d.name = attrOr(d.dir, k.name)
		}
		list = append(list, d)
	}
	return sorted(list)
}

// findClass is the device with that name ("lm75") or device path ("i2c-1-0048"); name and path together tell twins
// apart.
func (h *host) findClass(k *class, name, path string) (*device, error) {
	return h.find(k.what, name, path, h.devices(k), nil)
}

// attrOf checks that a name is one attribute of a folder and not a way out of it.
func attrOf(dir, name string) (string, error) {
	if name == "" || len(name) > 64 || strings.ContainsAny(name, "/\x00") || name == "." || name == ".." {
		return "", fmt.Errorf("%q is no name of a sysfs attribute: %w", clip(name), unix.EINVAL)
	}
	return filepath.Join(dir, name), nil
}

// scale is what brings an attribute or channel to its unit, by how its name begins.
type scale struct {
	begins string
	factor float64
	unit   string // UCUM
}

// scaleOf is the factor and the unit of a name; unit "" = it is not known.
func scaleOf(list []scale, name string) (factor float64, unit string) {
	for i := range list {
		if strings.HasPrefix(name, list[i].begins) {
			return list[i].factor, list[i].unit
		}
	}
	return 1, ""
}
