package bundletest

import (
	"bytes"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// Manifests are rows B1 to B4: manifests that are not the one encoding, or say what none may, under a good signature.
func Manifests(tb testing.TB) []Hostile {
	tb.Helper()
	spb := honest(tb)
	// fields decodes the manifest, lets change edit it, and encodes it again, deterministically.
	fields := func(change func(map[uint64]cbor.RawMessage)) func([]byte) []byte {
		return func(b []byte) []byte {
			var m map[uint64]cbor.RawMessage
			if err := cbor.Unmarshal(b, &m); err != nil {
				tb.Fatal(err)
			}
			change(m)
			return encode(m)
		}
	}
	set := func(key uint64, v any) func([]byte) []byte {
		return fields(func(m map[uint64]cbor.RawMessage) { m[key] = encode(v) })
	}
	raw := func(key uint64, b ...byte) func([]byte) []byte {
		return func(whole []byte) []byte {
			var m map[uint64]cbor.RawMessage
			if err := cbor.Unmarshal(whole, &m); err != nil {
				tb.Fatal(err)
			}
			m[key] = b
			return encode(m)
		}
	}
	replace := func(b ...byte) func([]byte) []byte { return func([]byte) []byte { return b } }
	rows := []Hostile{{"B3 unknown key 1500, an extension", manifested(tb, spb, set(1500, []int{1, 2})), ""}}
	for row, c := range map[string]struct {
		change func([]byte) []byte
		want   bundle.Code
	}{
		"B1 duplicate key":           {replace(0xa2, 1, 1, 1, 1), bundle.ErrCBOR},
		"B1 indefinite map":          {func(b []byte) []byte { return append(append([]byte{0xbf}, b[1:]...), 0xff) }, bundle.ErrCBOR},
		"B1 depth bomb":              {replace(append(bytes.Repeat([]byte{0x81}, 5000), 0)...), bundle.ErrCBOR},
		"B1 array of 2^63":           {replace(0x9b, 0x80, 0, 0, 0, 0, 0, 0, 0), bundle.ErrCBOR},
		"B1 text of 2^63":            {replace(0xa1, 2, 0x7b, 0x80, 0, 0, 0, 0, 0, 0, 0), bundle.ErrCBOR},
		"B1 bad UTF-8":               {raw(2, 0x61, 0xff), bundle.ErrCBOR},
		"B1 tag":                     {raw(4, 0xc1, 1), bundle.ErrCBOR},
		"B1 float":                   {raw(4, 0xf9, 0x3c, 0), bundle.ErrCBOR},
		"B1 negative sequence":       {raw(4, 0x20), bundle.ErrCBOR},
		"B1 null sequence":           {raw(4, 0xf6), bundle.ErrCBOR},
		"B1 trailing data":           {func(b []byte) []byte { return append(bytes.Clone(b), 0) }, bundle.ErrCBOR},
		"B1 empty":                   {replace(), bundle.ErrCBOR},
		"B1 an array":                {replace(0x80), bundle.ErrCBOR},
		"B2 longer integer":          {raw(4, 0x18, 7), bundle.ErrCBOR},
		"B2 unsorted keys":           {replace(0xa2, 3, 0x61, '1', 1, 1), bundle.ErrCBOR},
		"B2 zero where absent":       {set(15, 0), bundle.ErrCBOR},
		"B2 digest of 31 bytes":      {set(8, map[int]any{1: 1, 2: 4096, 3: make([]byte, 31), 4: make([]byte, 32)}), bundle.ErrCBOR},
		"B2 digest as array":         {set(8, map[int]any{1: 1, 2: 4096, 3: make([]int, 32), 4: make([]byte, 32)}), bundle.ErrCBOR},
		"B2 extension not canonical": {raw(1500, 0x18, 7), bundle.ErrCBOR},
		"B3 unknown key 18":          {set(18, 1), bundle.ErrCBOR},
		"B3 unknown key 999":         {set(999, 1), bundle.ErrCBOR},
		"B3 unknown key 2000":        {set(2000, 1), bundle.ErrCBOR},
		"B3 unknown inner key":       {set(7, map[int]string{1: "linux", 2: "arm", 9: "x"}), bundle.ErrCBOR},
		"B4 name ../x":               {set(2, "../x"), bundle.ErrField},
		"B4 name a/b":                {set(2, "a/b"), bundle.ErrField},
		"B4 name of 64":              {set(2, strings.Repeat("a", 64)), bundle.ErrField},
		"B4 name upper case":         {set(2, "Demo"), bundle.ErrField},
		"B4 name with NUL":           {set(2, "a\x00"), bundle.ErrField},
		"B4 name empty":              {set(2, ""), bundle.ErrField},
		"B4 version of 65":           {set(3, strings.Repeat("1", 65)), bundle.ErrField},
		"B4 version with newline":    {set(3, "1\n2"), bundle.ErrField},
		"schema 2":                   {set(1, 2), bundle.ErrField},
		"kind 4":                     {set(5, 4), bundle.ErrField},
		"no class":                   {set(6, []string{}), bundle.ErrField},
		"17 classes":                 {set(6, strings.Split(strings.Repeat("x,", 16)+"x", ",")), bundle.ErrField},
		"another os":                 {set(7, map[int]string{1: "plan9", 2: "arm"}), bundle.ErrField},
		"kernel nonsense":            {set(7, map[int]string{1: "linux", 2: "arm", 4: "5.x"}), bundle.ErrField},
		"floor above sequence":       {set(17, 8), bundle.ErrField},
		"another chunker":            {set(9, map[int]any{1: 40, 2: make([]byte, 32), 3: 1, 4: []int{2, 8192, 32768, 131072}}), bundle.ErrField},
		"image not in blocks":        {set(8, map[int]any{1: 1, 2: 4097, 3: make([]byte, 32), 4: make([]byte, 32)}), bundle.ErrField},
		"a module depends on itself": {set(11, []map[int]any{{1: "demo", 2: 1}}), bundle.ErrField},
		"runtime without program":    {set(10, map[int]any{1: []string{""}}), bundle.ErrField},
		"runtime of kind 2":          {fields(func(m map[uint64]cbor.RawMessage) { m[5] = []byte{2}; m[6] = encode([]string{"x"}) }), bundle.ErrField},
		"host view false":            {set(10, map[int]any{1: []string{"/a"}, 6: false}), bundle.ErrCBOR},
		"env name with =":            {set(10, map[int]any{1: []string{"/a"}, 2: map[string]string{"A=": ""}}), bundle.ErrField},
		"env name beyond ASCII":      {set(10, map[int]any{1: []string{"/a"}, 2: map[string]string{"\u212a": ""}}), bundle.ErrField},
		"relative cwd":               {set(10, map[int]any{1: []string{"/a"}, 3: "x"}), bundle.ErrField},
		"user -1":                    {set(10, map[int]any{1: []string{"/a"}, 4: "-1"}), bundle.ErrField},
		"stop with SIGSTOP":          {set(10, map[int]any{1: []string{"/a"}, 5: "SIGSTOP"}), bundle.ErrField},
	} {
		rows = append(rows, Hostile{row, manifested(tb, spb, c.change), c.want})
	}
	return rows
}

// manifested is the honest bundle with another manifest, signed.
func manifested(tb testing.TB, spb []byte, change func([]byte) []byte) []byte {
	tb.Helper()
	return rewritten(tb, spb, func(e *bundle.Envelope) {
		*e = signed(1, e.Protected, change(e.Payload), aad)
	})
}
