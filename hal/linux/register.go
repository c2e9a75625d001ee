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
	bus   hal.Bus
	op    hal.Op
	word  string
	width int // bytes
}

// registerWords are how a number may lie in a register: unsigned, signed or floating, its bits, and which byte comes first.
var registerWords = [...]string{"u8", "s8", "u16be", "s16be", "u16le", "s16le", "u32be", "s32be", "f32be"}

// registerWidth is how many bytes such a number has; 0 = it is none of the words.
func registerWidth(word string) int {
	for _, w := range registerWords {
		if w == word {
			bits, _ := strconv.Atoi(strings.Trim(w, "usfbel"))
			return bits / 8
		}
	}
	return 0
}

// registerNumber reads a number that fills d.
func registerNumber(word string, d []byte) float64 {
	n := uint32(0)
	for i, b := range d {
		if strings.HasSuffix(word, "le") {
			n |= uint32(b) << (8 * i)
		} else {
			n = n<<8 | uint32(b)
		}
	}
	switch word[0] {
	case 'f':
		return float64(math.Float32frombits(n))
	case 's':
		above := 32 - 8*len(d)
		return float64(int32(n<<above) >> above)
	}
	return float64(n)
}

// openRegister opens the unit that a sensor reads through: "0x10" of a chip, "holding:3" or "input:3" of a Modbus unit.
func (b *Board) openRegister(p *hal.SensorPart) (hal.Device, error) {
	at, word := p.Source.Attr, p.Source.Type
	table, number, modbus := "", at, p.Via.Modbus != nil
	if modbus {
		table, number, _ = strings.Cut(at, ":")
	}
	switch {
	case word != "":
	case modbus:
		word = "u16be"
	default:
		word = "u8"
	}
	n, bad := strconv.ParseUint(number, 0, 16)
	s := registerSensor{word: word, width: registerWidth(word)}
	switch {
	case bad != nil || s.width == 0:
	case !modbus && p.Via.I2C.RegBytes > 0:
		s.op = hal.Op{Write: binary.BigEndian.AppendUint16(nil, uint16(n))[2-p.Via.I2C.RegBytes:], Read: s.width}
	case table == "holding" || table == "input":
		s.op = hal.Op{Fn: hal.Function("read-" + table), Addr: uint16(n), N: uint16((s.width + 1) / 2)}
	}
	if s.op.Read+int(s.op.N) == 0 {
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
	if len(d) < s.width {
		return hal.Value{}, &Error{Code: CodeNACK, Err: unix.EPROTO}
	}
	return hal.Value{Num: registerNumber(s.word, d[:s.width]), Time: time.Now(), Mono: monotonic()}, nil
}

// Close gives the unit back.
func (s *registerSensor) Close() error { return s.bus.Close() }
