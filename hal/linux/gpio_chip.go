package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// chip is a GPIO controller of the board.
type chip struct {
	node   string // path of its device node; a number, so never a name for people
	label  string
	parent string // "platform-fe200000.gpio"
	lines  uint32
}

func (c chip) String() string {
	if c.parent == "" {
		return c.label
	}
	return c.label + " (" + c.parent + ")"
}

// lineInfo is what the kernel says of one line.
type lineInfo struct {
	offset   uint32
	name     string
	consumer string
	flags    uint64
	debounce uint32 // µs
}

func (l lineInfo) used() bool { return l.flags&flagUsed != 0 }

// chips lists the board's controllers in the order of their nodes. A chip that vanishes meanwhile is left out;
// an error is one that would hide all of them, as a missing right does.
func (h host) chips() ([]chip, error) {
	nodes, err := filepath.Glob(h.dev("gpiochip*"))
	if err != nil {
		return nil, err
	}
	sort.Slice(nodes, func(i, j int) bool { return naturalLess(nodes[i], nodes[j]) })
	var list []chip
	for _, node := range nodes {
		fd, err := openChip(node)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: node, Err: err}
		}
		info, err := getChipInfo(fd)
		_ = unix.Close(fd)
		if err != nil {
			continue
		}
		dir := h.path("sys/bus/gpio/devices", filepath.Base(node))
		list = append(list, chip{node: node, label: ctext(info.label[:]), parent: chipParent(dir), lines: info.lines})
	}
	return list, nil
}

// chipParent names the device of a chip: on the gpio bus the chip's folder lies inside its device's folder.
func chipParent(dir string) string {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return ""
	}
	parent := filepath.Dir(real)
	if sub, err := os.Readlink(filepath.Join(parent, "subsystem")); err == nil {
		return filepath.Base(sub) + "-" + filepath.Base(parent)
	}
	return ""
}

// findChip is the chip with that label or that device path; exactly one must fit.
func (h host) findChip(label, path string) (chip, error) {
	all, err := h.chips()
	if err != nil {
		return chip{}, err
	}
	var fit []chip
	known := make([]string, 0, len(all))
	for _, c := range all {
		known = append(known, c.String())
		switch {
		case label != "" && c.label != label, path != "" && !sameParent(c.parent, path) && c.node != h.under(path):
		default:
			fit = append(fit, c)
		}
	}
	want := label
	if want == "" {
		want = path
	}
	return oneOf("GPIO chip", want, fit, chip.String, known)
}

// listLines asks for every line of a chip.
func (c chip) listLines() ([]lineInfo, error) {
	fd, err := openChip(c.node)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: c.node, Err: err}
	}
	defer closeFD(fd)
	list := make([]lineInfo, 0, min(c.lines, 1024))
	for off := range c.lines {
		l, err := lineAt(fd, off)
		if err != nil {
			return list, fmt.Errorf("line %d of %s: %w", off, c, err)
		}
		list = append(list, l)
	}
	return list, nil
}

func lineAt(fd int, offset uint32) (lineInfo, error) {
	i, err := getLineInfo(fd, offset)
	if err != nil {
		return lineInfo{}, err
	}
	return lineInfo{offset: i.offset, name: ctext(i.name[:]), consumer: ctext(i.consumer[:]), flags: i.flags, debounce: i.debounce()}, nil
}

// findLine is the offset of the line with that name, or of a number when there is no name. A name that the chip
// gives to two lines is refused: the owner says the offset then.
func (c chip) findLine(name string, offset int) (lineInfo, error) {
	if name == "" && (offset < 0 || uint32(offset) >= c.lines) {
		return lineInfo{}, fmt.Errorf("offset %d of GPIO chip %s: %w: the chip has lines 0 to %d", offset, c, errNoLine, int(c.lines)-1)
	}
	lines, err := c.listLines()
	if err != nil {
		return lineInfo{}, err
	}
	if name == "" {
		return lines[offset], nil
	}
	var fit []lineInfo
	var known []string
	for _, l := range lines {
		if l.name == name {
			fit = append(fit, l)
		}
		if l.name != "" && len(known) < 60 {
			known = append(known, l.name)
		}
	}
	return oneOf("line of "+c.label, name, fit, func(l lineInfo) string { return "offset " + strconv.Itoa(int(l.offset)) }, known)
}

var errNoLine = errors.New("no such line")

// naturalLess orders "gpiochip2" before "gpiochip10".
func naturalLess(a, b string) bool {
	pa, na := trailing(a)
	pb, nb := trailing(b)
	if pa != pb {
		return pa < pb
	}
	return na < nb
}

func trailing(s string) (string, int) {
	p := strings.TrimRight(s, "0123456789")
	n, err := strconv.Atoi(s[len(p):])
	if err != nil {
		return s, -1
	}
	return p, n
}
