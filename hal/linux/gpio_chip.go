package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lineInfo is what the kernel says of one line.
type lineInfo struct {
	_        noCompare
	offset   uint32
	name     string
	consumer string
	flags    uint64
	debounce uint32 // µs
}

func (l *lineInfo) used() bool { return l.flags&flagUsed != 0 }

// chips lists the board's controllers in the order of their nodes. A chip that vanishes meanwhile is left out;
// an error is one that would hide all of them, as a missing right does.
func (h *host) chips() ([]*device, error) {
	var list []*device
	for _, name := range names(h.dev("")) {
		if !strings.HasPrefix(name, "gpiochip") {
			continue
		}
		node := h.dev(name)
		fd, err := openChip(node)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: node, Err: err}
		}
		info, err := getChipInfo(fd)
		closeFD(fd)
		if err != nil {
			continue
		}
		d := deviceOf(h.path("sys/bus/gpio/devices", filepath.Base(node)), true)
		d.node, d.label, d.n = node, ctext(info.label[:]), int(info.lines)
		list = append(list, d)
	}
	return sorted(list), nil
}

// findChip is the chip with that label or that device path; exactly one must fit.
func (h *host) findChip(label, path string) (*device, error) {
	all, err := h.chips()
	if err != nil {
		return nil, err
	}
	d, err := h.find("GPIO chip", label, path, all, nil)
	return d, err
}

// listLines asks for every line of a chip.
func listLines(c *device) ([]*lineInfo, error) {
	fd, err := openChip(c.node)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: c.node, Err: err}
	}
	defer closeFD(fd)
	list := make([]*lineInfo, 0, min(c.n, 1024))
	for off := range c.n {
		l, err := lineAt(fd, uint32(off))
		if err != nil {
			return list, fmt.Errorf("line %d of %s: %w", off, c, err)
		}
		list = append(list, l)
	}
	return list, nil
}

func lineAt(fd int, offset uint32) (*lineInfo, error) {
	i, err := getLineInfo(fd, offset)
	if err != nil {
		return nil, err
	}
	return &lineInfo{offset: i.offset, name: ctext(i.name[:]), consumer: ctext(i.consumer[:]), flags: i.flags, debounce: i.debounce()}, nil
}

// findLine is the offset of the line with that name, or of a number when there is no name. A name that the chip
// gives to two lines is refused: the owner says the offset then.
func findLine(c *device, name string, offset int) (*lineInfo, error) {
	if name == "" && (offset < 0 || offset >= c.n) {
		return nil, fmt.Errorf("offset %d of GPIO chip %s: %w: the chip has lines 0 to %d", offset, c, unix.ERANGE, c.n-1)
	}
	lines, err := listLines(c)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return lines[offset], nil
	}
	var fit, known []string
	var got *lineInfo
	for _, l := range lines {
		if l.name == name {
			got = l
			fit = append(fit, "offset "+strconv.Itoa(int(l.offset)))
		}
		if l.name != "" {
			known = append(known, l.name)
		}
	}
	return got, only("line of "+c.key(), name, fit, known)
}
