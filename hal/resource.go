package hal

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind is what a resource is, and with it which interface its device has.
type Kind string

// The kinds, and the interface of what [Backend.Open] returns for each.
const (
	KindLine   Kind = "line"   // Line: a GPIO line
	KindI2C    Kind = "i2c"    // Bus: one address of an adapter
	KindSPI    Kind = "spi"    // Bus: one chip select
	KindSerial Kind = "serial" // Bus: a whole port
	KindModbus Kind = "modbus" // Bus: one unit behind a port or a TCP address
	KindCAN    Kind = "can"    // Bus and FrameSource: the frames of some identifiers
	KindPWM    Kind = "pwm"    // Output: duty as a fraction from 0 to 1
	KindLED    Kind = "led"    // Output: brightness as a fraction from 0 to 1
	KindSensor Kind = "sensor" // Sensor
	KindNode   Kind = "device" // nothing to open: a raw device node, listed as unmediated
)

// Direction of a line.
type Direction string

// The directions.
const (
	In  Direction = "in"
	Out Direction = "out"
)

// Resource is one thing of the board under the name that its owner gave it. Exactly the part that its Kind names is set. A
// Resource is a value: nobody changes it after [Config.Resources] made it.
type Resource struct {
	Name   string        // ^[a-z][a-z0-9-]{0,31}$, unique over all kinds
	Kind   Kind          // says which part below is set
	Bus    string        // key of its worker: all resources of one chip, adapter, port or interface share it
	Unit   string        // UCUM; "" = a plain number
	Safe   *float64      // logical value of an output when nobody owns it; nil = an input, or the grant says it
	Allow  []string      // module ids; "*" = any
	Rate   Rate          // most operations; zero = no limit
	Limits Limits        // of values
	Time   time.Duration // most that one operation may take; 0 = one second

	Line   *LinePart
	I2C    *I2CPart
	SPI    *SPIPart
	Serial *SerialPart
	Modbus *ModbusPart
	CAN    *CANPart
	PWM    *PWMPart
	LED    *LEDPart
	Sensor *SensorPart
	Node   string        // device node, for KindNode
	Sim    *Wave         // what the simulation makes of it; other backends ignore it
	SafeBy SafeAuthority // who says what is safe
}

// SafeAuthority says who chooses the safe value of an output.
type SafeAuthority bool

// The authorities.
const (
	SafeByOwner  SafeAuthority = false
	SafeByModule SafeAuthority = true // the owner wrote safe = "module"
)

// Limits of the values of a resource. A value beyond them is refused, never clamped.
type Limits struct {
	_        apart
	Min, Max float64       // both 0 = none
	MaxOn    time.Duration // an output is forced safe after so long away from safe; 0 = never
}

// LinePart is a GPIO line. Chip is a label ("pinctrl-bcm2711"), Path the chip's device path ("platform-fe200000.gpio"); one is set.
// Line is the kernel's name of the line; if it is "", Offset counts.
type LinePart struct {
	_          apart
	Chip, Path string
	Line       string
	Offset     int
	Direction  Direction
	ActiveLow  bool   // the kernel inverts; values here are logical everywhere
	Drive      string // push-pull (default), open-drain, open-source
	Bias       string // as-is (default), disabled, pull-up, pull-down
	Edges      string // rising, falling, both (default of inputs)
	Initial    string // safe (default): direction and value in one request; keep: as it stands when opened
	Debounce   time.Duration
	Buffer     int    // events in the kernel's buffer; 0 = its default
	Consumer   string // label of the request, at most 31 bytes; "" = sp::<name>
}

// I2CPart is one address of an adapter. Adapter is a device-tree name ("i2c@7e804000") or a sysfs name, Path a device node.
type I2CPart struct {
	Adapter, Path string
	Addr          uint8 // 7 bits, 0x08-0x77
	RegBytes      int   // bytes of a register number: 0 = none, 1 or 2
	Read, Write   []Range
	Commands      []Prefix      // a command-style chip: what a write may begin with
	Timeout       time.Duration // of the adapter, for all its devices; 0 = the kernel's
}

// SPIPart is one chip select. Path is a device node ("/dev/spidev0.1"), or Controller ("spi@7e204000") and CS name it.
type SPIPart struct {
	Path       string
	Controller string
	CS         int

	Mode     uint8  // 0-3
	Bits     uint8  // per word; 0 = 8
	Hz       uint32 // most; 0 = the device's
	MaxBytes int    // of one operation; 0 = 4096
	Commands []Prefix
}

// Port is a serial port: one of its three is set. USBPort is a topology path ("1-1.3"), USBSerial a serial number.
type Port struct {
	_                        apart
	Path, USBPort, USBSerial string
}

// SerialPart is a port and its line settings.
type SerialPart struct {
	_         apart
	Port      Port
	Baud      int
	Data      int  // bits, 5-8
	Parity    byte // 'N', 'E' or 'O'
	Stop      int  // bits, 1 or 2
	RS485     bool
	RTSOnSend bool
	Gap       time.Duration // silence before a Modbus frame beyond t3.5
}

// Mode is the line settings as they are written, "9600-8E1".
func (p SerialPart) Mode() string {
	return strconv.Itoa(p.Baud) + "-" + strconv.Itoa(p.Data) + string(rune(p.Parity)) + strconv.Itoa(p.Stop)
}

// ParseMode reads line settings, "9600-8E1": baud, data bits, parity N, E or O, stop bits.
func (p *SerialPart) ParseMode(s string) error {
	baud, frame, found := strings.Cut(s, "-")
	n, err := strconv.ParseUint(baud, 10, 32)
	if !found || err != nil || n < 50 || n > 4_000_000 || len(frame) != 3 || frame[0] < '5' || frame[0] > '8' ||
		strings.IndexByte("NEO", frame[1]) < 0 || frame[2] < '1' || frame[2] > '2' {
		return fmt.Errorf("%.32q; want baud rate, data bits, parity and stop bits, as in 9600-8N1", s)
	}
	p.Baud, p.Data, p.Parity, p.Stop = int(n), int(frame[0]-'0'), frame[1], int(frame[2]-'0')
	return nil
}

// ModbusPart is one unit. Serial is set for RTU, TCP ("host:port") for Modbus TCP. All units of one port or address share a worker.
type ModbusPart struct {
	Serial      *SerialPart
	TCP         string
	Unit        uint8
	Read, Write []TableRange
}

// TableRange is a range of one table of a Modbus unit.
type TableRange struct {
	_     apart
	Table string // coil, discrete, input, holding
	Range Range
}

// String gives it as it is written, "holding:0x00-0x63".
func (t TableRange) String() string { return t.Table + ":" + t.Range.String() }

// UnmarshalText reads "holding:0-99" or "coil:7".
func (t *TableRange) UnmarshalText(text []byte) error {
	table, span, _ := strings.Cut(string(text), ":")
	if !slices.Contains([]string{"coil", "discrete", "input", "holding"}, table) {
		return fmt.Errorf("%.40q is no range of a table: want coil, discrete, input or holding, a colon and numbers, as in holding:0-99", text)
	}
	t.Table = table
	if err := t.Range.UnmarshalText([]byte(span)); err != nil {
		return err
	}
	if t.Range.Last > 0xffff {
		return fmt.Errorf("%.40q: a table ends at 65535", text)
	}
	return nil
}

// CANPart is a set of identifiers of an interface.
type CANPart struct {
	Interface string
	RX, TX    []IDMask
}

// PWMPart is one channel. Chip is the device path of its controller.
type PWMPart struct {
	_       apart
	Chip    string
	Channel int
	Period  time.Duration
	MaxDuty float64 // fraction; 0 = 1
}

// LEDPart is one LED, by its name under /sys/class/leds.
type LEDPart struct {
	Name string
}

// SensorPart is where a reading comes from and what is made of it: value = curve(scale·raw + offset).
type SensorPart struct {
	Source  Source
	Scale   float64 // 0 = 1
	Offset  float64
	Curve   []Point   // piecewise linear, at most 16 points, rising in X; empty = none
	Invalid []float64 // raw values that are no reading: quality bad
	Via     *Resource // the i2c or modbus resource that Source.I2C or Source.Modbus names; nil = none
}

// Point of a calibration curve.
type Point struct {
	_    apart
	X, Y float64
}

// Source of a sensor: the field that is set says which kind it is. Raw numbers are what the kernel gives; hwmon and thermal
// zones give thousandths.
type Source struct {
	_       apart
	Hwmon   string `json:"hwmon,omitempty" toml:"hwmon"`     // chip name
	IIO     string `json:"iio,omitempty" toml:"iio"`         // label or name
	Thermal string `json:"thermal,omitempty" toml:"thermal"` // zone type
	W1      string `json:"w1,omitempty" toml:"w1"`           // id, "28-…"
	Power   string `json:"power,omitempty" toml:"power"`     // supply name
	I2C     string `json:"i2c,omitempty" toml:"i2c"`         // name of an i2c resource
	Modbus  string `json:"modbus,omitempty" toml:"modbus"`   // name of a modbus resource
	Driver  string `json:"driver,omitempty" toml:"driver"`   // built-in driver, on the resource I2C
	Parent  string `json:"parent,omitempty" toml:"parent"`   // device path, where a name is not unique
	Attr    string `json:"attr,omitempty" toml:"attr"`       // file or channel: temp1_input, in_voltage0, holding:3
	Type    string `json:"type,omitempty" toml:"type"`       // of register contents: u8 s8 u16be s16be u16le s16le u32be s32be f32be
}
