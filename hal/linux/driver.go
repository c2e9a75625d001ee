package linux

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// chipBus is one address of an adapter for a driver. After its time is over each transfer fails: a driver that waits for its
// chip ends then.
type chipBus struct {
	do    func(addr uint16, ops []hal.Op) error
	addr  uint16
	until time.Time // zero: no end
}

// write sends bytes, the register first.
func (b *chipBus) write(w ...byte) error { return b.tx(w, nil) }

// read fills r from a register on.
func (b *chipBus) read(reg byte, r []byte) error { return b.tx([]byte{reg}, r) }

func (b *chipBus) tx(w, r []byte) error {
	if !b.until.IsZero() && time.Now().After(b.until) {
		return context.DeadlineExceeded
	}
	return b.do(b.addr, []hal.Op{{Write: w, Data: r}})
}

// wait asks a chip every 2 ms until these bits of a register say that its conversion is over.
func (b *chipBus) wait(reg byte, r []byte, mask, done byte) error {
	for {
		if err := b.read(reg, r); err != nil || r[0]&mask == done {
			return err
		}
		<-time.After(2 * time.Millisecond)
	}
}

// sense reads one of a chip's quantities, and those that come with it, each in its unit: Cel, Pa, %, A, W, and V for the rest.
type sense func(nth int, into *readings) error

// readings are a chip's quantities in the order of its driver; NaN = not read.
type readings [4]float64

// chipDriver is a sensor driver that the agent brings along: for chips without a driver in the kernel at hand.
type chipDriver struct {
	name       string
	quantities []string
	// start sets the chip up; option is the owner's word after the name ("ina219:0.1" for a shunt of 0.1 Ω).
	start func(b *chipBus, option string) (sense, error)
}

// chipDrivers is the short list; the kernel's own hwmon and IIO drivers come first for every other chip, and a module may bring
// any driver of periph.io by hal/linux/conn.
var chipDrivers = [...]chipDriver{
	{"bme280", []string{"temperature", "pressure", "humidity"}, startBMX},
	{"bmp280", []string{"temperature", "pressure"}, startBMX},
	{"ina219", []string{"voltage", "current", "power", "shunt"}, startINA219},
	{"ads1115", []string{"in0", "in1", "in2", "in3"}, startADS},
	{"ads1015", []string{"in0", "in1", "in2", "in3"}, startADS},
}

// findDriver takes "bme280" or "ina219:0.1".
func findDriver(word string) (*chipDriver, string, error) {
	name, option, _ := strings.Cut(word, ":")
	known := make([]string, len(chipDrivers))
	for i := range chipDrivers {
		if known[i] = chipDrivers[i].name; known[i] == name {
			return &chipDrivers[i], option, nil
		}
	}
	return nil, "", fmt.Errorf("driver %q: %w; there are: %s", clip(name), fs.ErrNotExist, strings.Join(known, ", "))
}

// amount is an option that is a number within bounds; or is what it is when the owner gave none.
func amount(option, what string, or, most float64) (float64, error) {
	if option == "" {
		return or, nil
	}
	v, err := strconv.ParseFloat(option, 64)
	if err != nil || !(v > 0 && v <= most) {
		return 0, fmt.Errorf("%s %q: want a number up to %v: %w", what, clip(option), most, unix.EINVAL)
	}
	return v, nil
}

// startINA219 is a shunt and a bus voltage (SBOS448G): ±320 mV over the shunt, continuously.
func startINA219(b *chipBus, option string) (sense, error) {
	ohm, err := amount(option, "shunt in ohms", 0.1, 1000)
	if err != nil {
		return nil, err
	}
	if err := b.write(0, 0x39, 0x9f); err != nil {
		return nil, err
	}
	return func(_ int, into *readings) error {
		var shunt, bus [2]byte
		if err := b.read(1, shunt[:]); err != nil {
			return err
		}
		if err := b.read(2, bus[:]); err != nil {
			return err
		}
		drop := float64(s16be(shunt[:])) * 10e-6
		volts := float64(uint16(s16be(bus[:]))>>3) * 4e-3
		*into = readings{volts, drop / ohm, volts * drop / ohm, drop}
		return nil
	}, nil
}

func s16be(b []byte) int16 { return int16(b[0])<<8 | int16(b[1]) }
func s16le(b []byte) int16 { return int16(b[1])<<8 | int16(b[0]) }

// adsRanges are the volts of the amplifier's settings, from 0 on (SBAS444E).
var adsRanges = [...]float64{6.144, 4.096, 2.048, 1.024, 0.512, 0.256}

func startADS(b *chipBus, option string) (sense, error) {
	volts, err := amount(option, "range in volts", 4.096, 6.144)
	if err != nil {
		return nil, err
	}
	gain := 0
	for i, v := range adsRanges {
		if volts <= v {
			gain = i // the smallest range that holds it
		}
	}
	return func(nth int, into *readings) error {
		if err := b.write(1, 0x81|byte(4+nth)<<4|byte(gain)<<1, 0x83); err != nil { // one conversion, comparator off
			return err
		}
		var r [2]byte
		if err := b.wait(1, r[:], 0x80, 0x80); err != nil {
			return err
		}
		err := b.read(0, r[:])
		into[nth] = float64(s16be(r[:])) * adsRanges[gain] / 32768
		return err
	}, nil
}

// chipSensor is a chip with its driver, shared by the resources that name its quantities. It is set up at the first
// read and again after an error, so that a chip that lost its supply comes back by itself.
type chipSensor struct {
	mu     sync.Mutex // held for a conversion
	driver *chipDriver
	option string
	bus    *chipBus
	read   sense
	last   readings
	at     time.Time
}

// chipFresh is how long one conversion serves all quantities of a chip.
const chipFresh = 100 * time.Millisecond

// chipTime bounds a conversion whose caller has no deadline.
const chipTime = 2 * time.Second

func (c *chipSensor) value(ctx context.Context, nth int) (float64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if math.IsNaN(c.last[nth]) || time.Since(c.at) > chipFresh {
		c.bus.until = deadlineOf(ctx)
		if c.bus.until.IsZero() {
			c.bus.until = time.Now().Add(chipTime)
		}
		if err := c.convert(nth); err != nil {
			c.read, c.at = nil, time.Time{}
			return 0, err
		}
	}
	v := c.last[nth]
	if math.IsNaN(v) {
		return 0, fmt.Errorf("%s of %s: %w", c.driver.quantities[nth], c.driver.name, unix.ENODATA)
	}
	return v, nil
}

func (c *chipSensor) convert(nth int) (err error) {
	if c.read == nil {
		if c.read, err = c.driver.start(c.bus, c.option); err != nil {
			return fmt.Errorf("set up %s: %w", c.driver.name, err)
		}
	}
	for i := range c.last {
		c.last[i] = math.NaN()
	}
	if err := c.read(nth, &c.last); err != nil {
		return fmt.Errorf("read %s: %w", c.driver.name, err)
	}
	c.at = time.Now()
	return nil
}

// Close has nothing to close: the bus belongs to its pool.
func (c *chipSensor) Close() error { return nil }

// chipQuantity is one quantity of a chip that resources share.
type chipQuantity struct {
	_         noCompare
	chip, bus *share
	addr      uint16
	nth       int
}

// Read converts, or gives what was converted just now.
func (q *chipQuantity) Read(ctx context.Context) (hal.Value, error) {
	v := hal.Value{Time: time.Now(), Mono: monotonic()}
	var err error
	v.Num, err = q.chip.it().(*chipSensor).value(ctx, q.nth)
	return v, i2cError(q.bus, q.addr, err)
}

// Close gives chip and bus back.
func (q *chipQuantity) Close() error {
	_ = q.chip.Close() // it has nothing to close
	return q.bus.Close()
}

func (b *Board) openChip(p *hal.SensorPart) (hal.Device, error) {
	d, option, err := findDriver(p.Source.Driver)
	if err != nil {
		return nil, err
	}
	nth := slices.Index(d.quantities, p.Source.Attr)
	if nth < 0 {
		return nil, fmt.Errorf("quantity %q of %s: want one of %v: %w", clip(p.Source.Attr), d.name, d.quantities, unix.EINVAL)
	}
	if p.Via == nil || p.Via.I2C == nil {
		return nil, fmt.Errorf("driver %s without an i2c device: %w", d.name, unix.EINVAL)
	}
	bus, err := b.shareI2C(p.Via.I2C)
	if err != nil {
		return nil, err
	}
	addr := uint16(p.Via.I2C.Addr)
	chip, err := b.chips.get(fmt.Sprintf("address %#02x of %s", addr, busOf(bus).at.node), p.Source.Driver, func() (io.Closer, error) {
		return &chipSensor{driver: d, option: option, bus: &chipBus{addr: addr, do: busOf(bus).guarded}}, nil
	})
	if err != nil {
		_ = bus.Close()
		return nil, err
	}
	return &chipQuantity{chip: chip, bus: bus, addr: addr, nth: nth}, nil
}
