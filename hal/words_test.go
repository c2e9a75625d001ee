package hal_test

import (
	"fmt"
	"testing"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// FuzzWords: what is read of a configuration's small words means the same when it is written as it prints and read again.
func FuzzWords(f *testing.F) {
	for _, s := range []string{"0x1a-0x1d", "7", "holding:0-99", "coil:7", "0x100/0x700", "0x00000321", "fd89", "10/s", "200ms", "9600-8E1", "1-0", "0x800", "-", "1e9/s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var r hal.Range
		if r.UnmarshalText([]byte(text)) == nil {
			var again hal.Range
			if err := again.UnmarshalText([]byte(r.String())); err != nil || again != r || r.First > r.Last {
				t.Fatalf("range %q: %v reads as %v, %v", text, r, again, err)
			}
		}
		var m hal.IDMask
		if m.UnmarshalText([]byte(text)) == nil {
			var again hal.IDMask
			if err := again.UnmarshalText([]byte(m.String())); err != nil || again != m {
				t.Fatalf("identifiers %q: %v reads as %v, %v", text, m, again, err)
			}
			if m.Has(m.ID|hal.CANRemote) && m.Has(m.ID) && m.Mask&hal.CANRemote != 0 {
				t.Fatalf("identifiers %q: a remote frame passes", text)
			}
		}
		var tr hal.TableRange
		if tr.UnmarshalText([]byte(text)) == nil && tr.Range.Last > 0xffff {
			t.Fatalf("table %q: %v", text, tr)
		}
		var rate hal.Rate
		if rate.UnmarshalText([]byte(text)) == nil {
			var again hal.Rate
			if err := again.UnmarshalText([]byte(rate.String())); err != nil || again != rate || !(rate > 0) {
				t.Fatalf("rate %q: %v reads as %v, %v", text, rate, again, err)
			}
		}
		var p hal.Prefix
		if p.UnmarshalText([]byte(text)) == nil && (len(p) == 0 || len(p) > 16) {
			t.Fatalf("command %q: %x", text, p)
		}
		if mode, err := hal.ParseMode(text); err == nil {
			again, err := hal.ParseMode(fmt.Sprintf("%d-%d%c%d", mode.Baud, mode.Data, mode.Parity, mode.Stop))
			if err != nil || again.Baud != mode.Baud || again.Data != mode.Data || again.Parity != mode.Parity || again.Stop != mode.Stop {
				t.Fatalf("mode %q: %v reads as %v, %v", text, mode, again, err)
			}
		}
		var d hal.Duration
		if d.UnmarshalText([]byte(text)) == nil && d < 0 {
			t.Fatalf("time %q: %v", text, d)
		}
	})
}
