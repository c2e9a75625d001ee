package store

import (
	"bytes"
	"testing"
)

func FuzzParseValue(f *testing.F) {
	for _, v := range []value{
		{kind: kindBody, stored: 1_700_000_000_000, body: []byte("body")},
		{kind: kindBody, stored: 1, ttl: 7, clock: 300, body: []byte{}},
		{kind: kindReference, stored: 1_700_000_000_000, lane: 65535},
	} {
		f.Add(v.append(nil, laneSeed("sink", 3), 99), uint64(99))
	}
	f.Fuzz(func(t *testing.T, b []byte, seq uint64) {
		seed := laneSeed("sink", 3)
		v, ok := parseValue(b, seed, seq)
		if !ok {
			// The checksum is in the way of the parser: give it what it wants.
			if len(b) < checksumSize {
				return
			}
			b = bytes.Clone(b)
			sum := checksum(seed, seq, b[:len(b)-checksumSize])
			copy(b[len(b)-checksumSize:], []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)})
			if v, ok = parseValue(b, seed, seq); !ok {
				return
			}
		}
		printed := v.append(nil, seed, seq)
		again, ok := parseValue(printed, seed, seq)
		if !ok || again.kind != v.kind || again.stored != v.stored || again.ttl != v.ttl || again.clock != v.clock ||
			again.lane != v.lane || !bytes.Equal(again.body, v.body) {
			t.Errorf("got %+v, want %+v", again, v)
		}
		if _, ok := parseValue(printed, seed, seq+1); ok {
			t.Error("a record passed under another sequence")
		}
		if _, ok := parseValue(printed, laneSeed("sink", 4), seq); ok {
			t.Error("a record passed in another lane")
		}
	})
}

func FuzzParseSummary(f *testing.F) {
	b, err := summary{Lanes: []laneSummary{{ID: 1, Sink: "s", Count: 2, Bytes: 5, First: 1, Last: 9, Oldest: 3, Timed: true}}}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		sum, ok := parseSummary(b)
		if !ok {
			return
		}
		printed, err := sum.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, ok := parseSummary(printed)
		if !ok || len(again.Lanes) != len(sum.Lanes) {
			t.Fatalf("got %+v, want %+v", again, sum)
		}
		for i := range sum.Lanes {
			if again.Lanes[i] != sum.Lanes[i] {
				t.Errorf("lane %d: got %+v, want %+v", i, again.Lanes[i], sum.Lanes[i])
			}
		}
	})
}

func TestAnyFlippedBitIsSeen(t *testing.T) {
	t.Parallel()
	seed := laneSeed("sink", 3)
	b := value{kind: kindBody, stored: 1_700_000_000_000, ttl: 5, clock: 6, body: []byte("a body of some length")}.append(nil, seed, 7)
	for bit := range len(b) * 8 {
		flipped := bytes.Clone(b)
		flipped[bit/8] ^= 1 << (bit % 8)
		if v, ok := parseValue(flipped, seed, 7); ok {
			t.Errorf("bit %d: got %+v, want it refused", bit, v)
		}
	}
}
