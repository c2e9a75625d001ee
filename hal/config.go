package hal

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config is the [hal] section of the device's configuration: what its owner names, wires, limits and allows.
type Config struct {
	Backend string         `toml:"backend"` // linux (default), sim
	Replay  string         `toml:"replay"`  // of sim: a file of `sandpiper hal record` that is played again
	Hold    Duration       `toml:"hold"`    // the warden keeps outputs so long for a missing agent; default 10s
	Line    []LineConfig   `toml:"line"`
	I2C     []I2CConfig    `toml:"i2c"`
	Sensor  []SensorConfig `toml:"sensor"`
	PWM     []PWMConfig    `toml:"pwm"`
	LED     []LEDConfig    `toml:"led"`
	CAN     []CANConfig    `toml:"can"`
	SPI     []SPIConfig    `toml:"spi"`
	Serial  []SerialConfig `toml:"serial"`
	Modbus  []ModbusConfig `toml:"modbus"` // over TCP
	Device  []NodeConfig   `toml:"device"` // raw device nodes, listed as unmediated
}

// Named is what all entries have.
type Named struct {
	Name  string   `toml:"name"`
	Allow []string `toml:"allow"`
}

// LineConfig is one [[hal.line]].
type LineConfig struct {
	Named
	LinePart
	Number  *int     `toml:"offset"`
	Safe    SafeWord `toml:"safe"`
	MaxRate Rate     `toml:"max_rate"`
	MaxOn   Duration `toml:"max_on"`
	Sim     *Wave    `toml:"sim"`
}

// I2CConfig is one [[hal.i2c]]: an adapter and its devices.
type I2CConfig struct {
	Name    string      `toml:"name"`
	Adapter string      `toml:"adapter"`
	Path    string      `toml:"path"`
	Timeout Duration    `toml:"timeout"`
	Device  []I2CDevice `toml:"device"`
}

// I2CDevice is one address of an adapter.
type I2CDevice struct {
	Named
	I2CPart
	Rate Rate `toml:"rate"`
}

// SensorConfig is one [[hal.sensor]].
type SensorConfig struct {
	Named
	SensorPart
	Unit  string    `toml:"unit"`
	Range []float64 `toml:"range"`
	Rate  Rate      `toml:"rate"`
	Sim   *Wave     `toml:"sim"`
}

// PWMConfig is one [[hal.pwm]].
type PWMConfig struct {
	Named
	PWMPart
	Freq  float64  `toml:"freq"` // Hz
	Safe  SafeWord `toml:"safe"`
	MaxOn Duration `toml:"max_on"`
}

// LEDConfig is one [[hal.led]].
type LEDConfig struct {
	Named
	LED  string   `toml:"led"` // its name under /sys/class/leds
	Safe SafeWord `toml:"safe"`
}

// CANConfig is one [[hal.can]]: an interface and the sets of its identifiers.
type CANConfig struct {
	Interface string      `toml:"interface"`
	Filter    []CANFilter `toml:"filter"`
}

// CANFilter is one set of identifiers.
type CANFilter struct {
	Named
	CANPart
	Rate Rate `toml:"rate"`
}

// SafeWord is a safe value, or the word "module".
type SafeWord struct {
	_      noCompare
	Value  *float64
	Module bool
}

// UnmarshalTOML reads a number or "module".
func (s *SafeWord) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case int64:
		f := float64(v)
		s.Value = &f
		return nil
	case float64:
		s.Value = &v
		return nil
	case string:
		if v == "module" {
			s.Module = true
			return nil
		}
	}
	return errors.New(`safe is a number, or "module" where the deployment says it`)
}

// ConfigError is what is wrong with a configuration: Key is the path of the entry ("line.0.safe"), Why what would be right.
type ConfigError struct {
	_        noCompare
	Key, Why string
}

func (f *ConfigError) Error() string { return f.Key + ": " + f.Why }

// Resources checks the section and gives its resources. The error is a *[ConfigError].
func (c *Config) Resources() ([]Resource, error) {
	b := build{names: map[string]bool{}, claims: map[string]string{}}
	if c.Backend != "" && c.Backend != "linux" && c.Backend != "sim" {
		b.fail("backend", "%.32q; want linux or sim", c.Backend)
	}
	if c.Replay != "" && c.Backend != "sim" {
		b.fail("replay", `a recording is played on a simulated board; add backend = "sim"`)
	}
	for i := range c.Line {
		b.enter("line", i)
		b.line(&c.Line[i])
	}
	for i := range c.I2C {
		b.enter("i2c", i)
		b.i2c(&c.I2C[i])
	}
	for i := range c.PWM {
		p := &c.PWM[i]
		b.enter("pwm", i)
		if !(p.Freq > 0 && p.Freq <= 1e7) || p.MaxDuty < 0 || p.MaxDuty > 1 {
			b.fail("freq", "%g Hz, max_duty %g; want more than 0 to 10 MHz, and a fraction", p.Freq, p.MaxDuty)
			continue
		}
		p.Period = time.Duration(float64(time.Second) / p.Freq)
		r := &Resource{Kind: KindPWM, Bus: "pwm " + p.Chip, Limits: Limits{MaxOn: time.Duration(p.MaxOn)}, PWM: &p.PWMPart}
		b.safe(r, &p.Safe)
		b.add(&p.Named, r, fmt.Sprintf("pwm %s %d", p.Chip, p.Channel))
	}
	for i := range c.LED {
		l := &c.LED[i]
		b.enter("led", i)
		r := &Resource{Kind: KindLED, Bus: "led " + l.LED, LED: l.LED}
		b.safe(r, &l.Safe)
		b.add(&l.Named, r, "led "+l.LED)
	}
	for i := range c.CAN {
		n := &c.CAN[i]
		for k := range n.Filter {
			f := &n.Filter[k]
			f.Interface = n.Interface
			b.enter("can."+strconv.Itoa(i)+".filter", k)
			b.add(&f.Named, &Resource{Kind: KindCAN, Bus: "can " + n.Interface, Rate: f.Rate, CAN: &f.CANPart}, "")
		}
	}
	b.buses(c)
	for i := range c.Sensor { // after the chips and units that they are read through
		b.enter("sensor", i)
		b.sensor(&c.Sensor[i])
	}
	if b.fault != nil {
		return nil, b.fault
	}
	return b.list, nil
}

// build collects resources, and the first fault.
type build struct {
	at     string // path of the entry at hand
	list   []Resource
	names  map[string]bool
	claims map[string]string // what of the board is claimed, and by which name
	fault  *ConfigError
}

// enter begins an entry: what is wrong from here on is of it.
func (b *build) enter(list string, i int) { b.at = list + "." + strconv.Itoa(i) }

// fail notes what is wrong with a key of the entry, "" = with the entry as a whole.
func (b *build) fail(key, format string, args ...any) {
	if b.fault == nil {
		b.fault = &ConfigError{Key: strings.Trim(b.at+"."+key, "."), Why: fmt.Sprintf(format, args...)}
	}
}

// add takes the resource of an entry; claim is what of the board it is, "" = it may be shared.
func (b *build) add(e *Named, r *Resource, claim string) {
	r.Name, r.Allow = e.Name, e.Allow
	switch {
	case !isName(r.Name):
		b.fail("name", "%.40q; want a small letter, then up to 31 small letters, digits and dashes", r.Name)
	case b.names[r.Name]:
		b.fail("name", "%q is the name of another entry; names are unique over all kinds", r.Name)
	case claim != "" && b.claims[claim] != "":
		b.fail("", "%s and %s both claim %s; remove one", b.claims[claim], r.Name, claim)
	case len(b.list) >= 1024:
		b.fail("", "more than 1024 entries")
	}
	b.names[r.Name], b.claims[claim] = true, r.Name
	b.list = append(b.list, *r)
}

// choice refuses a value that is none of the words.
func (b *build) choice(key, value, words string) {
	if value != "" && !slices.Contains(strings.Split(words, ", "), value) {
		b.fail(key, "%.32q; want %s", value, words)
	}
}

// safe sets the safe value of an output, which its owner must give.
func (b *build) safe(r *Resource, s *SafeWord) {
	switch {
	case s.Module:
		zero := 0.0
		r.SafeBy, r.Safe = SafeByModule, &zero
	case s.Value == nil:
		b.fail("safe", `missing; an output needs the value that it has when nobody drives it, or "module"`)
	default:
		r.Safe = s.Value
		if err := r.check(*s.Value); err != nil {
			b.fail("safe", "%v", err)
		}
	}
}

func (b *build) line(l *LineConfig) {
	if (l.Chip == "") == (l.Path == "") {
		b.fail("chip", `want one of chip = "label" and path = "device path"; a number changes`)
	}
	if (l.Line == "") == (l.Number == nil) {
		b.fail("line", `want one of line = "name" and offset = number`)
	}
	b.choice("drive", l.Drive, "push-pull, open-drain, open-source")
	b.choice("bias", l.Bias, "as-is, disabled, pull-up, pull-down")
	b.choice("edges", l.Edges, "rising, falling, both")
	b.choice("initial", l.Initial, "safe, keep")
	if l.Sim != nil {
		b.choice("sim", l.Sim.Wave, "sine")
		b.choice("sim", l.Sim.Release, "input, keep, pull")
	}
	if l.Direction != In && l.Direction != Out {
		b.fail("direction", "%.32q; want in or out", l.Direction)
	}
	if l.Buffer < 0 || l.Buffer > 1024 {
		b.fail("buffer", "%d; want 0 to 1024 events", l.Buffer)
	}
	claim := l.Line
	if l.Number != nil {
		l.Offset = *l.Number
		claim = strconv.Itoa(l.Offset)
		if l.Offset < 0 || l.Offset > 1<<16 {
			b.fail("offset", "%d; want the number of the line in its chip", l.Offset)
		}
	}
	r := &Resource{Kind: KindLine, Bus: "gpio " + l.Chip + l.Path, Rate: l.MaxRate, Limits: Limits{MaxOn: time.Duration(l.MaxOn)}, Sim: l.Sim, Line: &l.LinePart}
	if l.Direction == Out {
		b.safe(r, &l.Safe)
	} else if l.Safe.Value != nil || l.Safe.Module {
		b.fail("safe", "an input has no safe value; remove it")
	}
	b.add(&l.Named, r, "line "+claim+" of "+l.Chip+l.Path)
}

func (b *build) i2c(a *I2CConfig) {
	if (a.Adapter == "") == (a.Path == "") {
		b.fail("adapter", `want one of adapter = "name" and path = "/dev/i2c-N"`)
	}
	list := b.at + ".device"
	for i := range a.Device {
		d := &a.Device[i]
		b.enter(list, i)
		if d.Addr < 0x08 || d.Addr > 0x77 {
			b.fail("addr", "%#x; want 0x08 to 0x77, others are reserved", d.Addr)
		}
		if d.RegBytes < 0 || d.RegBytes > 2 {
			b.fail("reg_bytes", "%d; want 0, 1 or 2", d.RegBytes)
		}
		if len(d.Commands) > 0 && (d.RegBytes != 0 || d.Read != nil || d.Write != nil) {
			b.fail("commands", "a chip has commands or registers, not both")
		}
		d.Adapter, d.Path, d.Timeout = a.Adapter, a.Path, time.Duration(a.Timeout)
		b.add(&d.Named, &Resource{Kind: KindI2C, Bus: "i2c " + a.Adapter + a.Path, Rate: d.Rate, I2C: &d.I2CPart},
			fmt.Sprintf("address %#x of %s", d.Addr, a.Adapter+a.Path))
	}
}

func (b *build) sensor(s *SensorConfig) {
	src := &s.Source
	given, one := 0, ""
	for _, name := range [...]string{src.Hwmon, src.IIO, src.Thermal, src.W1, src.Power, src.I2C, src.Modbus} {
		if name != "" {
			given, one = given+1, name
		}
	}
	if src.Driver != "" && src.I2C == "" {
		b.fail("source", "a driver reads through an i2c device; add i2c = its name")
	}
	if given != 1 {
		b.fail("source", "want exactly one of hwmon, iio, thermal, w1, power, i2c, modbus")
	}
	r := &Resource{Kind: KindSensor, Unit: s.Unit, Rate: s.Rate, Sim: s.Sim, Sensor: &s.SensorPart, Bus: "sensor " + one}
	if name := src.I2C + src.Modbus; name != "" {
		var via *Resource
		for i := range b.list {
			if o := &b.list[i]; o.Name == name && (o.Kind == KindI2C && src.I2C != "" || o.Kind == KindModbus && src.Modbus != "") {
				own := *o // the list may yet move
				via = &own
			}
		}
		if via == nil {
			b.fail("source", "%.40q is no i2c device or modbus unit of this configuration", name)
			return
		}
		s.Via, r.Bus = via, via.Bus // one worker for the chip and what is read of it
	}
	if len(s.Range) == 2 && s.Range[0] < s.Range[1] {
		r.Limits.Min, r.Limits.Max = s.Range[0], s.Range[1]
	} else if s.Range != nil {
		b.fail("range", "want [least, most]")
	}
	if len(s.Curve) == 1 || len(s.Curve) > 16 {
		b.fail("curve", "%d points; want 2 to 16", len(s.Curve))
	}
	for i, p := range s.Curve {
		if len(p) != 2 || i > 0 && !(p[0] > s.Curve[i-1][0]) {
			b.fail("curve", "point %d; want [from, to], rising in from", i)
			return
		}
	}
	b.add(&s.Named, r, "")
}
