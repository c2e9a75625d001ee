package hal

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Range is an inclusive range of registers.
type Range struct{ First, Last uint32 }

// String gives the range as it is written, "0x6b" or "0x1a-0x1d".
func (r Range) String() string {
	if r.First == r.Last {
		return fmt.Sprintf("%#02x", r.First)
	}
	return fmt.Sprintf("%#02x-%#02x", r.First, r.Last)
}

// UnmarshalText reads "0x6b", "107" or "0x1a-0x1d".
func (r *Range) UnmarshalText(text []byte) error {
	from, to, both := strings.Cut(string(text), "-")
	first, err := strconv.ParseUint(from, 0, 32)
	last := first
	if err == nil && both {
		last, err = strconv.ParseUint(to, 0, 32)
	}
	if err != nil || last < first {
		return fmt.Errorf("%.40q is no range: write a number, or first-last, as in 0x1a-0x1d", text)
	}
	*r = Range{uint32(first), uint32(last)}
	return nil
}

// within says whether every number from first to last is in one or several of the ranges.
func within(ranges []Range, first, last uint32) bool {
	for next := uint64(first); next <= uint64(last); {
		was := next
		for _, r := range ranges {
			if uint64(r.First) <= next && next <= uint64(r.Last) {
				next = uint64(r.Last) + 1
			}
		}
		if next == was {
			return false
		}
	}
	return true
}

// IDMask selects CAN identifiers: those with id&Mask == ID&Mask. The kernel's EFF bit (1<<31) is part of both.
type IDMask struct{ ID, Mask uint32 }

// Bits of a CAN identifier as the kernel has them.
const (
	CANExtended uint32 = 1 << 31
	CANRemote   uint32 = 1 << 30
	CANError    uint32 = 1 << 29
)

// String gives the mask as it is written, "0x321" or "0x100/0x700"; eight digits make it extended.
func (m IDMask) String() string {
	digits, whole := 3, uint32(0x7ff)
	if m.ID&CANExtended != 0 {
		digits, whole = 8, 0x1fffffff
	}
	s := fmt.Sprintf("0x%0*x", digits, m.ID&0x1fffffff)
	if m.Mask&0x1fffffff != whole {
		s += fmt.Sprintf("/%#x", m.Mask&0x1fffffff)
	}
	return s
}

// UnmarshalText reads "0x321" or "0x100/0x700". Eight hexadecimal digits, or a number above 0x7ff, name an extended identifier.
func (m *IDMask) UnmarshalText(text []byte) error {
	id, mask, masked := strings.Cut(string(text), "/")
	n, err := strconv.ParseUint(id, 0, 32)
	extended := n > 0x7ff || len(id) == 10
	whole := uint64(0x7ff)
	if extended {
		whole = 0x1fffffff
	}
	k := whole
	if err == nil && masked {
		k, err = strconv.ParseUint(mask, 0, 32)
	}
	if err != nil || n > whole || k > whole {
		return fmt.Errorf("%.40q is no CAN identifier: write one as 0x321, with a mask as 0x100/0x700, extended with eight digits", text)
	}
	*m = IDMask{uint32(n), uint32(k) | CANExtended}
	if extended {
		m.ID |= CANExtended
	}
	return nil
}

// Has says whether a frame's identifier is selected.
func (m IDMask) Has(id uint32) bool { return id&m.Mask == m.ID&m.Mask }

func anyHas(list []IDMask, id uint32) bool {
	for _, m := range list {
		if m.Has(id) {
			return true
		}
	}
	return false
}

// Prefix is what a write must begin with, written in hexadecimal.
type Prefix []byte

// UnmarshalText reads hexadecimal.
func (p *Prefix) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) == 0 || len(b) > 16 {
		return fmt.Errorf("%.40q is no command: write 1 to 16 bytes in hexadecimal", text)
	}
	*p = b
	return nil
}

// Rate is a number of operations in a second; zero = no limit.
type Rate float64

// String gives the rate as it is written, "10/s".
func (r Rate) String() string { return strconv.FormatFloat(float64(r), 'g', -1, 64) + "/s" }

// UnmarshalText reads "10/s".
func (r *Rate) UnmarshalText(text []byte) error {
	n, found := strings.CutSuffix(string(text), "/s")
	f, err := strconv.ParseFloat(n, 64)
	if err != nil || !found || !(f > 0 && f <= 1e6) {
		return fmt.Errorf("%.40q is no rate: write it as 10/s, at most 1000000/s", text)
	}
	*r = Rate(f)
	return nil
}

// Duration is a time as it is written in a configuration, "200ms".
type Duration time.Duration

// String gives it as it is written.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText is String: the operator's verbs send one.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads "200ms".
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf("%.40q is no time: write it as 200ms, 5s or 30m", text)
	}
	*d = Duration(v)
	return nil
}
