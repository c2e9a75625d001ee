package linux

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// host is where the kernel's files are seen from: "/" on a device, a folder with a made tree in a test.
type host struct{ root string }

func (h *host) path(elem ...string) string {
	return filepath.Join("/", h.root, filepath.Join(elem...))
}

func (h *host) dev(name string) string { return h.path("dev", name) }

// under turns a path as the owner writes it ("/dev/i2c-1") into a path below the root.
func (h *host) under(path string) string { return h.path(strings.TrimPrefix(path, "/")) }

// class lists the names in /sys/class/NAME; a class that does not exist has none.
func (h *host) class(name string) []string { return names(h.path("sys/class", name)) }

// bus lists the names in /sys/bus/NAME/devices.
func (h *host) bus(name string) []string { return names(h.path("sys/bus", name, "devices")) }

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

// attr reads one sysfs attribute without its newline; the kernel never prints more than one page.
func attr(elem ...string) (string, error) {
	b, err := os.ReadFile(filepath.Join(elem...))
	return string(bytes.TrimRight(b, "\x00\n")), err
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
	_, err = f.WriteString(value)
	if end := f.Close(); err == nil {
		err = end
	}
	return err
}

// resolved is a path without links, as the kernel sees it.
func resolved(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer closeFD(fd)
	return os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
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
