package linux

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// scanType is how a channel lies in a buffer's sample: "le:s12/16>>4" is a signed number of 12 bits in 16, little
// endian, shifted left by 4.
type scanType struct {
	big, signed   bool
	bits, storage int // in bits; storage is 8, 16, 32 or 64
	shift, repeat int
}

// parseScanType reads the file in_X_type of scan_elements.
func parseScanType(s string) (scanType, error) {
	bad := func(what string) (scanType, error) {
		return scanType{}, fmt.Errorf("scan type %q: %s; want as in le:s12/16>>4", clip(s), what)
	}
	t := scanType{repeat: 1}
	order, rest, ok := strings.Cut(s, ":")
	if !ok || order != "le" && order != "be" {
		return bad("no byte order")
	}
	t.big = order == "be"
	if rest == "" || rest[0] != 's' && rest[0] != 'u' {
		return bad("no sign")
	}
	t.signed = rest[0] == 's'
	used, rest, ok := strings.Cut(rest[1:], "/")
	if !ok {
		return bad("no storage")
	}
	rest, shift, shifted := strings.Cut(rest, ">>")
	storage, repeat, repeated := strings.Cut(rest, "X")
	var err error
	if t.bits, err = small(used); err != nil {
		return bad("bits")
	}
	if t.storage, err = small(storage); err != nil {
		return bad("storage")
	}
	if shifted {
		if t.shift, err = small(shift); err != nil {
			return bad("shift")
		}
	}
	if repeated {
		if t.repeat, err = small(repeat); err != nil || t.repeat == 0 {
			return bad("repeat")
		}
	}
	switch {
	case t.storage != 8 && t.storage != 16 && t.storage != 32 && t.storage != 64:
		return bad("storage is 8, 16, 32 or 64")
	case t.bits == 0 || t.bits+t.shift > t.storage:
		return bad("more bits than storage")
	case t.repeat > 16:
		return bad("repeat above 16")
	}
	return t, nil
}

func (t scanType) String() string {
	s := "le:"
	if t.big {
		s = "be:"
	}
	if t.signed {
		s += "s"
	} else {
		s += "u"
	}
	s += strconv.Itoa(t.bits) + "/" + strconv.Itoa(t.storage)
	if t.repeat > 1 {
		s += "X" + strconv.Itoa(t.repeat)
	}
	if t.shift > 0 {
		s += ">>" + strconv.Itoa(t.shift)
	}
	return s
}

func small(s string) (int, error) {
	if len(s) == 0 || len(s) > 3 || strings.Trim(s, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.Atoi(s)
}

// bytes is the room of the channel, and its alignment is that of one of its numbers.
func (t scanType) bytes() int { return t.storage / 8 * t.repeat }

// value decodes the first number of a channel.
func (t scanType) value(b []byte) int64 {
	var u uint64
	size := t.storage / 8
	for i := range size {
		at := i
		if !t.big {
			at = size - 1 - i
		}
		u = u<<8 | uint64(b[at])
	}
	u >>= t.shift
	if t.bits < 64 {
		u &= 1<<t.bits - 1
		if t.signed && u>>(t.bits-1) == 1 {
			return int64(u | ^uint64(0)<<t.bits)
		}
	}
	return int64(u)
}

// element is one enabled channel of a buffer.
type element struct {
	index int
	name  string // "voltage0", "timestamp"
	typ   scanType
	at    int // offset in the sample
}

// layout gives each element, in the order of the index, its place: aligned to its own size. The sample is as long
// as a multiple of its largest member.
func layout(list []element) (sample int, err error) {
	largest := 1
	for i := range list {
		size := list[i].typ.storage / 8
		sample = (sample + size - 1) &^ (size - 1)
		list[i].at = sample
		sample += list[i].typ.bytes()
		largest = max(largest, size)
	}
	if len(list) > 64 || sample > 4096 {
		return 0, fmt.Errorf("a sample of %d channels and %d bytes: more than 64 or 4096", len(list), sample)
	}
	return (sample + largest - 1) &^ (largest - 1), nil
}

// decodeSamples calls f for each whole sample with its channels' raw numbers, in the order of list, and returns the
// bytes that are left over.
func decodeSamples(b []byte, list []element, sample int, f func(raw []int64)) []byte {
	if sample <= 0 || bits.Len(uint(sample)) > 13 {
		return b
	}
	raw := make([]int64, len(list))
	for len(b) >= sample {
		for i, e := range list {
			raw[i] = e.typ.value(b[e.at:])
		}
		f(raw)
		b = b[sample:]
	}
	return b
}
