package message

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

var update = flag.Bool("update", false, "rewrite the golden file of the current version")

type sample struct {
	name string
	m    Message
}

func samples() []sample {
	return []sample{
		{"empty", Message{}},
		{"device", Message{Source: device, Body: []byte(`{"t":21.5}`), Accepted: time.UnixMicro(1795551440123456).UTC()}},
		{"full", Message{
			Source: module, Output: "out1",
			Bag:  iothub.Bag{{Key: "$.mid", Value: "id 1"}, {Key: "ä", Value: ""}, {Key: "", Value: "x"}},
			Body: []byte{0, 1, 255}, Accepted: time.UnixMicro(1).UTC(), ID: "7.42",
		}},
		{"before-1970", Message{Source: device, Accepted: time.UnixMicro(-1).UTC()}},
		{"epoch", Message{Source: device, Accepted: time.UnixMicro(0).UTC()}},
		{"year-9999", Message{Source: device, Accepted: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}},
		{"heads", Message{
			Source: iothub.ID{Device: strings.Repeat("d", 128), Module: "m"}, Output: strings.Repeat("o", 24),
			Bag: iothub.Bag{{Key: strings.Repeat("k", 23), Value: strings.Repeat("v", 300)}}, Body: bytes.Repeat([]byte{7}, 256),
		}},
	}
}

func TestGoldenFileOfVersion1(t *testing.T) {
	t.Parallel()
	const path = "testdata/v1.golden"
	if *update {
		var b strings.Builder
		for _, s := range samples() {
			fmt.Fprintf(&b, "%s %x\n", s.name, s.m.Append(nil))
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{}
	for line := range strings.Lines(string(text)) {
		name, digits, _ := strings.Cut(strings.TrimSpace(line), " ")
		if want[name], err = hex.DecodeString(digits); err != nil {
			t.Fatal(err)
		}
	}
	if len(want) != len(samples()) {
		t.Fatalf("the golden file holds %d messages, want %d", len(want), len(samples()))
	}
	for _, s := range samples() {
		if got := s.m.Append(nil); !bytes.Equal(got, want[s.name]) {
			t.Errorf("%s: encodes as %x, want %x", s.name, got, want[s.name])
		}
		if got, err := Decode(want[s.name]); err != nil || !reflect.DeepEqual(got, s.m) {
			t.Errorf("%s: decodes as %+v, error %v, want %+v", s.name, got, err, s.m)
		}
	}
}

// library encodes with the CBOR library what Append writes by hand.
func library(t testing.TB, m Message) []byte {
	t.Helper()
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	w := wire{Version: Version, Device: m.Source.Device, Module: m.Source.Module, Output: m.Output, Body: m.Body, ID: m.ID, Boot: m.Boot, Uptime: uint64(m.Uptime.Microseconds())}
	for _, p := range m.Bag {
		w.Bag = append(w.Bag, p.Key, p.Value)
	}
	if !m.Accepted.IsZero() {
		us := m.Accepted.UnixMicro()
		w.Accepted = &us
	}
	data, err := mode.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestAppendWritesWhatTheLibraryWrites(t *testing.T) {
	t.Parallel()
	all := samples()
	all = append(all, sample{"of a device without a clock", Message{Source: device, Body: []byte("x")}.Untimed("b00", 90*time.Second)})
	for _, n := range []int{0, 1, 22, 23, 24, 255, 256, 65535, 65536} {
		all = append(all, sample{fmt.Sprint("body of ", n), Message{Source: device, Body: make([]byte, n), ID: strings.Repeat("i", min(n, 300))}})
		bag := make(iothub.Bag, min(n, iothub.MaxProperties))
		all = append(all, sample{fmt.Sprint("bag of ", n), Message{Source: device, Bag: bag, Output: strings.Repeat("o", n)}})
	}
	for _, s := range all {
		got, want := s.m.Append([]byte("before")), append([]byte("before"), library(t, s.m)...)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got %.100x, want %.100x", s.name, got, want)
		}
		if room := s.m.EncodedSize(); room < len(got)-len("before") || room > len(got)+100 {
			t.Errorf("%s: EncodedSize says %d for %d bytes", s.name, room, len(got)-len("before"))
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	good := samples()[2].m.Append(nil)
	encode := func(v any) []byte {
		data, err := cbor.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for name, tc := range map[string]struct {
		data []byte
		want error
	}{
		"nothing":                    {nil, ErrCorrupt},
		"a torn record":              {good[:len(good)-1], ErrCorrupt},
		"a byte behind it":           {append(bytes.Clone(good), 0), ErrCorrupt},
		"text":                       {[]byte(`{"a":1}`), ErrCorrupt},
		"a newer version":            {encode(map[int]any{0: 2, 1: 7}), ErrVersion},
		"no version":                 {encode(map[int]any{1: "d"}), ErrCorrupt},
		"a key without value":        {encode(map[int]any{0: 1, 1: "d", 4: []string{"k"}}), ErrCorrupt},
		"a module of nobody":         {encode(map[int]any{0: 1, 2: "m"}), ErrCorrupt},
		"a bad id":                   {encode(map[int]any{0: 1, 1: "a b"}), ErrCorrupt},
		"a member twice":             {[]byte{0xa3, 0, 1, 1, 0x61, 'd', 1, 0x61, 'e'}, ErrCorrupt},
		"an open-ended map":          {[]byte{0xbf, 0, 1, 0xff}, ErrCorrupt},
		"an open-ended text":         {[]byte{0xa2, 0, 1, 1, 0x7f, 0x61, 'd', 0xff}, ErrCorrupt},
		"a tag":                      {[]byte{0xa2, 0, 1, 1, 0xc0, 0x61, 'd'}, ErrCorrupt},
		"text that is not UTF-8":     {[]byte{0xa2, 0, 1, 3, 0x61, 0xff}, ErrCorrupt},
		"a body in text":             {[]byte{0xa2, 0, 1, 5, 0x61, 'd'}, ErrCorrupt},
		"a length beyond the end":    {[]byte{0xa2, 0, 1, 5, 0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, ErrCorrupt},
		"an array beyond the limit":  {[]byte{0xa2, 0, 1, 4, 0x9a, 0, 1, 0, 0}, ErrCorrupt},
		"nesting beyond the limit":   {append([]byte{0xa2, 0, 1, 9}, bytes.Repeat([]byte{0x81}, 40)...), ErrCorrupt},
		"a record of immense length": {make([]byte, maxEncoded+1), ErrCorrupt},
		"a time of 64 bits":          {[]byte{0xa2, 0, 1, 6, 0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Decode(tc.data)
			if !errors.Is(err, tc.want) || !reflect.DeepEqual(got, Message{}) {
				t.Fatalf("got %+v, error %v, want nothing and %v", got, err, tc.want)
			}
		})
	}
}

func TestDecodeIgnoresMembersOfALaterAgent(t *testing.T) {
	t.Parallel()
	data, err := cbor.Marshal(map[int]any{0: 1, 1: "d", 19: []any{"new", map[string]int{"x": 1}}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(data)
	if want := (Message{Source: iothub.ID{Device: "d"}}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, error %v, want %+v", got, err, want)
	}
}

func TestDecodedMessagesKeepNothingOfTheirInput(t *testing.T) {
	t.Parallel()
	want := samples()[2].m
	data := want.Append(nil)
	got, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	clear(data)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range samples() {
		f.Add(s.m.Append(nil))
	}
	f.Add([]byte{0xa3, 0, 1, 1, 0x61, 'd', 24, 99, 0x81, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Decode(data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Fatalf("error %v is of no kind", err)
			}
			return
		}
		again := m.Append(nil)
		if !bytes.Equal(again, library(t, m)) {
			t.Fatalf("%x is not what the library writes", again)
		}
		back, err := Decode(again)
		if err != nil || !reflect.DeepEqual(back, m) {
			t.Fatalf("%+v encodes as %x, which decodes as %+v, error %v", m, again, back, err)
		}
	})
}

func benchmarkMessage() Message {
	return Message{
		Source: module, Output: "out1", Accepted: time.UnixMicro(1795551440123456).UTC(), ID: "7.42",
		Bag:  iothub.Bag{{Key: "$.mid", Value: "m1"}, {Key: "$.ct", Value: "application/json"}, {Key: "alert", Value: "1"}},
		Body: make([]byte, 256),
	}
}

func TestAppendDoesNotAllocate(t *testing.T) {
	m := benchmarkMessage()
	dst := make([]byte, 0, m.EncodedSize())
	if n := testing.AllocsPerRun(100, func() { dst = m.Append(dst[:0]) }); n != 0 {
		t.Errorf("got %v allocations into a buffer with room, want none", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	m := benchmarkMessage()
	dst := make([]byte, 0, m.EncodedSize())
	b.ReportAllocs()
	for b.Loop() {
		dst = m.Append(dst[:0])
	}
}

func BenchmarkDecode(b *testing.B) {
	m := benchmarkMessage()
	data := m.Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}
