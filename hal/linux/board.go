package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// Board is the kernel as package hal's contract has it: a [Backend] that speaks of the owner's resources.
type Board struct{ kernel *Backend }

// NewBoard makes a Board; it opens nothing.
func NewBoard(cfg Config) (*Board, error) {
	b, err := New(cfg)
	return &Board{kernel: b}, err
}

// Open opens a resource; see hal.Backend.
func (b *Board) Open(_ context.Context, r hal.Resource) (hal.Device, error) {
	if s := r.Sensor; s != nil && s.Via != nil && s.Source.Driver == "" {
		return b.openRegister(r)
	}
	own := translate(r)
	got, err := b.kernel.Open(own)
	if err != nil {
		return nil, err
	}
	switch dev := got.(type) {
	case *lineResource:
		return &boardLine{lineResource: dev, held: held{dev}}, nil
	case *levelResource:
		return &boardOutput{levelResource: dev, held: held{dev}}, nil
	case *canUnit:
		return &boardCAN{dev}, nil
	case Bus:
		return &boardBus{bus: dev, kind: r.Kind}, nil
	case Sensor:
		return &boardSensor{dev}, nil
	}
	return nil, &Error{Code: CodeUnsupported, Name: r.Name}
}

// Adopt takes an output back that a keeper held; see hal.Backend. PWM channels and LEDs are found again by the file behind fd.
func (b *Board) Adopt(_ context.Context, r hal.Resource, fd int) (hal.Device, error) {
	own := translate(r)
	switch r.Kind {
	case KindLine:
		l, err := b.kernel.adopt(own, fd)
		if err != nil {
			return nil, coded(r.Kind, fmt.Errorf("adopt %s: %w", r.Name, err))
		}
		return &boardLine{lineResource: l, held: held{l}}, nil
	case KindPWM, KindLED:
		own.Wiring.Keep = true
		got, err := b.kernel.Open(own)
		if err != nil {
			return nil, err
		}
		l, _ := got.(*levelResource)
		if l == nil || !sameFile(fd, l.file) {
			return nil, errors.Join(&Error{Code: CodeBusy, Name: r.Name, Detail: "the kept descriptor is of another output"}, got.(hal.Device).Close())
		}
		_ = unix.Close(fd) // the fresh one is of the same file
		return &boardOutput{levelResource: l, held: held{l}}, nil
	case KindI2C, KindSPI, KindSerial, KindModbus, KindCAN, KindSensor, hal.KindNode:
	}
	return nil, &Error{Code: CodeUnsupported, Name: r.Name, Detail: "only outputs are kept"}
}

func sameFile(fd int, f *os.File) bool {
	var a, b unix.Stat_t
	n, err := fdOf(f)
	return err == nil && unix.Fstat(fd, &a) == nil && unix.Fstat(n, &b) == nil && a.Ino == b.Ino && a.Dev == b.Dev
}

// Scan lists what the board has; see hal.Backend.
func (b *Board) Scan(ctx context.Context, probe hal.Probe) ([]hal.Found, error) {
	return b.kernel.Scan(ctx, probe)
}

// Changes tells of hot-plug; see hal.Backend. A departure matches what cannot be found any more.
func (b *Board) Changes(ctx context.Context) <-chan hal.Change {
	out := make(chan hal.Change)
	in := b.kernel.Changes(ctx)
	go func() { // ends with the kernel's channel, which ends with ctx
		defer close(out)
		for c := range in {
			here := hal.Change{Present: c.Action != "remove" || c.Lost, Node: c.Path}
			if !here.Present {
				here.Match = func(r hal.Resource) bool { return concerns(c.Subsystem, r.Kind) && b.absent(r) }
			}
			select {
			case out <- here:
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// concerns says whether a departure in a subsystem may be one of a resource of a kind.
func concerns(subsystem string, k Kind) bool {
	switch subsystem {
	case "gpio":
		return k == KindLine
	case "pwm":
		return k == KindPWM
	case "leds":
		return k == KindLED
	case "tty":
		return k == KindSerial || k == KindModbus
	case "net":
		return k == KindCAN
	case "spi", "spidev":
		return k == KindSPI
	case "i2c", "i2c-dev":
		return k == KindI2C || k == KindSensor
	case "iio", "hwmon", "thermal", "power_supply", "w1":
		return k == KindSensor
	}
	return false
}

// absent says whether a resource is not to be found, without touching it.
func (b *Board) absent(r hal.Resource) bool {
	k, m := b.kernel, translate(r).Match
	var err error
	switch r.Kind {
	case KindLine:
		_, err = k.findChip(m.Chip, m.Path)
	case KindPWM:
		_, err = k.findPWM(m.Chip, m.Path)
	case KindLED:
		if !exists(k.path("sys/class/leds", m.Channel)) {
			return true
		}
	case KindI2C:
		_, err = k.findAdapter(m.Adapter, m.Path)
	case KindSPI:
		_, err = k.findSPI(m.Controller, m.Path, m.CS)
	case KindSerial, KindModbus:
		if m.Address == "" {
			var d device
			if d, err = k.findTTY(m.Path, m.USBPort, m.USBSerial); err == nil && !exists(d.node) {
				return true
			}
		}
	case KindCAN:
		_, err = interfaceIndex(m.Interface)
		return err != nil
	case KindSensor:
		s, openErr := k.open(translate(r))
		if openErr != nil {
			err = openErr
		} else if c, ok := s.(hal.Device); ok {
			_ = c.Close() // it was opened to see that it is there
		}
	case hal.KindNode:
	}
	return err != nil && codeOf(r.Kind, err) == CodeGone
}

// translate says in this room's words what the owner named.
func translate(r hal.Resource) Resource {
	own := Resource{Name: r.Name, Kind: r.Kind, Who: ":" + r.Name}
	if r.Safe != nil {
		own.Safe = *r.Safe
	}
	m, w := &own.Match, &own.Wiring
	switch r.Kind {
	case KindLine:
		p := r.Line
		m.Chip, m.Path, m.Line, m.Offset = p.Chip, p.Path, p.Line, p.Offset
		*w = Wiring{Out: p.Direction == hal.Out, Keep: p.Initial == "keep", ActiveLow: p.ActiveLow, Drive: p.Drive, Bias: p.Bias, Edges: p.Edges, Debounce: p.Debounce, Buffer: p.Buffer}
		if p.Direction == hal.In && w.Edges == "" {
			w.Edges = "both"
		}
		if p.Consumer != "" {
			own.Who = strings.TrimPrefix(p.Consumer, "sp:")
		}
	case KindPWM:
		m.Chip, m.Channel = r.PWM.Chip, strconv.Itoa(r.PWM.Channel)
		w.Period, w.ActiveLow = r.PWM.Period, r.PWM.Inverted
	case KindLED:
		m.Channel = r.LED.Name
	case KindI2C:
		m.Adapter, m.Path, m.Addr, w.Timeout = r.I2C.Adapter, r.I2C.Path, uint16(r.I2C.Addr), r.I2C.Timeout
	case KindSPI:
		m.Controller, m.Path, m.CS = r.SPI.Controller, r.SPI.Path, r.SPI.CS
		w.SPIMode, w.Bits, w.Speed = uint32(r.SPI.Mode), r.SPI.Bits, r.SPI.Hz
	case KindSerial:
		port(&own, r.Serial)
	case KindModbus:
		m.Address, m.Unit = r.Modbus.TCP, r.Modbus.Unit
		if r.Modbus.Serial != nil {
			port(&own, r.Modbus.Serial)
		}
	case KindCAN:
		m.Interface = r.CAN.Interface
		for _, id := range r.CAN.RX {
			w.Receive = append(w.Receive, IDMask{ID: id.ID &^ hal.CANExtended, Mask: id.Mask &^ hal.CANExtended, Extended: id.ID&hal.CANExtended != 0})
		}
	case KindSensor:
		sensor(&own, r.Sensor)
	case hal.KindNode:
	}
	return own
}

func port(own *Resource, p *hal.SerialPart) {
	m, w := &own.Match, &own.Wiring
	m.Path, m.USBPort, m.USBSerial = p.Port.Path, p.Port.USBPort, p.Port.USBSerial
	w.Mode, w.Gap = p.Mode(), p.Gap
	if p.RS485 {
		w.RS485 = &RS485{RTSOnSend: p.RTSOnSend, RTSAfterSend: !p.RTSOnSend}
	}
}

func sensor(own *Resource, p *hal.SensorPart) {
	s, m := p.Source, &own.Match
	m.Channel, m.Path = s.Attr, s.Parent
	for _, one := range [...][2]string{{"hwmon", s.Hwmon}, {"thermal", s.Thermal}, {"power", s.Power}, {"w1", s.W1}, {"iio", s.IIO}, {"driver", s.Driver}} {
		if one[1] != "" {
			m.Source, m.Device = one[0], one[1]
		}
	}
	if p.Via != nil && p.Via.I2C != nil {
		m.Adapter, m.Path, m.Addr, own.Wiring.Timeout = p.Via.I2C.Adapter, p.Via.I2C.Path, uint16(p.Via.I2C.Addr), p.Via.I2C.Timeout
	}
}

// held gives the descriptor of an output to a keeper.
type held struct{ of Holder }

// FD is -1 when there is nothing to keep.
func (h held) FD(safe float64) (int, hal.SafeAction) {
	fd, action, err := h.of.FD(safe)
	if err != nil {
		return -1, hal.SafeAction{}
	}
	return fd, action
}

// boardSensor gives the number as the kernel does: the owner's configuration says what is made of it.
type boardSensor struct{ Sensor }

func (s *boardSensor) Read(ctx context.Context) (hal.Value, error) {
	n, err := s.Sensor.Read(ctx)
	return hal.Value{Num: n, Time: time.Now(), Mono: monotonic()}, err
}

type boardOutput struct {
	*levelResource
	held
}

// FD is the held one's.
func (o *boardOutput) FD(safe float64) (int, hal.SafeAction) { return o.held.FD(safe) }
