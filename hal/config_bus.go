package hal

import (
	"fmt"
	"net"
	"path"
	"strconv"
	"strings"
	"time"
)

// SPIConfig is one [[hal.spi]], a chip select.
type SPIConfig struct {
	Name       string   `toml:"name"`
	Path       string   `toml:"path"`       // "/dev/spidev0.1", or
	Controller string   `toml:"controller"` // "spi@7e204000" and
	CS         int      `toml:"cs"`
	Mode       int      `toml:"mode"` // 0-3
	Bits       int      `toml:"bits"` // of a word; default 8
	Hz         int      `toml:"hz"`   // most; default the device's
	MaxBytes   int      `toml:"max_bytes"`
	Commands   []Prefix `toml:"commands"`
	Rate       Rate     `toml:"rate"`
	Allow      []string `toml:"allow"`
}

// SerialConfig is one [[hal.serial]]: a port, granted whole, or with protocol modbus-rtu its units.
type SerialConfig struct {
	Name     string       `toml:"name"`
	Path     string       `toml:"path"`
	USB      USBPort      `toml:"usb"`
	Mode     string       `toml:"mode"` // 9600-8E1
	RS485    *RS485Config `toml:"rs485"`
	Protocol string       `toml:"protocol"` // raw (default), lines, modbus-rtu
	Gap      Duration     `toml:"gap"`      // silence before a Modbus frame beyond t3.5
	Unit     []UnitConfig `toml:"unit"`
	Rate     Rate         `toml:"rate"`
	Allow    []string     `toml:"allow"`
}

// USBPort finds a port by what stays when it is plugged in again.
type USBPort struct {
	Port   string `toml:"port"`   // "1-1.3"
	Serial string `toml:"serial"` // of the adapter
}

// RS485Config is how a port switches the direction of its line.
type RS485Config struct {
	RTSOnSend bool `toml:"rts_on_send"`
}

// ModbusConfig is one [[hal.modbus]]: an address with its units, over one connection.
type ModbusConfig struct {
	Name string       `toml:"name"`
	TCP  string       `toml:"tcp"` // host:port
	Unit []UnitConfig `toml:"unit"`
}

// UnitConfig is one unit of a Modbus line or address.
type UnitConfig struct {
	Name  string       `toml:"name"`
	Unit  int          `toml:"unit"` // 1-247; over TCP 0-255
	Read  []TableRange `toml:"read"`
	Write []TableRange `toml:"write"`
	Rate  Rate         `toml:"rate"`
	Allow []string     `toml:"allow"`
}

// NodeConfig is one [[hal.device]]: a device node that a module gets as it is, unmediated.
type NodeConfig struct {
	Name  string   `toml:"name"`
	Path  string   `toml:"path"`
	Allow []string `toml:"allow"`
}

// buses takes the kinds that move bytes.
func (b *build) buses(c *Config) {
	for i := range c.SPI {
		b.spi("spi."+strconv.Itoa(i), &c.SPI[i])
	}
	for i := range c.Serial {
		b.serial("serial."+strconv.Itoa(i), &c.Serial[i])
	}
	for i, m := range c.Modbus {
		at := "modbus." + strconv.Itoa(i)
		if _, _, err := net.SplitHostPort(m.TCP); err != nil {
			b.fail(at+".tcp", "%.64q; want host:port", m.TCP)
		}
		for k := range m.Unit {
			b.unit(fmt.Sprintf("%s.unit.%d", at, k), "modbus "+m.TCP, 0, 255, &m.Unit[k], &ModbusPart{TCP: m.TCP})
		}
	}
	for i, d := range c.Device {
		at := "device." + strconv.Itoa(i)
		if !strings.HasPrefix(d.Path, "/dev/") || path.Clean(d.Path) != d.Path {
			b.fail(at+".path", "%.64q; want a node below /dev, written plainly", d.Path)
		}
		for _, never := range [...]string{"/dev/watchdog", "/dev/rtc", "/dev/mem", "/dev/kmem", "/dev/port"} {
			if strings.HasPrefix(d.Path, never) {
				b.fail(at+".path", "%s is never granted: it reaches the whole board", d.Path)
			}
		}
		b.add(at, &Resource{Name: d.Name, Kind: KindNode, Bus: "node " + d.Path, Allow: d.Allow, Node: d.Path}, "node "+d.Path)
	}
}

func (b *build) spi(at string, s *SPIConfig) {
	if (s.Path == "") == (s.Controller == "") {
		b.fail(at+".path", `want one of path = "/dev/spidevB.C" and controller = "name" with cs`)
	}
	if s.Mode < 0 || s.Mode > 3 {
		b.fail(at+".mode", "%d; want 0 to 3", s.Mode)
	}
	if s.Bits < 0 || s.Bits > 32 || s.Hz < 0 || s.MaxBytes < 0 || s.MaxBytes > MaxTransfer || s.CS < 0 || s.CS > 255 {
		b.fail(at, "bits are at most 32, max_bytes at most %d, cs at most 255", MaxTransfer)
	}
	bus := s.Controller
	if bus == "" {
		bus = strings.TrimRight(s.Path, "0123456789") // all chip selects of one controller
	}
	b.add(at, &Resource{Name: s.Name, Kind: KindSPI, Bus: "spi " + bus, Allow: s.Allow, Rate: s.Rate,
		SPI: &SPIPart{Path: s.Path, Controller: s.Controller, CS: s.CS, Mode: uint8(s.Mode), Bits: uint8(s.Bits), Hz: uint32(s.Hz),
			MaxBytes: s.MaxBytes, Commands: s.Commands}}, fmt.Sprintf("chip select %s%s %d", s.Path, s.Controller, s.CS))
}

func (b *build) serial(at string, s *SerialConfig) {
	part := &SerialPart{Port: Port{Path: s.Path, USBPort: s.USB.Port, USBSerial: s.USB.Serial}, RS485: s.RS485 != nil, Gap: time.Duration(s.Gap)}
	if s.RS485 != nil {
		part.RTSOnSend = s.RS485.RTSOnSend
	}
	if (s.Path != "") == (s.USB.Port+s.USB.Serial != "") {
		b.fail(at+".path", `want one of path = "/dev/…" and usb = {port = "1-1.3"} or {serial = "…"}`)
	}
	if err := part.ParseMode(s.Mode); err != nil {
		b.fail(at+".mode", "%v", err)
	}
	port := s.Path + s.USB.Port + s.USB.Serial
	switch s.Protocol {
	case "modbus-rtu":
		if len(s.Unit) == 0 {
			b.fail(at+".unit", "missing; a Modbus line is granted by its units")
		}
		for k := range s.Unit {
			own := *part
			b.unit(fmt.Sprintf("%s.unit.%d", at, k), "serial "+port, 1, 247, &s.Unit[k], &ModbusPart{Serial: &own})
		}
		if owner := b.claims["port "+port]; owner != "" {
			b.fail(at, "%s and the units here both claim port %s; remove one", owner, port)
		}
	case "", "raw", "lines":
		if len(s.Unit) > 0 {
			b.fail(at+".unit", `units are of protocol = "modbus-rtu"`)
		}
		b.add(at, &Resource{Name: s.Name, Kind: KindSerial, Bus: "serial " + port, Allow: s.Allow, Rate: s.Rate, Serial: part}, "port "+port)
	default:
		b.fail(at+".protocol", "%.32q; want raw, lines or modbus-rtu", s.Protocol)
	}
}

func (b *build) unit(at, bus string, least, most int, u *UnitConfig, part *ModbusPart) {
	if u.Unit < least || u.Unit > most {
		b.fail(at+".unit", "%d; want %d to %d", u.Unit, least, most)
	}
	part.Unit, part.Read, part.Write = uint8(u.Unit), u.Read, u.Write
	b.add(at, &Resource{Name: u.Name, Kind: KindModbus, Bus: bus, Allow: u.Allow, Rate: u.Rate, Modbus: part}, fmt.Sprintf("unit %d of %s", u.Unit, bus))
}
