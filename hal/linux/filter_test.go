package linux

import (
	"errors"
	"slices"
	"testing"
)

func TestRegisterFilterJudgesEveryByteThatIsTouched(t *testing.T) {
	t.Parallel()
	imu := Filter{RegBytes: 1, Read: []Range{{0x00, 0x7f}}, Write: []Range{{0x6b, 0x6b}, {0x1a, 0x1b}, {0x1c, 0x1d}}}
	eeprom := Filter{RegBytes: 2, Read: []Range{{0, 0x0fff}, {0xff00, 0xffff}}, Write: []Range{{0x100, 0x1ff}}}
	air := Filter{Commands: [][]byte{{0xfd}, {0x89, 0x01}}}
	w := func(b ...byte) Op { return Op{W: b} }
	wr := func(n int, b ...byte) Op { return Op{W: b, R: n} }
	for name, c := range map[string]struct {
		f   Filter
		ops []Op
		ok  bool
	}{
		"a register that may be read":        {imu, []Op{wr(1, 0x7f)}, true},
		"the first past the range":           {imu, []Op{wr(1, 0x80)}, false},
		"a burst that runs over the end":     {imu, []Op{wr(2, 0x7f)}, false},
		"a burst that wraps":                 {Filter{RegBytes: 1, Read: []Range{{0, 0xff}}}, []Op{wr(2, 0xff)}, false},
		"a bare read":                        {imu, []Op{{R: 1}}, false},
		"a read after its register":          {imu, []Op{w(0x10), {R: 6}}, true},
		"a second read after one register":   {imu, []Op{w(0x10), {R: 6}, {R: 1}}, false},
		"a read after data moved the chip":   {imu, []Op{w(0x6b, 0), {R: 1}}, false},
		"a read in the step of a write":      {imu, []Op{wr(1, 0x6b, 0)}, false},
		"a register that may be written":     {imu, []Op{w(0x6b, 0)}, true},
		"the neighbour of one":               {imu, []Op{w(0x6b, 0, 0)}, false},
		"ranges that touch":                  {imu, []Op{w(0x1a, 1, 2, 3, 4)}, true},
		"past ranges that touch":             {imu, []Op{w(0x1a, 1, 2, 3, 4, 5)}, false},
		"a write where only reads are":       {imu, []Op{w(0x00, 1)}, false},
		"a bad step behind good ones":        {imu, []Op{w(0x6b, 0), wr(1, 0), w(0x6c, 0)}, false},
		"a step of nothing":                  {imu, []Op{{}}, true},
		"two bytes of address":               {eeprom, []Op{wr(256, 0x0f, 0x00)}, true},
		"two bytes of address over the end":  {eeprom, []Op{wr(257, 0x0f, 0x00)}, false},
		"two bytes of address that wrap":     {eeprom, []Op{wr(257, 0xff, 0x00)}, false},
		"half an address":                    {eeprom, []Op{w(0x01)}, false},
		"a page that may be written":         {eeprom, []Op{{W: append([]byte{1, 0}, make([]byte, 256)...)}}, true},
		"a command":                          {air, []Op{w(0xfd), {R: 6}}, true},
		"a command with its argument":        {air, []Op{w(0x89, 0x01, 0x07)}, true},
		"another argument":                   {air, []Op{w(0x89, 0x02)}, false},
		"half a command":                     {air, []Op{w(0x89)}, false},
		"a read of a chip without registers": {air, []Op{{R: 6}}, true},
		"a filter that allows nothing":       {Filter{RegBytes: 1}, []Op{wr(1, 0)}, false},
		"an empty prefix is no command":      {Filter{Commands: [][]byte{{}}}, []Op{w(1)}, false},
	} {
		if err := c.f.Check(c.ops); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrDenied) {
			t.Errorf("%s: got %v, want allowed %v", name, err, c.ok)
		}
	}
}

func TestTableFilterJudgesWholeSpans(t *testing.T) {
	t.Parallel()
	f := TableFilter{Read: []Span{{"holding", 0, 99}, {"input", 65530, 65535}}, Write: []Span{{"coil", 7, 7}}}
	for name, c := range map[string]struct {
		op Op
		ok bool
	}{
		"the whole range":            {Op{Fn: "read-holding", Addr: 0, N: 100}, true},
		"one past it":                {Op{Fn: "read-holding", Addr: 1, N: 100}, false},
		"another table":              {Op{Fn: "read-input", Addr: 0, N: 1}, false},
		"the last register":          {Op{Fn: "read-input", Addr: 65535, N: 1}, true},
		"a span that wraps":          {Op{Fn: "read-input", Addr: 65535, N: 2}, false},
		"none":                       {Op{Fn: "read-holding", Addr: 0}, false},
		"a negative count":           {Op{Fn: "read-holding", Addr: 50, N: -5}, false},
		"the one coil":               {Op{Fn: "write-coil", Addr: 7, W: []byte{1}}, true},
		"its neighbour":              {Op{Fn: "write-coil", Addr: 7, W: []byte{1, 1}}, false},
		"a write under a read grant": {Op{Fn: "write-holding", Addr: 0, W: []byte{0, 1}}, false},
		"half a register":            {Op{Fn: "write-holding", Addr: 0, W: []byte{0}}, false},
		"a function of the future":   {Op{Fn: "reboot"}, false},
	} {
		if err := f.Check([]Op{c.op}); (err == nil) != c.ok {
			t.Errorf("%s: got %v, want allowed %v", name, err, c.ok)
		}
	}
}

func TestIdentifiersPassByMaskAndFormat(t *testing.T) {
	t.Parallel()
	masks := []IDMask{{ID: 0x100, Mask: 0x700}, {ID: 0x18fee500, Mask: 0x1fffff00, Extended: true}}
	for f, want := range map[[2]uint32]bool{{0x1ff, 0}: true, {0x200, 0}: false, {0x18fee5aa, 1}: true, {0x18fee4aa, 1}: false, {0x1ff, 1}: false} {
		if got := passes(masks, Frame{ID: f[0], Extended: f[1] == 1}); got != want {
			t.Errorf("%#x extended %d: got %v, want %v", f[0], f[1], got, want)
		}
	}
	if passes(nil, Frame{}) {
		t.Error("without a mask something passes")
	}
}

// What passes touches nothing else: a chip that counts as the filter assumes shows it.
func FuzzRegisterFilter(f *testing.F) {
	f.Add([]byte{0x10, 0x6b, 0x00}, 2, byte(0x10), byte(0x20), byte(0x6b), byte(0x6c))
	f.Add([]byte{0xff}, 2, byte(0), byte(0xff), byte(0), byte(0))
	f.Fuzz(func(t *testing.T, data []byte, r int, rf, rt, wf, wt byte) {
		filter := Filter{RegBytes: 1, Read: []Range{{uint32(rf), uint32(rt)}}, Write: []Range{{uint32(wf), uint32(wt)}}}
		cut := min(len(data), 3)
		ops := []Op{{W: data[:cut]}, {W: data[cut:], R: min(max(r, 0), 300)}}
		if filter.Check(ops) != nil {
			return
		}
		var read, written []byte
		pointer := byte(0xee)
		for _, o := range ops {
			for i, b := range o.W {
				if i == 0 {
					pointer = b
					continue
				}
				written = append(written, pointer)
				pointer++
			}
			for range o.R {
				read = append(read, pointer)
				pointer++
			}
		}
		if slices.ContainsFunc(read, func(b byte) bool { return b < rf || b > rt }) || slices.ContainsFunc(written, func(b byte) bool { return b < wf || b > wt }) {
			t.Fatalf("%x and %d passed: read %x, written %x", data, r, read, written)
		}
	})
}
