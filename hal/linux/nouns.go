package linux

import (
	"context"
	"errors"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// Kind is the contract's word for what a resource is, and with that what Backend.Open returns.
type Kind = hal.Kind

// The kinds that the kernel has something for. A line, a PWM channel and an LED are outputs or inputs with one number; the next
// five are buses that move bytes to one unit; a sensor is a number with a unit.
const (
	KindLine   = hal.KindLine
	KindPWM    = hal.KindPWM
	KindLED    = hal.KindLED
	KindI2C    = hal.KindI2C
	KindSPI    = hal.KindSPI
	KindSerial = hal.KindSerial
	KindModbus = hal.KindModbus
	KindCAN    = hal.KindCAN
	KindSensor = hal.KindSensor
)

// Resource is one thing of the board as its owner names and wires it.
type Resource struct {
	Name      string
	Kind      Kind
	Match     Match
	Wiring    Wiring
	Safe      float64 // of an output, logical: 0 or 1 of a line, 0 to 1 of PWM and LED
	SafeWrite []byte  // i2c: what makes the chip safe, written in one message; nil: it is no output
	Who       string  // for the kernel's consumer label: "sp:" and this, cut to 31 bytes; "" is the name
}

// Match finds a resource by what stays the same. Fields that a kind does not use are empty.
type Match struct {
	Chip   string // line: the controller's label; pwm: its device tree name
	Path   string // any: the device's path ("platform-fe200000.gpio"), or a node's for i2c, spi and serial
	Line   string // line: its name, "" for Offset
	Offset int

	Adapter string // i2c, and a sensor with a driver of ours
	Addr    uint16

	Controller string // spi
	CS         int

	USBPort, USBSerial string // serial and modbus: "1-1.3" or "1-1.3:1.0"

	Address string // modbus over TCP: host and port
	Unit    byte   // modbus

	Interface string // can

	Source  string // sensor: hwmon, thermal, power, w1, iio, driver
	Device  string // sensor: the device's name, the id of w1, the word of driver ("ina219:0.1")
	Channel string // sensor: attribute, channel or quantity; pwm: its number; led: its name
}

// Wiring is what the owner knows of the electrical side.
type Wiring struct {
	Out       bool
	Keep      bool          // output: begin with the level that the pin has
	ActiveLow bool          // line; pwm: inverted polarity
	Drive     string        // "" or push-pull, open-drain, open-source
	Bias      string        // "" or as-is, disabled, pull-up, pull-down
	Edges     string        // "" or rising, falling, both
	Debounce  time.Duration // 1 µs steps
	Buffer    int           // events that the kernel keeps, at most 1024

	Timeout time.Duration // i2c: of the adapter, for all who use it

	SPIMode uint32 // mode bits of linux/spi/spi.h
	Bits    uint8  // of a word; 0 is 8
	Speed   uint32 // Hz, at most

	Mode    string        // serial and modbus: "9600-8E1"
	RS485   *RS485        // nil: no switching of the direction
	Gap     time.Duration // modbus: silence beyond 3.5 characters
	Period  time.Duration // pwm
	Receive []IDMask      // can: what is received; nothing without
}

// RS485 is how a port switches the direction of its line.
type RS485 struct {
	RTSOnSend, RTSAfterSend, ReceiveWhileSending bool
	Before, After                                time.Duration // ms steps
}

// IDMask lets a CAN identifier pass that equals ID under Mask. Extended ones are told apart from standard ones.
type IDMask struct {
	ID, Mask uint32
	Extended bool
}

// Line is one GPIO line. Values are logical. Reading an output changes nothing.
type Line interface {
	Get(context.Context) (bool, error)
	Set(context.Context, bool) error
	Edges(context.Context) (EdgeReader, error)
	Close() error
}

// EdgeReader gives a line's edges in the kernel's order. Read waits for one and fills at most len(edges); it ends with
// an error of code gone, or with os.ErrClosed after Close.
type EdgeReader interface {
	Read(edges []Edge) (int, error)
	Close() error
}

// Edge is one event of a line.
type Edge struct {
	Mono   int64  // ns on CLOCK_MONOTONIC when the kernel saw it
	Seq    uint32 // of the line, from 1, wraps; a gap is lost events
	Rising bool   // logical; read from the level after the interrupt, so that two of a kind in a row mean merged ones
}

// Level is an output or input with a number from 0 to 1: a PWM channel's duty or an LED's brightness.
type Level interface {
	Get(context.Context) (float64, error)
	Set(context.Context, float64) error
	Close() error
}

// Bus moves bytes to and from one unit: a chip, a device, a port. The steps of one call are not interleaved with
// anything else as far as the kernel can promise it. A call is not cancelled by its context once the kernel has it.
type Bus interface {
	Do(ctx context.Context, ops []Op) error
	Close() error
}

// Op is one step of a bus. Got is what was read: R bytes, or what a unit answered.
type Op struct {
	W   []byte
	R   int
	Got []byte

	Until []byte // serial: read up to and with this

	Fn   string // modbus: read-coil, read-discrete, read-holding, read-input, write-coil, write-holding
	Addr uint16
	N    int // modbus reads: how many

	Frame Frame // can: what is sent
}

// Frame is one CAN frame. ID carries no flag bits.
type Frame struct {
	ID                   uint32
	Extended, Remote, FD bool
	Data                 []byte // at most 8 bytes, 64 with FD
	Time                 time.Time
	Lost                 uint32 // received ones: dropped by the kernel so far
}

// Receiver is a Bus that hears frames: Receive waits for one of those that the wiring lets pass.
type Receiver interface {
	Receive() (Frame, error)
}

// Sensor is a number. Read returns it as the kernel's documents say it; times scale it is in the unit, a UCUM code.
type Sensor interface {
	Read(context.Context) (float64, error)
	Unit() (scale float64, unit string)
	Close() error
}

// Capturer is a Sensor that the kernel can read by itself at each beat of a trigger; Read answers busy meanwhile.
type Capturer interface {
	// Capture starts with a trigger by its name, "" for the one that is set, and room for length samples.
	Capture(trigger string, length int) (SampleReader, error)
}

// SampleReader gives the samples in their order. Read waits for at least one; it ends with os.ErrClosed after Close.
type SampleReader interface {
	Read() ([]Sample, error)
	Close() error
}

// Sample is a number as Sensor.Read gives it, at a moment of CLOCK_MONOTONIC in ns; 0 when the driver tells no time.
type Sample struct {
	Value float64
	Mono  int64
}

// Holder is an output worth keeping while the agent is away: its descriptor and what makes it safe. The descriptor
// belongs to the Holder; copy it.
type Holder interface {
	FD(safe float64) (fd int, action hal.SafeAction, err error)
}

// Change says that something of the board came or went. Lost means that the kernel had to drop messages: look again at
// everything.
type Change struct {
	Subsystem string // gpio, i2c, tty, iio, …
	Action    string // add, remove, bind, unbind, change
	Path      string // below /sys
	Lost      bool
}

// MakeSafe performs a safe action on a copy of a Holder's descriptor: all that a keeper has to know of an output.
func MakeSafe(fd int, a hal.SafeAction) error {
	if len(a.Bytes) > 0 {
		_, err := unix.Pwrite(fd, a.Bytes, 0)
		if errors.Is(err, unix.ESPIPE) { // a device without offsets
			_, err = unix.Write(fd, a.Bytes)
		}
		return err
	}
	v := gpioValues{bits: a.Bits, mask: a.Mask}
	if !a.Set || v.mask == 0 {
		return nil
	}
	return ioctl(fd, gpioSetValues, unsafe.Pointer(&v))
}
