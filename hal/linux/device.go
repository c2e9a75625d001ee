package linux

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// device is one thing of the board under all the names that it keeps. Any of them finds it.
type device struct {
	_      noCompare
	node   string // path of its device node, when it has one: a number, so never a name for people
	dir    string // its folder in /sys, of this start only
	label  string // what the board's maker calls it
	of     string // in the device tree: "i2c@7e804000"
	name   string // what its driver calls it: "bcm2835 (i2c@7e804000)"
	parent string // bus and name of the device behind it: "platform-fe200000.gpio"
	n      int    // lines of a chip, number of an adapter, chip select, channels of PWM

	usbPort, usbInterface, usbSerial string // of a serial port: "1-1.3", "1-1.3:1.0"
}

// key is the shortest name that an owner would write.
func (d *device) key() string {
	for _, s := range [...]string{d.label, d.of, d.usbInterface, d.name, d.parent} {
		if s != "" {
			return s
		}
	}
	return filepath.Base(d.node)
}

// String is the key, with the device behind it to tell twins apart.
func (d *device) String() string {
	k := d.key()
	if d.parent == "" || d.parent == k {
		return k
	}
	return k + " (" + d.parent + ")"
}

func (d *device) named(want string) bool {
	return d.label == want || d.of == want || d.name == want || sameParent(d.parent, want) || strings.Contains(d.name, "("+want+")")
}

// sameParent reports whether want, with or without the bus in front, names the parent device.
func sameParent(parent, want string) bool {
	if parent == "" || want == "" {
		return false
	}
	if parent == want {
		return true
	}
	_, bare, ok := strings.Cut(parent, "-")
	return ok && bare == want
}

// find is the one device with that name, at that path (of its parent or its node), for which also holds; name and
// path may be empty, also may be nil.
func (h *host) find(what, name, path string, all []*device, also func(*device) bool) (*device, error) {
	var fit, known []string
	var got *device
	for _, d := range all {
		known = append(known, d.String())
		if name != "" && !d.named(name) || path != "" && !sameParent(d.parent, path) && d.of != path && d.node != h.under(path) {
			continue
		}
		if also == nil || also(d) {
			got = d
			fit = append(fit, d.String())
		}
	}
	if name == "" {
		name = path
	}
	return got, only(what, name, fit, known)
}

// only is nil for one fit; none and several are errors that name the choices.
func only(what, want string, fit, known []string) error {
	switch {
	case len(fit) == 1:
		return nil
	case len(fit) > 1:
		return fmt.Errorf("%s %q: %w: %s", what, want, ErrAmbiguous, strings.Join(fit, ", "))
	case len(known) == 0:
		return fmt.Errorf("%s %q: %w: this board has no %s", what, want, fs.ErrNotExist, what)
	}
	return fmt.Errorf("%s %q: %w; there are: %s", what, want, fs.ErrNotExist, strings.Join(known[:min(len(known), 60)], ", "))
}

// busName joins a device's bus and name with a dash, as udev's by-path names are; "" without a device.
func busName(dir string) string {
	sub, err := os.Readlink(filepath.Join(dir, "subsystem"))
	if err != nil {
		return ""
	}
	return filepath.Base(sub) + "-" + filepath.Base(dir)
}

// deviceOf reads what all classes of devices have: the folder with its links resolved, the device behind it, and the
// device tree's name. With up it is the folder around that is the device behind it, as for chips and IIO devices,
// and not what the link "device" points to.
func deviceOf(dir string, up bool) *device {
	d := &device{dir: dir, name: attrOr(dir, "name"), label: attrOr(dir, "label")}
	behind := filepath.Join(dir, "device")
	if up {
		behind = dir
	}
	real, err := resolved(behind)
	if err != nil {
		return d
	}
	if up {
		real = filepath.Dir(real)
	}
	d.parent = busName(real)
	for _, at := range [...]string{dir, real} {
		if node, err := resolved(filepath.Join(at, "of_node")); err == nil {
			d.of = filepath.Base(node)
			break
		}
	}
	return d
}

// sorted orders devices by their nodes, "gpiochip2" before "gpiochip10".
func sorted(list []*device) []*device {
	for i := range list { // by insertion: they are few
		for k := i; k > 0 && before(list[k].node, list[k-1].node); k-- {
			list[k], list[k-1] = list[k-1], list[k]
		}
	}
	return list
}

// before is true of the shorter name, so that numbers count as such.
func before(a, b string) bool {
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	return a < b
}
