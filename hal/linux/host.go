package linux

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// host is where the kernel's files are seen from: "/" on a device, a folder with a made tree in a test.
type host struct{ root string }

func (h host) path(elem ...string) string {
	root := h.root
	if root == "" {
		root = "/"
	}
	return filepath.Join(append([]string{root}, elem...)...)
}

func (h host) dev(name string) string { return h.path("dev", name) }

// under turns a path as the owner writes it ("/dev/i2c-1") into a path below the root.
func (h host) under(path string) string { return h.path(strings.TrimPrefix(path, "/")) }

// class lists the names in /sys/class/NAME; a class that does not exist has none.
func (h host) class(name string) []string { return names(h.path("sys/class", name)) }

// bus lists the names in /sys/bus/NAME/devices.
func (h host) bus(name string) []string { return names(h.path("sys/bus", name, "devices")) }

func names(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	list := make([]string, 0, len(entries))
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// maxAttr bounds a sysfs attribute: the kernel never prints more than one page.
const maxAttr = 4096

// attr reads one sysfs attribute without its newline.
func attr(elem ...string) (string, error) {
	f, err := os.Open(filepath.Join(elem...))
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, maxAttr)
	n, err := f.Read(b)
	if n == 0 && err != nil && err.Error() != "EOF" {
		return "", err
	}
	return string(bytes.TrimRight(b[:n], "\x00\n")), nil
}

// attrOr is attr where an attribute that is missing or unreadable says nothing.
func attrOr(elem ...string) string {
	s, err := attr(elem...)
	if err != nil {
		return ""
	}
	return s
}

// setAttr writes one sysfs attribute in one write, as the kernel wants it.
func setAttr(value string, elem ...string) error {
	f, err := os.OpenFile(filepath.Join(elem...), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(value); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

func exists(elem ...string) bool {
	_, err := os.Lstat(filepath.Join(elem...))
	return err == nil
}

// driver is the kernel driver bound to a device's folder, "" when none is.
func driver(dir string) string {
	link, err := os.Readlink(filepath.Join(dir, "driver"))
	if err != nil {
		return ""
	}
	return filepath.Base(link)
}

// nameOfParent is a stable name for the device that a class device hangs from: the device's bus and name joined
// with a dash, as udev's by-path names are ("platform-fe200000.gpio"); "" when the kernel knows no parent.
func nameOfParent(dir string) string {
	parent, err := filepath.EvalSymlinks(filepath.Join(dir, "device"))
	if err != nil {
		return ""
	}
	name := filepath.Base(parent)
	if sub, err := os.Readlink(filepath.Join(parent, "subsystem")); err == nil {
		return filepath.Base(sub) + "-" + name
	}
	return name
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

// nodeName is the device tree's name of a device ("i2c@7e804000"), "" without a device tree.
func nodeName(dir string) string {
	for _, link := range []string{"of_node", "device/of_node"} {
		if node, err := filepath.EvalSymlinks(filepath.Join(dir, link)); err == nil {
			return filepath.Base(node)
		}
	}
	return ""
}

// number parses a kernel number: decimal, an optional sign, surrounding blanks.
func number(s string) (float64, error) {
	s = strings.TrimSpace(s)
	if len(s) == 0 || len(s) > 32 {
		return 0, fmt.Errorf("%q is no number", clip(s))
	}
	for _, c := range s {
		if (c < '0' || c > '9') && c != '.' && c != '-' && c != '+' && c != 'e' && c != 'E' {
			return 0, fmt.Errorf("%q is no number", clip(s))
		}
	}
	return strconv.ParseFloat(s, 64)
}

// clip bounds what a message quotes of a foreign text.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// oneOf is the only match of a search; none and several are errors that name the choices.
func oneOf[T any](what, want string, found []T, name func(T) string, all []string) (T, error) {
	var none T
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		if len(all) == 0 {
			return none, fmt.Errorf("%s %q: %w: this board has no %s", what, want, fs.ErrNotExist, what)
		}
		return none, fmt.Errorf("%s %q: %w; there are: %s", what, want, fs.ErrNotExist, strings.Join(all, ", "))
	}
	list := make([]string, len(found))
	for i, f := range found {
		list[i] = name(f)
	}
	return none, fmt.Errorf("%s %q: %w: %s", what, want, errAmbiguous, strings.Join(list, ", "))
}

// errSettings is one device that two entries of the configuration set up differently.
var errSettings = errors.New("different settings for one device")

// errAmbiguous is a name that fits several things of the board.
var errAmbiguous = errors.New("ambiguous")
