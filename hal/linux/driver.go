package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
	"periph.io/x/devices/v3/ads1x15"
	"periph.io/x/devices/v3/bmxx80"
	"periph.io/x/devices/v3/ina219"

	"golang.org/x/sys/unix"
)

// chipBus is one address of an adapter as the drivers of periph.io want to see a bus. It refuses every other
// address, has no speed to set, and remembers the kernel's error, which drivers replace by texts of their own. After
// its time is over each transfer fails: a driver that polls a chip until it is ready ends then.
type chipBus struct {
	name  string
	do    func(addr uint16, pieces []piece) error
	addr  uint16
	until time.Time // zero: no end
	err   error     // of the last transfer
}

var _ i2c.Bus = (*chipBus)(nil)

func (b *chipBus) String() string { return b.name }

// Tx is a combined write and read.
func (b *chipBus) Tx(addr uint16, w, r []byte) error {
	if addr != b.addr {
		return fmt.Errorf("address %#02x from a driver for %#02x: %w", addr, b.addr, fs.ErrPermission)
	}
	if !b.until.IsZero() && time.Now().After(b.until) {
		b.err = context.DeadlineExceeded
	} else {
		b.err = b.do(addr, []piece{{w: w, r: r}})
	}
	return b.err
}

// SetSpeed is refused: the speed is the device owner's and the same for every chip of the adapter.
func (b *chipBus) SetSpeed(physic.Frequency) error { return errors.ErrUnsupported }

// sense reads a quantity of a chip, and what comes with it, each in the unit of its name in senseUnits.
type sense func(quantity string) (map[string]float64, error)

// chipDriver is a sensor driver that the agent brings along: for chips without a driver in the kernel at hand.
type chipDriver struct {
	name       string
	quantities []string
	// start sets the chip up; option is the owner's word after the name ("ina219:0.1" for a shunt of 0.1 Ω).
	start func(b *chipBus, name, option string) (sense, error)
}

// senseUnits are the UCUM codes of the quantities; those that are not listed are volts.
var senseUnits = [...][2]string{{"temperature", "Cel"}, {"pressure", "Pa"}, {"humidity", "%"}, {"current", "A"}, {"power", "W"}, {"voltage", "V"}, {"shunt", "V"}}

func senseUnit(quantity string) string {
	for _, u := range senseUnits {
		if u[0] == quantity {
			return u[1]
		}
	}
	return "V"
}

// chipDrivers is the short list; the kernel's own hwmon and IIO drivers come first for every other chip.
var chipDrivers = [...]chipDriver{
	{"bme280", []string{"temperature", "pressure", "humidity"}, startBMX},
	{"bmp280", []string{"temperature", "pressure"}, startBMX},
	{"bmp180", []string{"temperature", "pressure"}, startBMX},
	{"ina219", []string{"voltage", "current", "power", "shunt"}, startINA219},
	{"ads1115", []string{"in0", "in1", "in2", "in3"}, startADS},
	{"ads1015", []string{"in0", "in1", "in2", "in3"}, startADS},
}

// findDriver takes "bme280" or "ina219:0.1".
func findDriver(word string) (chipDriver, string, error) {
	name, option, _ := strings.Cut(word, ":")
	known := make([]string, 0, len(chipDrivers))
	for _, d := range chipDrivers {
		if d.name == name {
			return d, option, nil
		}
		known = append(known, d.name)
	}
	return chipDriver{}, "", fmt.Errorf("driver %q: %w; there are: %s", clip(name), fs.ErrNotExist, strings.Join(known, ", "))
}

func startBMX(b *chipBus, _, _ string) (sense, error) {
	d, err := bmxx80.NewI2C(b, b.addr, &bmxx80.Opts{Temperature: bmxx80.O4x, Pressure: bmxx80.O4x, Humidity: bmxx80.O4x})
	if err != nil {
		return nil, err
	}
	return func(string) (map[string]float64, error) {
		var e physic.Env
		if err := d.Sense(&e); err != nil {
			return nil, err
		}
		return map[string]float64{
			"temperature": e.Temperature.Celsius(),
			"pressure":    float64(e.Pressure) / float64(physic.Pascal),
			"humidity":    float64(e.Humidity) / float64(physic.PercentRH),
		}, nil
	}, nil
}

func startINA219(b *chipBus, _, option string) (sense, error) {
	ohm := 0.1
	if option != "" {
		var err error
		if ohm, err = strconv.ParseFloat(option, 64); err != nil || !(ohm > 0 && ohm < 1000) {
			return nil, fmt.Errorf("shunt %q: want ohms, as in ina219:0.1", clip(option))
		}
	}
	d, err := ina219.New(b, &ina219.Opts{Address: int(b.addr), SenseResistor: physic.ElectricResistance(ohm * float64(physic.Ohm)), MaxCurrent: physic.ElectricCurrent(0.32 / ohm * float64(physic.Ampere))})
	if err != nil {
		return nil, err
	}
	return func(string) (map[string]float64, error) {
		p, err := d.Sense()
		if err != nil {
			return nil, err
		}
		return map[string]float64{
			"voltage": float64(p.Voltage) / float64(physic.Volt),
			"shunt":   float64(p.Shunt) / float64(physic.Volt),
			"current": float64(p.Current) / float64(physic.Ampere),
			"power":   float64(p.Power) / float64(physic.Watt),
		}, nil
	}, nil
}

func startADS(b *chipBus, name, option string) (sense, error) {
	volts := 4.096
	if option != "" {
		var err error
		if volts, err = strconv.ParseFloat(option, 64); err != nil || !(volts > 0 && volts <= 6.144) {
			return nil, fmt.Errorf("range %q: want volts, as in ads1115:4.096", clip(option))
		}
	}
	open := ads1x15.NewADS1115
	if name == "ads1015" {
		open = ads1x15.NewADS1015
	}
	d, err := open(b, &ads1x15.Opts{I2cAddress: b.addr})
	if err != nil {
		return nil, err
	}
	channels := map[string]ads1x15.Channel{"in0": ads1x15.Channel0, "in1": ads1x15.Channel1, "in2": ads1x15.Channel2, "in3": ads1x15.Channel3}
	return func(quantity string) (map[string]float64, error) {
		pin, err := d.PinForChannel(channels[quantity], physic.ElectricPotential(volts*float64(physic.Volt)), 128*physic.Hertz, ads1x15.BestQuality)
		if err != nil {
			return nil, err
		}
		s, err := pin.Read()
		return map[string]float64{quantity: float64(s.V) / float64(physic.Volt)}, err
	}, nil
}

// chipSensor is a chip with its driver, shared by the resources that name its quantities. It is set up at the first
// read and again after an error, so that a chip that lost its supply comes back by itself.
type chipSensor struct {
	mu     sync.Mutex // held for a conversion
	driver chipDriver
	option string
	bus    *chipBus
	read   sense
	last   map[string]float64
	at     time.Time
}

// chipFresh is how long one conversion serves all quantities of a chip.
const chipFresh = 100 * time.Millisecond

// chipTime bounds a conversion whose caller has no deadline.
const chipTime = 2 * time.Second

func (c *chipSensor) value(ctx context.Context, quantity string) (float64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.last[quantity]; !ok || time.Since(c.at) > chipFresh {
		c.bus.until = deadlineOf(ctx)
		if c.bus.until.IsZero() {
			c.bus.until = time.Now().Add(chipTime)
		}
		if err := c.convert(quantity); err != nil {
			c.read, c.last = nil, nil
			return 0, err
		}
	}
	v, ok := c.last[quantity]
	if !ok || math.IsNaN(v) {
		return 0, fmt.Errorf("%s of %s: %w", quantity, c.driver.name, unix.ENODATA)
	}
	return v, nil
}

func (c *chipSensor) convert(quantity string) error {
	c.bus.err = nil
	if c.read == nil {
		r, err := c.driver.start(c.bus, c.driver.name, c.option)
		if err != nil {
			return c.cause("set up "+c.driver.name, err)
		}
		c.read = r
	}
	m, err := c.read(quantity)
	if err != nil {
		return c.cause("read "+c.driver.name, err)
	}
	c.last, c.at = m, time.Now()
	return nil
}

// cause puts the kernel's error back into what the driver said.
func (c *chipSensor) cause(what string, err error) error {
	if c.bus.err != nil {
		return fmt.Errorf("%s: %w", what, c.bus.err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Close has nothing to close: the bus belongs to its pool.
func (c *chipSensor) Close() error { return nil }
