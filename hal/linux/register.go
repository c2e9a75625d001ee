package linux

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// registerSensor is a number in a register of a chip, or of a Modbus unit.
type registerSensor struct {
	bus  hal.Bus
	op   hal.Op
	kind registerKind
}

// registerKind is how a number lies in a register.
type registerKind struct {
	word   string
	width  int // bytes
	number func(d []byte) float64
}

var registerKinds = [...]registerKind{
	{"u8", 1, func(d []byte) float64 { return float64(d[0]) }},
	{"s8", 1, func(d []byte) float64 { return float64(int8(d[0])) }},
	{"u16be", 2, func(d []byte) float64 { return float64(uint16(s16be(d))) }},
	{"s16be", 2, func(d []byte) float64 { return float64(s16be(d)) }},
	{"u16le", 2, func(d []byte) float64 { return float64(uint16(s16le(d))) }},
	{"s16le", 2, func(d []byte) float64 { return float64(s16le(d)) }},
	{"u32be", 4, func(d []byte) float64 { return float64(binary.BigEndian.Uint32(d)) }},
	{"s32be", 4, func(d []byte) float64 { return float64(int32(binary.BigEndian.Uint32(d))) }},
	{"f32be", 4, func(d []byte) float64 { return float64(math.Float32frombits(binary.BigEndian.Uint32(d))) }},
}

func registerKindOf(word string) registerKind {
	for _, k := range registerKinds {
		if k.word == word {
			return k
		}
	}
	return registerKind{}
}

// openRegister opens the unit that a sensor reads through: "0x10" of a chip, "holding:3" or "input:3" of a Modbus unit.
func (b *Board) openRegister(p *hal.SensorPart) (hal.Device, error) {
	at, word := p.Source.Attr, p.Source.Type
	var s registerSensor
	var ok bool
	if p.Via.Kind == KindModbus {
		if word == "" {
			word = "u16be"
		}
		s.kind = registerKindOf(word)
		table, number, _ := strings.Cut(at, ":")
		n, bad := strconv.ParseUint(number, 0, 16)
		ok = bad == nil && (table == "holding" || table == "input")
		s.op = hal.Op{Fn: hal.Function("read-" + table), Addr: uint16(n), N: uint16((s.kind.width + 1) / 2)}
	} else {
		if word == "" {
			word = "u8"
		}
		s.kind = registerKindOf(word)
		n, bad := strconv.ParseUint(at, 0, 16)
		if ok = bad == nil && p.Via.I2C.RegBytes > 0; ok {
			s.op = hal.Op{Write: binary.BigEndian.AppendUint16(nil, uint16(n))[2-p.Via.I2C.RegBytes:], Read: s.kind.width}
		}
	}
	if !ok || s.kind.width == 0 {
		return nil, &Error{Code: CodeRange, Detail: fmt.Sprintf("attr %.32q of type %.16q: want a register as 0x10 of a chip, holding:3 or input:3 of a modbus unit, and a type as u16be", at, word)}
	}
	dev, err := b.open(p.Via)
	if err != nil {
		return nil, err
	}
	s.bus = dev.(hal.Bus) // what its kind promises
	return &s, nil
}

// Read gives the raw number.
func (s *registerSensor) Read(ctx context.Context) (hal.Value, error) {
	ops := []hal.Op{s.op}
	if err := s.bus.Do(ctx, ops); err != nil {
		return hal.Value{}, err
	}
	d := ops[0].Data
	if len(d) < s.kind.width {
		return hal.Value{}, &Error{Code: CodeNACK, Err: unix.EPROTO}
	}
	return hal.Value{Num: s.kind.number(d), Time: time.Now(), Mono: monotonic()}, nil
}

// Close gives the unit back.
func (s *registerSensor) Close() error { return s.bus.Close() }
