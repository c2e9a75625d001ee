package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/sys/unix"
)

// sensorResource is a number from one of the kernel's subsystems or from a driver of ours.
type sensorResource struct {
	read  func(context.Context) (float64, error)
	scale float64
	unit  string
	close []io.Closer
}

func (s *sensorResource) Read(ctx context.Context) (float64, error) {
	v, err := s.read(ctx)
	return v, coded(KindSensor, err)
}

func (s *sensorResource) Unit() (scale float64, unit string) { return s.scale, s.unit }

func (s *sensorResource) Close() error {
	var err error
	for _, c := range s.close {
		err = errors.Join(err, c.Close())
	}
	return err
}

func plain(f func() (float64, error)) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return f()
	}
}

// iioSensor is a channel that can be captured too.
type iioSensor struct {
	*sensorResource
	dev     iioDevice
	channel string
}

// Capture is for one reader of the device: its other channels cannot be captured meanwhile.
func (s *iioSensor) Capture(trigger string, length int) (SampleReader, error) {
	c, err := s.dev.capture([]string{s.channel}, trigger, length)
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

func (b *Backend) openSensor(r Resource) (Sensor, error) {
	m := r.Match
	switch m.Source {
	case "hwmon":
		scale, unit := hwmonScale(m.Channel)
		return b.classSensor(hwmonClass, m, m.Channel, scale, unit)
	case "thermal":
		return b.classSensor(thermalClass, m, "temp", 1e-3, "Cel")
	case "power":
		scale, unit := powerScale(m.Channel)
		return b.classSensor(powerClass, m, m.Channel, scale, unit)
	case "w1":
		t, err := b.openW1(m.Device)
		if err != nil {
			return nil, err
		}
		return &sensorResource{read: plain(t.read), scale: 1e-3, unit: "Cel", close: []io.Closer{t}}, nil
	case "iio":
		d, err := b.findIIO(m.Device, m.Path)
		if err != nil {
			return nil, err
		}
		c, err := d.openChannel(m.Channel)
		if err != nil {
			return nil, err
		}
		s := &sensorResource{read: plain(c.read), scale: c.milli, unit: c.unit, close: []io.Closer{c}}
		return &iioSensor{s, d, m.Channel}, nil
	case "driver":
		return b.driverSensor(r)
	}
	return nil, fmt.Errorf("source %q: %w", clip(m.Source), errors.ErrUnsupported)
}

func (b *Backend) classSensor(k classKind, m Match, attribute string, scale float64, unit string) (Sensor, error) {
	d, err := b.findClass(k, m.Device, m.Path)
	if err != nil {
		return nil, err
	}
	path, err := attrOf(d.dir, attribute)
	if err != nil {
		return nil, err
	}
	a, err := openAttribute(path)
	if err != nil {
		return nil, err
	}
	return &sensorResource{read: plain(a.number), scale: scale, unit: unit, close: []io.Closer{a}}, nil
}

// driverSensor shares one chip between the resources that name its quantities.
func (b *Backend) driverSensor(r Resource) (Sensor, error) {
	d, option, err := findDriver(r.Match.Device)
	if err != nil {
		return nil, err
	}
	known := false
	for _, q := range d.quantities {
		known = known || q == r.Match.Channel
	}
	if !known {
		return nil, fmt.Errorf("quantity %q of %s: want one of %v: %w", clip(r.Match.Channel), d.name, d.quantities, unix.EINVAL)
	}
	bus, err := b.shareI2C(r)
	if err != nil {
		return nil, err
	}
	addr := r.Match.Addr
	if err := bus.it().free(addr); err != nil {
		return nil, joinClose(err, bus)
	}
	key := bus.it().node + " " + strconv.Itoa(int(addr))
	c, err := b.chips.get(key, r.Match.Device, func() (*chipSensor, error) {
		return &chipSensor{driver: d, option: option, bus: &chipBus{addr: addr, do: bus.it().guarded}}, nil
	})
	if err != nil {
		return nil, joinClose(err, bus)
	}
	return &sensorResource{
		read: func(ctx context.Context) (float64, error) {
			v, err := c.it().value(ctx, r.Match.Channel)
			return v, i2cError(bus, addr, err)
		},
		scale: 1, unit: senseUnit(r.Match.Channel), close: []io.Closer{c, bus},
	}, nil
}
