package linux

import "fmt"

// Span is the registers or coils From to To of one table of a Modbus unit, both included.
type Span struct {
	Table    string // coil, discrete, holding, input
	From, To uint16
}

// TableFilter says what of a Modbus unit may be touched.
type TableFilter struct{ Read, Write []Span }

// Check judges requests before any of them is sent: a read needs the whole span in one Read, a write in one Write.
func (f TableFilter) Check(ops []Op) error {
	for _, o := range ops {
		r, err := modbusOp(o)
		if err != nil {
			return err
		}
		table, spans, n := "holding", f.Write, len(r.data)/2
		switch r.fn {
		case readCoils:
			table, spans, n = "coil", f.Read, r.count
		case readDiscrete:
			table, spans, n = "discrete", f.Read, r.count
		case readHolding:
			spans, n = f.Read, r.count
		case readInput:
			table, spans, n = "input", f.Read, r.count
		case writeCoil, writeCoils:
			table, n = "coil", len(r.data)
		case writeRegister, writeRegisters:
		}
		if !spanned(spans, table, int(r.addr), n) {
			return fmt.Errorf("%s %s %d to %d: %w", o.Fn, table, r.addr, int(r.addr)+n-1, ErrDenied)
		}
	}
	return nil
}

func spanned(spans []Span, table string, from, n int) bool {
	for _, s := range spans {
		if s.Table == table && n > 0 && int(s.From) <= from && from+n-1 <= int(s.To) {
			return true
		}
	}
	return false
}

// passes reports whether a frame's identifier is one of these; the flag bits are judged by the encoding.
func passes(masks []IDMask, f Frame) bool {
	for _, m := range masks {
		if m.Extended == f.Extended && f.ID&m.Mask == m.ID&m.Mask {
			return true
		}
	}
	return false
}
