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
	LED    string // name under /sys/class/leds, for KindLED
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
	_        noCompare
	Min, Max float64       // both 0 = none
	MaxOn    time.Duration // an output is forced safe after so long away from safe; 0 = never
}

// LinePart is a GPIO line. Chip is a label ("pinctrl-bcm2711"), Path the chip's device path ("platform-fe200000.gpio"); one is set.
// Line is the kernel's name of the line; if it is "", Offset counts.
type LinePart struct {
	_         noCompare
	Chip      string    `toml:"chip"`
	Path      string    `toml:"path"`
	Line      string    `toml:"line"`
	Offset    int       `toml:"-"`
	Direction Direction `toml:"direction"`
	ActiveLow bool      `toml:"active_low"` // the kernel inverts; values here are logical everywhere
	Drive     string    `toml:"drive"`      // push-pull (default), open-drain, open-source
	Bias      string    `toml:"bias"`       // as-is (default), disabled, pull-up, pull-down
	Edges     string    `toml:"edges"`      // rising, falling, both (default of inputs)
	Initial   string    `toml:"initial"`    // safe (default): direction and value in one request; keep: as it stands when opened
	Debounce  Duration  `toml:"debounce"`
	Buffer    int       `toml:"buffer"` // events in the kernel's buffer; 0 = its default
	Consumer  string    `toml:"-"`      // label of the request, at most 31 bytes; "" = sp::<name>
}

// I2CPart is one address of an adapter. Adapter is a device-tree name ("i2c@7e804000") or a sysfs name, Path a device node.
type I2CPart struct {
	Adapter  string        `toml:"-"`
	Path     string        `toml:"-"`
	Addr     int           `toml:"addr"`      // 7 bits, 0x08-0x77
	RegBytes int           `toml:"reg_bytes"` // bytes of a register number: 0 = none, 1 or 2
	Read     []Range       `toml:"read"`
	Write    []Range       `toml:"write"`
	Commands []Prefix      `toml:"commands"` // a command-style chip: what a write may begin with
	Timeout  time.Duration `toml:"-"`        // of the adapter, for all its devices; 0 = the kernel's
}

// SPIPart is one chip select. Path is a device node ("/dev/spidev0.1"), or Controller ("spi@7e204000") and CS name it.
type SPIPart struct {
	Path       string   `toml:"path"`
	Controller string   `toml:"controller"`
	CS         int      `toml:"cs"`
	Mode       int      `toml:"mode"`      // 0-3
	Bits       int      `toml:"bits"`      // per word; 0 = 8
	Hz         int      `toml:"hz"`        // most; 0 = the device's
	MaxBytes   int      `toml:"max_bytes"` // of one operation; 0 = 4096
	Commands   []Prefix `toml:"commands"`
}

// SerialPart is a port, found by Path or USB, and its line settings.
type SerialPart struct {
	_     noCompare
	Path  string       `toml:"path"`
	USB   USBPort      `toml:"usb"`
	Mode  string       `toml:"mode"`  // 9600-8E1: baud, data bits, parity N, E or O, stop bits
	RS485 *RS485Config `toml:"rs485"` // nil = the port does not switch
	Gap   Duration     `toml:"gap"`   // silence before a Modbus frame beyond t3.5
}

// USBPort finds a port by what stays when it is plugged in again.
type USBPort struct {
	_      noCompare
	Port   string `toml:"port"`   // topology path, "1-1.3"
	Serial string `toml:"serial"` // of the adapter
}

// RS485Config is how a port switches the direction of its line.
type RS485Config struct {
	RTSOnSend bool `toml:"rts_on_send"`
}

// Port is the port under the name that its owner gave.
func (p *SerialPart) Port() string { return p.Path + p.USB.Port + p.USB.Serial }

// LineMode is how characters go over a serial line.
type LineMode struct {
	_      noCompare
	Baud   int
	Data   int  // bits, 5-8
	Parity byte // 'N', 'E' or 'O'
	Stop   int  // bits, 1 or 2
}

// ParseMode reads line settings, "9600-8E1": baud, data bits, parity N, E or O, stop bits.
func ParseMode(s string) (*LineMode, error) {
	baud, frame, found := strings.Cut(s, "-")
	n, err := strconv.ParseUint(baud, 10, 32)
	if !found || err != nil || n < 50 || n > 4_000_000 || len(frame) != 3 || frame[0] < '5' || frame[0] > '8' ||
		strings.IndexByte("NEO", frame[1]) < 0 || frame[2] < '1' || frame[2] > '2' {
		return nil, fmt.Errorf("%.32q; want baud rate, data bits, parity and stop bits, as in 9600-8N1", s)
	}
	return &LineMode{Baud: int(n), Data: int(frame[0] - '0'), Parity: frame[1], Stop: int(frame[2] - '0')}, nil
}

// ModbusPart is one unit. Serial is set for RTU, TCP ("host:port") for Modbus TCP. All units of one port or address share a worker.
type ModbusPart struct {
	Serial *SerialPart  `toml:"-"`
	TCP    string       `toml:"-"`
	Unit   int          `toml:"unit"` // 1-247; over TCP 0-255
	Read   []TableRange `toml:"read"`
	Write  []TableRange `toml:"write"`
}

// TableRange is a range of one table of a Modbus unit.
type TableRange struct {
	_     noCompare
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
	Interface string   `toml:"-"`
	RX        []IDMask `toml:"rx"`
	TX        []IDMask `toml:"tx"`
}

// PWMPart is one channel. Chip is the device path of its controller.
type PWMPart struct {
	_       noCompare
	Chip    string        `toml:"chip"`
	Channel int           `toml:"channel"`
	Period  time.Duration `toml:"-"`
	MaxDuty float64       `toml:"max_duty"` // fraction; 0 = 1
}

// SensorPart is where a reading comes from and what is made of it: value = curve(scale·raw + offset).
type SensorPart struct {
	Source  Source      `toml:"source"`
	Scale   float64     `toml:"scale"` // 0 = 1
	Offset  float64     `toml:"offset"`
	Curve   [][]float64 `toml:"curve"`   // piecewise linear: at most 16 points of from and to, rising in from; empty = none
	Invalid []float64   `toml:"invalid"` // raw values that are no reading: quality bad
	Via     *Resource   `toml:"-"`       // the i2c or modbus resource that Source.I2C or Source.Modbus names; nil = none
}

// Source of a sensor: the field that is set says which kind it is. Raw numbers are what the kernel gives; hwmon and thermal
// zones give thousandths.
type Source struct {
	_       noCompare
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
