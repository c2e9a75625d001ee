package linux

import (
	"bytes"
	"errors"
	"fmt"
)

// Range is registers From to To, both included.
type Range struct{ From, To uint32 }

// Filter says which bytes of a chip may be touched. It looks at what goes over the wire, so it holds for whoever sends
// it; what it cannot know is what a register means: a page register in Write is the whole chip.
//
// With RegBytes 1 or 2 a write begins with the register's number, high byte first, and each byte after it touches the
// next register. A read is judged by the pointer that a write without data set before it in the same transfer: the
// chip's own pointer may have been moved by another module since. With RegBytes 0 the chip has no registers: writes
// begin with one of Commands, and reads are free.
type Filter struct {
	RegBytes    int
	Read, Write []Range
	Commands    [][]byte
}

// ErrDenied is a step that a filter does not let pass.
var ErrDenied = errors.New("not granted")

// Check judges the steps of one transfer before any of them is sent.
func (f Filter) Check(ops []Op) error {
	at, known := uint32(0), false // the chip's register pointer
	for i, o := range ops {
		if err := f.step(o, &at, &known); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

func (f Filter) step(o Op, at *uint32, known *bool) error {
	if f.RegBytes == 0 {
		return f.command(o.W)
	}
	if len(o.W) > 0 {
		if len(o.W) < f.RegBytes {
			return fmt.Errorf("write of %d bytes, a register's number has %d: %w", len(o.W), f.RegBytes, ErrDenied)
		}
		*at = 0
		for _, b := range o.W[:f.RegBytes] {
			*at = *at<<8 | uint32(b)
		}
		n := len(o.W) - f.RegBytes
		*known = n == 0
		if n > 0 {
			if err := f.touch("write", *at, n, f.Write); err != nil {
				return err
			}
		}
	}
	if o.R <= 0 {
		return nil
	}
	if !*known { // where the chip stands after a write of data is the chip's own affair
		return fmt.Errorf("read of %d bytes without a register before it: %w", o.R, ErrDenied)
	}
	*known = false
	return f.touch("read", *at, o.R, f.Read)
}

func (f Filter) command(w []byte) error {
	if len(w) == 0 {
		return nil
	}
	for _, c := range f.Commands {
		if len(c) > 0 && bytes.HasPrefix(w, c) {
			return nil
		}
	}
	return fmt.Errorf("command %x: %w", w[:min(len(w), 4)], ErrDenied)
}

// touch refuses a span that leaves the ranges or wraps at the end of the register numbers. Ranges that touch are one.
func (f Filter) touch(what string, from uint32, n int, ranges []Range) error {
	last := uint64(from) + uint64(n) - 1
	next := uint64(from)
	if last < 1<<(8*f.RegBytes) {
		for again := true; again && next <= last; {
			again = false
			for _, r := range ranges {
				if uint64(r.From) <= next && next <= uint64(r.To) {
					next, again = uint64(r.To)+1, true
				}
			}
		}
	}
	if next <= last {
		return fmt.Errorf("%s of registers %#x to %#x: %w", what, from, last, ErrDenied)
	}
	return nil
}
