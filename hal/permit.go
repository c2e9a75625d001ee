package hal

import (
	"bytes"
	"slices"
	"time"
)

// Effective is what a module may do with one resource: what its owner allows and its deployment asks for.
type Effective struct {
	Resource    *Resource
	Read, Write bool
	ReadRegs    []Range
	WriteRegs   []Range
	RX, TX      []IDMask
	Rate        Rate
	Deadman     time.Duration
	Safe        float64
	Edges       string
	Handover    Handover
}

// writable says whether anything of the resource can be written at all.
func (r *Resource) writable() bool {
	switch {
	case r.Line != nil:
		return r.Line.Direction == Out
	case r.I2C != nil:
		return len(r.I2C.Write) > 0 || len(r.I2C.Commands) > 0
	case r.Modbus != nil:
		return len(r.Modbus.Write) > 0
	case r.CAN != nil:
		return len(r.CAN.TX) > 0
	}
	return r.Sensor == nil
}

// Output says whether the resource is an output with a safe value.
func (r *Resource) Output() bool {
	return r.PWM != nil || r.LED != "" || r.Line != nil && r.Line.Direction == Out
}

// Permit intersects what the owner of r allows with what the deployment of module who asks for. An error says which of the two to
// change.
func Permit(r *Resource, who string, g *Grant) (*Effective, error) {
	e := whole(r)
	e.Read, e.Write, e.Deadman, e.Edges, e.Handover = g.Read, g.Write, g.Deadman, g.Edges, g.Handover
	if !slices.Contains(r.Allow, "*") && !slices.Contains(r.Allow, who) {
		return nil, r.denied("the device's configuration does not allow it to module %.64s; add the module to allow", who)
	}
	if g.Write && !r.writable() {
		return nil, r.denied("nothing of it can be written; ask for r")
	}
	if g.Rate != 0 && (r.Rate == 0 || g.Rate < r.Rate) {
		e.Rate = g.Rate
	}
	switch {
	case g.Safe != nil && (!r.Output() || r.SafeBy != SafeByModule):
		return nil, r.denied("its safe value is the device owner's; remove safe")
	case g.Safe != nil:
		if err := r.check(*g.Safe); err != nil {
			return nil, err
		}
		e.Safe = *g.Safe
	case r.Output() && r.SafeBy == SafeByModule && g.Write:
		return nil, r.denied("the device's configuration leaves the safe value to the deployment; add safe=…")
	}
	if (g.Deadman != 0 || g.Handover != "") && !(r.Output() && g.Write) {
		return nil, r.denied("deadman and handover are for an output that is granted to write")
	}
	if g.Edges != "" && (r.Kind != KindLine || r.Line.Direction != In) {
		return nil, r.denied("edges are of an input line")
	}
	if (g.ReadRegs != nil || g.WriteRegs != nil) && r.Kind != KindI2C {
		return nil, r.denied("read and write ranges are of an i2c device")
	}
	if (g.RX != nil || g.TX != nil) && r.Kind != KindCAN {
		return nil, r.denied("rx and tx are of CAN frames")
	}
	return e, e.narrow(g)
}

// denied is the refusal of something about the resource.
func (r *Resource) denied(format string, args ...any) error { return r.refuse(Denied, format, args...) }

func (r *Resource) refuse(code Code, format string, args ...any) error {
	e := Errorf(code, format, args...)
	e.Name = r.Name
	return e
}

func (e *Effective) beyond(word string, asked, owner any) error {
	return e.Resource.denied("%s=%v is beyond what the device's configuration allows: %v", word, asked, owner)
}

// narrow takes the registers and identifiers that a grant asks for in place of all that the owner allows.
func (e *Effective) narrow(g *Grant) error {
	for _, side := range [...]struct {
		word string
		asks []Range
		has  *[]Range
	}{{"read", g.ReadRegs, &e.ReadRegs}, {"write", g.WriteRegs, &e.WriteRegs}} {
		for _, r := range side.asks {
			if !within(*side.has, r.First, r.Last) {
				return e.beyond(side.word, r, *side.has)
			}
		}
		if side.asks != nil {
			*side.has = side.asks
		}
	}
	for _, side := range [...]struct {
		word string
		asks []IDMask
		has  *[]IDMask
	}{{"rx", g.RX, &e.RX}, {"tx", g.TX, &e.TX}} {
		for _, m := range side.asks {
			if !slices.ContainsFunc(*side.has, func(o IDMask) bool { return o.Mask&^m.Mask == 0 && o.Has(m.ID) }) {
				return e.beyond(side.word, m, *side.has)
			}
		}
		if side.asks != nil {
			*side.has = side.asks
		}
	}
	return nil
}

// check refuses a value of an output beyond its limits.
func (r *Resource) check(v float64) error {
	low, high := r.Limits.Min, r.Limits.Max
	switch {
	case r.Kind == KindLine:
		if v != 0 && v != 1 {
			return refusal(OutOfRange, r.Name, "a line is 0 or 1")
		}
		return nil
	case low == 0 && high == 0:
		low, high = 0, 1
		if r.Kind == KindPWM && r.PWM.MaxDuty > 0 {
			high = r.PWM.MaxDuty
		}
	}
	if !(v >= low && v <= high) {
		return r.refuse(OutOfRange, "%g is not from %g to %g", v, low, high)
	}
	return nil
}

// CheckOps refuses operations that the right does not cover, before any of them is sent. Every register that is touched counts.
func (e *Effective) CheckOps(ops []Op) error {
	for i := range ops {
		if err := e.checkOp(&ops[i]); err != nil {
			return err
		}
	}
	return nil
}

func (e *Effective) checkOp(op *Op) error {
	r := e.Resource
	if op.Read < 0 || op.Read > MaxTransfer || len(op.Write) > MaxTransfer {
		return r.refuse(Invalid, "one operation moves at most %d bytes", MaxTransfer)
	}
	switch {
	case r.I2C != nil:
		return e.checkRegisters(op)
	case r.Modbus != nil:
		return e.checkModbus(op)
	case r.CAN != nil:
		return e.checkFrame(op)
	case r.SPI != nil:
		if len(op.Write) > 0 && len(r.SPI.Commands) > 0 && !begins(op.Write, r.SPI.Commands) {
			return r.denied("the command %x… is not among the allowed ones", op.Write[:min(4, len(op.Write))])
		}
		if m := r.SPI.MaxBytes; m > 0 && max(len(op.Write), op.Read) > m {
			return r.denied("%d bytes; the device's configuration allows %d", max(len(op.Write), op.Read), m)
		}
		// A chip select transfers in both directions: what is sent on a read is a command to the chip.
		if !e.Write {
			return r.denied("a transfer on SPI needs the right to write")
		}
	case r.Serial != nil:
		if len(op.Write) > 0 && !e.Write {
			return r.denied("granted to read only")
		}
		if (op.Read > 0 || op.Until > 0) && !e.Read {
			return r.denied("granted to write only")
		}
	default:
		return refusal(Unsupported, r.Name, "a transfer is for a bus; read or write it")
	}
	return nil
}

// MaxTransfer is the most bytes that one operation moves in one direction.
const MaxTransfer = 8192

func (e *Effective) checkRegisters(op *Op) error {
	r := e.Resource
	part := r.I2C
	if len(part.Commands) > 0 {
		if len(op.Write) > 0 && !(e.Write && begins(op.Write, part.Commands)) {
			return r.denied("the command %x… is not among the allowed ones", op.Write[:min(4, len(op.Write))])
		}
		if op.Read > 0 && !e.Read {
			return r.denied("granted to write only")
		}
		return nil
	}
	n := part.RegBytes
	if len(op.Write) < n || len(op.Write) == 0 && op.Read == 0 {
		return r.denied("a transfer begins with the register, %d bytes; a bare read would use a pointer that another module may have moved", n)
	}
	if n == 0 {
		if len(op.Write) > 0 && !e.Write || op.Read > 0 && !e.Read {
			return r.denied("granted not for this direction")
		}
		return nil
	}
	first := uint32(0)
	for _, b := range op.Write[:n] {
		first = first<<8 | uint32(b)
	}
	space := uint32(1)<<(8*n) - 1
	if data := uint32(len(op.Write) - n); data > 0 {
		last := first + data - 1
		if !e.Write || last > space || !within(e.WriteRegs, first, last) {
			return r.denied("writing registers %#02x-%#02x is not granted", first, last)
		}
		if op.Read > 0 {
			return r.denied("a read in the operation of a write: where the chip stands after data is its own affair; read in an operation that names the register")
		}
	}
	if op.Read > 0 {
		last := first + uint32(op.Read) - 1
		if !e.Read || last > space || !within(e.ReadRegs, first, last) {
			return r.denied("reading registers %#02x-%#02x is not granted", first, last)
		}
	}
	if len(op.Write) == n && op.Read == 0 && !within(e.ReadRegs, first, first) && !within(e.WriteRegs, first, first) {
		return r.denied("selecting register %#02x is not granted", first)
	}
	return nil
}

func begins(b []byte, with []Prefix) bool {
	for _, p := range with {
		if bytes.HasPrefix(b, p) {
			return true
		}
	}
	return false
}

// functions are what a Modbus unit does: on which table, how many at most, and how many bytes one has in Write; 0 = a read.
var functions = [...]struct {
	fn    Function
	table string
	most  uint16
	width int
}{
	{ReadCoils, "coil", 2000, 0}, {ReadDiscrete, "discrete", 2000, 0}, {ReadHolding, "holding", 125, 0}, {ReadInput, "input", 125, 0},
	{WriteCoils, "coil", 1968, 1}, {WriteHoldings, "holding", 123, 2},
}

func (e *Effective) checkModbus(op *Op) error {
	r := e.Resource
	for _, f := range functions {
		if f.fn != op.Fn {
			continue
		}
		last := uint32(op.Addr) + uint32(op.N) - 1
		if op.N == 0 || op.N > f.most || last > 0xffff || len(op.Write) != f.width*int(op.N) {
			return r.refuse(Invalid, "%s of %d from %d with %d bytes", op.Fn, op.N, op.Addr, len(op.Write))
		}
		allowed, granted := r.Modbus.Read, e.Read
		if f.width > 0 {
			allowed, granted = r.Modbus.Write, e.Write
		}
		var ranges []Range
		for _, t := range allowed {
			if t.Table == f.table {
				ranges = append(ranges, t.Range)
			}
		}
		if !granted || !within(ranges, uint32(op.Addr), last) {
			return r.denied("%s %s:%d-%d is not granted", op.Fn, f.table, op.Addr, last)
		}
		return nil
	}
	return r.refuse(Unsupported, "function %.32q; want read-coils, read-discrete, read-holding, read-input, write-coils or write-holdings", op.Fn)
}

func (e *Effective) checkFrame(op *Op) error {
	if op.ID&(CANRemote|CANError) != 0 || op.ID&CANExtended == 0 && op.ID > 0x7ff || len(op.Write) > 8 || op.Read != 0 {
		return refusal(Invalid, e.Resource.Name, "a frame has an identifier of 11 or 29 bits, no other bits, and at most 8 bytes")
	}
	if !e.Write || !anyHas(e.TX, op.ID) {
		return e.Resource.denied("sending identifier %#x is not granted", op.ID)
	}
	return nil
}
