package linux

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// scanner walks the board; every list is bounded by what the kernel shows.
type scanner struct {
	*host
	list []hal.Found
}

func (s *scanner) add(kind hal.Kind, detail string, match ...string) *hal.Found {
	t := hal.Found{Kind: kind, Detail: detail, Scale: 1}
	for i := 0; i+1 < len(match); i += 2 {
		t.Match = append(t.Match, hal.Field{Key: match[i], Value: match[i+1]})
	}
	s.list = append(s.list, t)
	return &s.list[len(s.list)-1]
}

// Scan looks at everything that can be looked at without touching a bus; probe also asks each free I2C address.
func (b *Board) Scan(ctx context.Context, probe hal.Probe) ([]hal.Found, error) {
	s := &scanner{host: &b.host}
	if err := s.lines(); err != nil {
		return nil, coded(KindLine, fmt.Errorf("scan: %w", err))
	}
	if err := s.i2c(ctx, probe == hal.TouchTheBus); err != nil {
		return nil, coded(KindI2C, fmt.Errorf("scan: %w", err))
	}
	s.buses()
	s.sensors()
	s.outputs()
	return s.list, ctx.Err()
}

func (s *scanner) lines() error {
	chips, err := s.chips()
	if err != nil {
		return err
	}
	twins := map[string]int{}
	for _, c := range chips {
		twins[c.label]++
	}
	for _, c := range chips {
		lines, err := listLines(c)
		if err != nil {
			continue // unplugged meanwhile
		}
		names := map[string]int{}
		for _, l := range lines {
			names[l.name]++
		}
		for _, l := range lines {
			match := []string{"chip", c.label}
			if twins[c.label] > 1 {
				match = []string{"path", c.parent}
			}
			if l.name != "" && names[l.name] == 1 {
				match = append(match, "line", l.name)
			} else {
				match = append(match, "offset", strconv.Itoa(int(l.offset)))
			}
			t := s.add("line", lineFlags(l), match...)
			t.Holder = l.consumer
			if l.used() && l.consumer == "" {
				t.Holder = "the kernel"
			}
		}
	}
	return nil
}

// shownFlags are what a scan tells of a line.
var shownFlags = [...]flagWord{
	{"active-low", flagActiveLow}, {"open-drain", flagOpenDrain}, {"open-source", flagOpenSource},
	{"pull-up", flagBiasPullUp}, {"pull-down", flagBiasPullDown}, {"no-bias", flagBiasDisabled},
}

func lineFlags(l *lineInfo) string {
	text := "in"
	if l.flags&flagOutput != 0 {
		text = "out"
	}
	for _, f := range shownFlags {
		if l.flags&f.bits != 0 {
			text += " " + f.word
		}
	}
	return text
}

func (s *scanner) i2c(ctx context.Context, probe bool) error {
	for _, a := range s.adapters() {
		match := []string{"adapter", a.key()}
		detail := a.name
		b, err := s.openI2C(a, 0)
		if err == nil {
			detail += ", " + funcWords(b.funcs)
		}
		s.add("i2c", detail, match...)
		for _, n := range s.bus("i2c") {
			bus, addr, ok := strings.Cut(n, "-")
			if ok && bus == strconv.Itoa(a.n) && len(addr) == 4 {
				dir := s.path("sys/bus/i2c/devices", n)
				t := s.add("i2c", attrOr(dir, "name"), append(match, "addr", "0x"+addr[2:])...)
				if d := driver(dir); d != "" {
					t.Holder = "driver " + d
				}
			}
		}
		if err != nil {
			continue
		}
		if probe {
			s.probe(ctx, b, match)
		}
		if err := b.Close(); err != nil {
			return err
		}
	}
	return nil
}

// maxSilent is how many addresses in a row may time out before a bus is left alone: each costs a second, and one whose
// lines are stuck has a hundred.
const maxSilent = 2

func (s *scanner) probe(ctx context.Context, b *i2cBus, match []string) {
	silent := 0
	for addr := uint16(0x08); addr <= 0x77 && ctx.Err() == nil; addr++ {
		there, err := b.probe(addr)
		if !errors.Is(err, unix.ETIMEDOUT) && !errors.Is(err, unix.EAGAIN) {
			silent = 0
		} else if silent++; silent == maxSilent {
			s.add("i2c", "stuck: the bus does not answer", match...)
			return
		}
		if there && err == nil {
			s.add("i2c", "answers", append(match, "addr", fmt.Sprintf("%#02x", addr))...)
		}
	}
}

func funcWords(f uint32) string {
	switch {
	case f&funcI2C != 0:
		return "combined transfers"
	case f&funcReadI2CBlk != 0:
		return "SMBus only, with blocks"
	}
	return "SMBus only"
}

func (s *scanner) buses() {
	for _, d := range s.spiDevices() {
		s.add("spi", attrOr(d.dir, "device", "modalias"), "controller", d.key(), "cs", strconv.Itoa(d.n))
	}
	for _, d := range s.ttys() {
		match := []string{"path", "/dev/" + filepath.Base(d.node)}
		switch {
		case d.usbSerial != "" && d.usbPort != "":
			match = []string{"usb.port", d.usbPort, "usb.serial", d.usbSerial}
		case d.usbPort != "":
			match = []string{"usb.port", d.usbPort}
		}
		s.add("serial", d.String(), match...)
	}
	for _, name := range s.class("net") {
		if dir := s.path("sys/class/net", name); attrOr(dir, "type") == "280" { // ARPHRD_CAN
			s.add("can", attrOr(dir, "operstate"), "interface", name)
		}
	}
}

func (s *scanner) sensors() {
	for _, k := range [...]*class{&hwmonClass, &thermalClass, &powerClass} {
		for _, d := range s.devices(k) {
			for _, a := range names(d.dir) {
				factor, unit := scaleOf(k.scales, a)
				if strings.HasSuffix(a, k.end) && (unit != "" || k.end != "") {
					t := s.add("sensor", d.String(), k.word, d.name, "attr", a)
					t.Scale, t.Unit = factor, unit
				}
			}
		}
	}
	for _, d := range s.w1Devices() {
		if exists(d.dir, "temperature") {
			t := s.add("sensor", "1-wire thermometer on "+d.parent, "w1", d.name)
			t.Scale, t.Unit = 1e-3, "Cel"
		}
	}
	for _, d := range s.devices(&iioClass) {
		for _, c := range iioChannels(d) {
			t := s.add("sensor", d.String(), "iio", d.key(), "attr", c)
			t.Scale, t.Unit = scaleOf(iioScales, c)
		}
	}
}

func (s *scanner) outputs() {
	for _, c := range s.devices(&pwmClass) {
		for i := range c.n {
			s.add("pwm", c.String(), "chip", c.key(), "channel", strconv.Itoa(i))
		}
	}
	for _, n := range s.class("leds") {
		s.add("led", strings.TrimSpace(attrOr(s.path("sys/class/leds", n), "trigger")), "led", n)
	}
}
