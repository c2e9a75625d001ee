package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// capture is a running buffer of a device. There is one reader per device, and one-shot reads answer EBUSY meanwhile.
type capture struct {
	dev     *device
	file    *os.File
	list    []element
	convert []linear // beside list
	sample  int
	rest    []byte
	buf     []byte
}

// point is one sample of the device.
type point struct {
	mono   int64 // ns of CLOCK_MONOTONIC, 0 without a timestamp channel
	values []float64
}

// captureIIO starts the buffer with these channels, a trigger by its name ("" keeps the one that is set) and room for
// length samples. The device's time is captured when the driver has it.
func captureIIO(d *device, channels []string, trigger string, length int) (*capture, error) {
	c := &capture{dev: d}
	if err := setAttr("0", d.dir, "buffer", "enable"); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w: the driver has no buffer", d, unix.EOPNOTSUPP)
		}
		return nil, fmt.Errorf("stop the buffer of %s: %w", d, err)
	}
	if err := c.choose(channels); err != nil {
		return nil, c.fail(err)
	}
	// Without this the driver's time is the wall clock's, which jumps; kernels before 4.8 have no choice.
	if exists(d.dir, "current_timestamp_clock") {
		if err := setAttr("monotonic", d.dir, "current_timestamp_clock"); err != nil {
			return nil, c.fail(fmt.Errorf("clock of %s: %w", d, err))
		}
	}
	if trigger != "" {
		if err := setAttr(trigger, d.dir, "trigger", "current_trigger"); err != nil {
			return nil, c.fail(fmt.Errorf("trigger %q of %s: %w", clip(trigger), d, err))
		}
	}
	if err := setAttr(strconv.Itoa(min(max(length, 2), 65536)), d.dir, "buffer", "length"); err != nil {
		return nil, c.fail(fmt.Errorf("length of the buffer of %s: %w", d, err))
	}
	if err := setAttr("1", d.dir, "buffer", "enable"); err != nil {
		return nil, c.fail(fmt.Errorf("start the buffer of %s: %w", d, err))
	}
	f, err := os.OpenFile(d.node, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, c.fail(err)
	}
	c.file = f
	c.buf = make([]byte, max(c.sample, 4096/max(c.sample, 1)*c.sample))
	return c, nil
}

// choose enables the wanted scan elements and no others.
func (c *capture) choose(channels []string) error {
	dir := filepath.Join(c.dev.dir, "scan_elements")
	want := map[string]bool{"timestamp": true}
	for _, n := range channels {
		want[strings.TrimPrefix(n, "in_")] = true
	}
	found := 0
	var known []string
	for _, n := range names(dir) {
		name, ok := strings.CutSuffix(n, "_en")
		if !ok {
			continue
		}
		name = strings.TrimPrefix(name, "in_")
		known = append(known, name)
		on := "0"
		if want[name] {
			on = "1"
		}
		if err := setAttr(on, dir, n); err != nil {
			return fmt.Errorf("scan element %s of %s: %w", name, c.dev, err)
		}
		if on == "0" {
			continue
		}
		if err := c.element(dir, strings.TrimSuffix(n, "_en"), name); err != nil {
			return err
		}
		if name != "timestamp" {
			found++
		}
	}
	if found != len(channels) || found == 0 {
		return fmt.Errorf("channels %s of %s: %w in its buffer; there are: %s", strings.Join(channels, ", "), c.dev, fs.ErrNotExist, strings.Join(known, ", "))
	}
	for i := range c.list { // as the kernel lays them out
		for k := i; k > 0 && c.list[k].index < c.list[k-1].index; k-- {
			c.list[k], c.list[k-1] = c.list[k-1], c.list[k]
		}
	}
	var err error
	if c.sample, err = layout(c.list); err != nil {
		return err
	}
	for _, e := range c.list {
		c.convert = append(c.convert, iioLinear(c.dev, e.name))
	}
	return nil
}

func (c *capture) element(dir, file, name string) error {
	t, err := parseScanType(attrOr(dir, file+"_type"))
	if err != nil {
		return fmt.Errorf("channel %s of %s: %w", name, c.dev, err)
	}
	index, err := small(attrOr(dir, file+"_index"))
	if err != nil {
		return fmt.Errorf("channel %s of %s: its index is no number", name, c.dev)
	}
	c.list = append(c.list, element{index: index, name: name, typ: t})
	return nil
}

// read waits for samples and returns at least one. It ends with os.ErrClosed after Close.
func (c *capture) read() ([]point, error) {
	for {
		n, err := c.file.Read(c.buf[len(c.rest):])
		if err != nil {
			return nil, err
		}
		var points []point
		b := c.buf[:len(c.rest)+n]
		rest := decodeSamples(b, c.list, c.sample, func(raw []int64) {
			p := point{values: make([]float64, 0, len(raw))}
			for i, v := range raw {
				if c.list[i].name == "timestamp" {
					p.mono = v
				} else {
					p.values = append(p.values, c.convert[i].of(float64(v)))
				}
			}
			points = append(points, p)
		})
		c.rest = c.buf[:copy(c.buf, rest)]
		if len(points) > 0 {
			return points, nil
		}
	}
}

func (c *capture) fail(err error) error { return errors.Join(err, c.stop()) }

func (c *capture) stop() error { return setAttr("0", c.dev.dir, "buffer", "enable") }

// Close ends the capture and switches the buffer off, so that one-shot reads work again.
func (c *capture) Close() error { return errors.Join(c.file.Close(), c.stop()) }
