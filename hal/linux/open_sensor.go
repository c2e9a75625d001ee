package linux

import (
	"errors"
	"fmt"
	"os"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// Capture is for one reader of the device: its other channels cannot be captured meanwhile.
func (s *iioSensor) Capture(trigger string, length int) (SampleReader, error) {
	c, err := captureIIO(s.dev, []string{s.channel}, trigger, length)
	if err != nil {
		return nil, coded(KindSensor, err)
	}
	return &captured{c}, nil
}

type captured struct{ run *capture }

func (c *captured) Read() ([]Sample, error) {
	points, err := c.run.read()
	list := make([]Sample, len(points))
	for i, p := range points {
		list[i] = Sample{Value: p.values[0], Mono: p.mono}
	}
	return list, coded(KindSensor, err)
}

func (c *captured) Close() error { return c.run.Close() }

func (b *Board) openSensor(r *hal.Resource) (hal.Device, error) {
	s := &r.Sensor.Source
	switch {
	case s.Driver != "":
		return b.openChip(r.Sensor)
	case r.Sensor.Via != nil:
		return b.openRegister(r.Sensor)
	case s.IIO != "":
		d, err := b.findClass(&iioClass, s.IIO, s.Parent)
		if err != nil {
			return nil, err
		}
		return openIIO(d, s.Attr)
	case s.W1 != "":
		return b.openW1(s.W1)
	case s.Power != "":
		return b.classSensor(&powerClass, s.Power, s.Parent, s.Attr)
	case s.Thermal != "":
		return b.classSensor(&thermalClass, s.Thermal, s.Parent, "temp")
	case s.Hwmon != "":
		return b.classSensor(&hwmonClass, s.Hwmon, s.Parent, s.Attr)
	}
	return nil, fmt.Errorf("a sensor without a source: %w", errors.ErrUnsupported)
}

func (b *Board) classSensor(k *class, name, parent, attribute string) (hal.Device, error) {
	d, err := b.findClass(k, name, parent)
	if err != nil {
		return nil, err
	}
	path, err := attrOf(d.dir, attribute)
	if err != nil {
		return nil, err
	}
	return openAttribute(path, os.O_RDONLY)
}
