package hal

import (
	"fmt"
	"net"
	"path"
	"strings"
)

// SPIConfig is one [[hal.spi]], a chip select.
type SPIConfig struct {
	Named
	SPIPart
	Rate Rate `toml:"rate"`
}

// SerialConfig is one [[hal.serial]]: a port, granted whole, or with protocol modbus-rtu its units.
type SerialConfig struct {
	Named
	SerialPart
	Protocol string       `toml:"protocol"` // raw (default), lines, modbus-rtu
	Unit     []UnitConfig `toml:"unit"`
	Rate     Rate         `toml:"rate"`
}

// ModbusConfig is one [[hal.modbus]]: an address with its units, over one connection.
type ModbusConfig struct {
	Name string       `toml:"name"`
	TCP  string       `toml:"tcp"` // host:port
	Unit []UnitConfig `toml:"unit"`
}

// UnitConfig is one unit of a Modbus line or address.
type UnitConfig struct {
	Named
	ModbusPart
	Rate Rate `toml:"rate"`
}

// NodeConfig is one [[hal.device]]: a device node that a module gets as it is, unmediated.
type NodeConfig struct {
	Named
	Path string `toml:"path"`
}

// buses takes the kinds that move bytes.
func (b *build) buses(c *Config) {
	for i := range c.SPI {
		b.enter("spi", i)
		b.spi(&c.SPI[i])
	}
	for i := range c.Serial {
		b.enter("serial", i)
		b.serial(&c.Serial[i])
	}
	for i := range c.Modbus {
		m := &c.Modbus[i]
		b.enter("modbus", i)
		if _, _, err := net.SplitHostPort(m.TCP); err != nil {
			b.fail("tcp", "%.64q; want host:port", m.TCP)
		}
		list := b.at + ".unit"
		for k := range m.Unit {
			m.Unit[k].TCP = m.TCP
			b.enter(list, k)
			b.unit("modbus "+m.TCP, 0, 255, &m.Unit[k])
		}
	}
	for i := range c.Device {
		d := &c.Device[i]
		b.enter("device", i)
		if !strings.HasPrefix(d.Path, "/dev/") || path.Clean(d.Path) != d.Path {
			b.fail("path", "%.64q; want a node below /dev, written plainly", d.Path)
		}
		for _, never := range [...]string{"/dev/watchdog", "/dev/rtc", "/dev/mem", "/dev/kmem", "/dev/port"} {
			if strings.HasPrefix(d.Path, never) {
				b.fail("path", "%s is never granted: it reaches the whole board", d.Path)
			}
		}
		b.add(&d.Named, &Resource{Kind: KindNode, Bus: "node " + d.Path, Node: d.Path}, "node "+d.Path)
	}
}

func (b *build) spi(s *SPIConfig) {
	if (s.Path == "") == (s.Controller == "") {
		b.fail("path", `want one of path = "/dev/spidevB.C" and controller = "name" with cs`)
	}
	if s.Mode < 0 || s.Mode > 3 {
		b.fail("mode", "%d; want 0 to 3", s.Mode)
	}
	if s.Bits < 0 || s.Bits > 32 || s.Hz < 0 || s.MaxBytes < 0 || s.MaxBytes > MaxTransfer || s.CS < 0 || s.CS > 255 {
		b.fail("", "bits are at most 32, max_bytes at most %d, cs at most 255", MaxTransfer)
	}
	bus := s.Controller
	if bus == "" {
		bus = strings.TrimRight(s.Path, "0123456789") // all chip selects of one controller
	}
	b.add(&s.Named, &Resource{Kind: KindSPI, Bus: "spi " + bus, Rate: s.Rate, SPI: &s.SPIPart}, fmt.Sprintf("chip select %s%s %d", s.Path, s.Controller, s.CS))
}

func (b *build) serial(s *SerialConfig) {
	if (s.Path != "") == (s.USB.Port+s.USB.Serial != "") {
		b.fail("path", `want one of path = "/dev/…" and usb = {port = "1-1.3"} or {serial = "…"}`)
	}
	if _, err := ParseMode(s.Mode); err != nil {
		b.fail("mode", "%v", err)
	}
	port := s.Port()
	switch s.Protocol {
	case "modbus-rtu":
		if len(s.Unit) == 0 {
			b.fail("unit", "missing; a Modbus line is granted by its units")
		}
		at := b.at
		for k := range s.Unit {
			s.Unit[k].Serial = &s.SerialPart
			b.enter(at+".unit", k)
			b.unit("serial "+port, 1, 247, &s.Unit[k])
		}
		b.at = at
		if owner := b.claims["port "+port]; owner != "" {
			b.fail("", "%s and the units here both claim port %s; remove one", owner, port)
		}
		if len(s.Unit) > 0 {
			b.claims["port "+port] = s.Unit[0].Name
		}
	case "", "raw", "lines":
		if len(s.Unit) > 0 {
			b.fail("unit", `units are of protocol = "modbus-rtu"`)
		}
		b.add(&s.Named, &Resource{Kind: KindSerial, Bus: "serial " + port, Rate: s.Rate, Serial: &s.SerialPart}, "port "+port)
	default:
		b.fail("protocol", "%.32q; want raw, lines or modbus-rtu", s.Protocol)
	}
}

func (b *build) unit(bus string, least, most int, u *UnitConfig) {
	if u.Unit < least || u.Unit > most {
		b.fail("unit", "%d; want %d to %d", u.Unit, least, most)
	}
	b.add(&u.Named, &Resource{Kind: KindModbus, Bus: bus, Rate: u.Rate, Modbus: &u.ModbusPart}, fmt.Sprintf("unit %d of %s", u.Unit, bus))
}
