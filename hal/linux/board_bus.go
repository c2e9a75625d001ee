package linux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// boardBus is a unit of the contract.
type boardBus struct {
	bus  Bus
	kind Kind
}

// Do runs operations and fills their Data.
func (b *boardBus) Do(ctx context.Context, ops []hal.Op) error {
	own := make([]Op, len(ops))
	for i, o := range ops {
		own[i] = Op{W: o.Write, R: o.Read, Fn: kernelFn(o.Fn), Addr: o.Addr, N: int(o.N)}
		if o.Until > 0 {
			own[i].Until = []byte{byte(o.Until)}
		}
	}
	err := b.bus.Do(ctx, own)
	for i := range own {
		ops[i].Data = own[i].Got
	}
	return err
}

// Close gives the unit's part of its bus back.
func (b *boardBus) Close() error { return b.bus.Close() }

func kernelFn(f hal.Function) string {
	switch f {
	case hal.ReadCoils:
		return "read-coil"
	case hal.WriteCoils:
		return "write-coil"
	case hal.WriteHoldings:
		return "write-holding"
	case hal.ReadDiscrete, hal.ReadHolding, hal.ReadInput:
	}
	return string(f)
}

// boardCAN sends and receives frames.
type boardCAN struct{ unit *canUnit }

// Do sends one frame an operation.
func (c *boardCAN) Do(ctx context.Context, ops []hal.Op) error {
	own := make([]Op, len(ops))
	for i, o := range ops {
		own[i].Frame = Frame{ID: o.ID &^ hal.CANExtended, Extended: o.ID&hal.CANExtended != 0, Data: o.Write}
	}
	return c.unit.Do(ctx, own)
}

// Close leaves the bus.
func (c *boardCAN) Close() error { return c.unit.Close() }

// Frames gives what the interface hears of the resource's identifiers.
func (c *boardCAN) Frames(context.Context) (hal.EdgeReader, error) {
	if err := c.unit.sock.file.SetReadDeadline(time.Time{}); err != nil { // after an earlier reader's end
		return nil, coded(KindCAN, err)
	}
	return &frames{unit: c.unit}, nil
}

type frames struct {
	unit *canUnit
	seq  uint64
	lost uint32
}

// Read waits for a frame.
func (f *frames) Read(ctx context.Context, into []hal.Event) (int, error) {
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	got, err := f.unit.Receive()
	stop()
	if err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if errors.Is(err, os.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			err = &Error{Code: CodeGone, Err: err}
		}
		return 0, err
	}
	missed := uint64(got.Lost - f.lost)
	f.lost = got.Lost
	f.seq += 1 + missed
	into[0] = hal.Event{Seq: f.seq, Lost: missed, ID: got.ID, Data: got.Data, Time: got.Time, Mono: monotonic()}
	if got.Extended {
		into[0].ID |= hal.CANExtended
	}
	return 1, nil
}

// Close makes a waiting Read end.
func (f *frames) Close() error { return f.unit.sock.file.SetReadDeadline(pastTime) }

// registerSensor is a number in a register of a chip, or of a Modbus unit.
type registerSensor struct {
	bus  hal.Device
	op   hal.Op
	kind string
}

// openRegister opens the unit that a sensor reads through: "0x10" of a chip, "holding:3" or "input:3" of a Modbus unit.
func (b *Board) openRegister(r hal.Resource) (hal.Device, error) {
	s := registerSensor{kind: r.Sensor.Source.Type}
	via, at := *r.Sensor.Via, r.Sensor.Source.Attr
	bad := func() (hal.Device, error) {
		return nil, &Error{Code: CodeRange, Name: r.Name, Detail: fmt.Sprintf("attr %.32q of type %.16q: want a register as 0x10 of a chip, holding:3 or input:3 of a modbus unit, and a type as u16be", at, s.kind)}
	}
	width := registerWidth(s.kind)
	if via.Kind == KindModbus {
		table, number, _ := strings.Cut(at, ":")
		n, err := strconv.ParseUint(number, 0, 16)
		if s.kind == "" {
			s.kind, width = "u16be", 2
		}
		if err != nil || width == 0 || table != "holding" && table != "input" {
			return bad()
		}
		s.op = hal.Op{Fn: hal.Function("read-" + table), Addr: uint16(n), N: uint16((width + 1) / 2)}
	} else {
		n, err := strconv.ParseUint(at, 0, 16)
		if s.kind == "" {
			s.kind, width = "u8", 1
		}
		if err != nil || width == 0 || via.I2C.RegBytes == 0 {
			return bad()
		}
		s.op = hal.Op{Write: binary.BigEndian.AppendUint16(nil, uint16(n))[2-via.I2C.RegBytes:], Read: width}
	}
	via.Name = r.Name
	dev, err := b.Open(context.Background(), via) // opening takes no time that a context could end
	if err != nil {
		return nil, err
	}
	s.bus = dev
	return &s, nil
}

func registerWidth(kind string) int {
	switch kind {
	case "u8", "s8":
		return 1
	case "u16be", "s16be", "u16le", "s16le":
		return 2
	case "u32be", "s32be", "f32be":
		return 4
	}
	return 0
}

// Read gives the raw number.
func (s *registerSensor) Read(ctx context.Context) (hal.Value, error) {
	ops := []hal.Op{s.op}
	if err := s.bus.(hal.Bus).Do(ctx, ops); err != nil {
		return hal.Value{}, err
	}
	d := ops[0].Data
	if len(d) < registerWidth(s.kind) {
		return hal.Value{}, &Error{Code: CodeNACK, Err: unix.EPROTO}
	}
	return hal.Value{Num: registerNumber(s.kind, d), Time: time.Now(), Mono: monotonic()}, nil
}

func registerNumber(kind string, d []byte) float64 {
	switch kind {
	case "u8":
		return float64(d[0])
	case "s8":
		return float64(int8(d[0]))
	case "u16be":
		return float64(binary.BigEndian.Uint16(d))
	case "s16be":
		return float64(int16(binary.BigEndian.Uint16(d)))
	case "u16le":
		return float64(binary.LittleEndian.Uint16(d))
	case "s16le":
		return float64(int16(binary.LittleEndian.Uint16(d)))
	case "u32be":
		return float64(binary.BigEndian.Uint32(d))
	case "s32be":
		return float64(int32(binary.BigEndian.Uint32(d)))
	}
	return float64(math.Float32frombits(binary.BigEndian.Uint32(d)))
}

// Close gives the unit back.
func (s *registerSensor) Close() error { return s.bus.Close() }
