package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// sensorResource is a number from one of the kernel's subsystems or from a driver of ours, as the kernel gives it: the owner's configuration
// says what is made of it.
type sensorResource struct {
	read  func(context.Context) (float64, error)
	close [2]io.Closer // the second may be nil
}

// Read gives the raw number.
func (s *sensorResource) Read(ctx context.Context) (hal.Value, error) {
	v := hal.Value{Time: time.Now(), Mono: monotonic()}
	err := ctx.Err()
	if err == nil {
		v.Num, err = s.read(ctx)
	}
	return v, coded(KindSensor, err)
}

// Close lets go of it.
func (s *sensorResource) Close() error {
	err := s.close[0].Close()
	if s.close[1] != nil {
		err = joinClose(err, s.close[1])
	}
	return err
}

// plain is a sensor that has a file of its own.
func plain(read func() (float64, error), file io.Closer) *sensorResource {
	return &sensorResource{read: func(context.Context) (float64, error) { return read() }, close: [2]io.Closer{file}}
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

func (b *Board) openSensor(r *hal.Resource) (hal.Device, error) {
	s := &r.Sensor.Source
	switch {
	case s.Driver != "":
		return b.driverSensor(r.Sensor)
	case r.Sensor.Via != nil:
		return b.openRegister(r.Sensor)
	case s.IIO != "":
		d, err := b.findIIO(s.IIO, s.Parent)
		if err != nil {
			return nil, err
		}
		c, err := d.openChannel(s.Attr)
		if err != nil {
			return nil, err
		}
		return &iioSensor{plain(c.read, c), d, s.Attr}, nil
	case s.W1 != "":
		t, err := b.openW1(s.W1)
		if err != nil {
			return nil, err
		}
		return plain(t.read, t), nil
	case s.Power != "":
		return b.classSensor(powerClass, s.Power, s.Parent, s.Attr)
	case s.Thermal != "":
		return b.classSensor(thermalClass, s.Thermal, s.Parent, "temp")
	case s.Hwmon != "":
		return b.classSensor(hwmonClass, s.Hwmon, s.Parent, s.Attr)
	}
	return nil, fmt.Errorf("a sensor without a source: %w", errors.ErrUnsupported)
}

func (b *Board) classSensor(k classKind, name, parent, attribute string) (hal.Device, error) {
	d, err := b.findClass(k, name, parent)
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
	return plain(a.number, a), nil
}

// driverSensor shares one chip between the resources that name its quantities.
func (b *Board) driverSensor(p *hal.SensorPart) (hal.Device, error) {
	quantity := p.Source.Attr
	d, option, err := findDriver(p.Source.Driver)
	if err != nil {
		return nil, err
	}
	known := false
	for _, q := range d.quantities {
		known = known || q == quantity
	}
	if !known {
		return nil, fmt.Errorf("quantity %q of %s: want one of %v: %w", clip(quantity), d.name, d.quantities, unix.EINVAL)
	}
	if p.Via == nil || p.Via.I2C == nil {
		return nil, fmt.Errorf("driver %s without an i2c device: %w", d.name, unix.EINVAL)
	}
	bus, err := b.shareI2C(p.Via.I2C)
	if err != nil {
		return nil, err
	}
	addr := uint16(p.Via.I2C.Addr)
	key := busOf(bus).node + " " + strconv.Itoa(int(addr))
	c, err := b.chips.get(key, p.Source.Driver, func() (io.Closer, error) {
		return &chipSensor{driver: d, option: option, bus: &chipBus{addr: addr, do: busOf(bus).guarded}}, nil
	})
	if err != nil {
		return nil, joinClose(err, bus)
	}
	return &sensorResource{
		read: func(ctx context.Context) (float64, error) {
			v, err := c.it().(*chipSensor).value(ctx, quantity)
			return v, i2cError(bus, addr, err)
		},
		close: [2]io.Closer{c, bus},
	}, nil
}
