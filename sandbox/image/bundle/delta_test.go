package bundle_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

func headerOf(old, next []byte) bundle.DeltaHeader {
	return bundle.DeltaHeader{From: digestOf(old), To: digestOf(next), Size: uint64(len(next))}
}

func deltaOf(tb testing.TB, old, next []byte) []byte {
	tb.Helper()
	var spd bytes.Buffer
	if err := bundle.WriteDelta(&spd, headerOf(old, next), old, next, nil); err != nil {
		tb.Fatalf("write delta: %v", err)
	}
	return spd.Bytes()
}

func apply(spd, old []byte, want bundle.DeltaHeader) ([]byte, error) {
	var out bytes.Buffer
	_, err := bundle.ApplyDelta(&out, bytes.NewReader(spd), bytes.NewReader(old), int64(len(old)), want)
	return out.Bytes(), err
}

func TestDeltaMakesTheNewImageOfTheOld(t *testing.T) {
	t.Parallel()
	base := noise(200<<10, 3)
	edited := bytes.Clone(base)
	for i := 0; i < len(edited); i += 100 {
		edited[i]++
	}
	for name, tc := range map[string]struct {
		old, next []byte
		most      int // bytes of the delta
	}{
		"equal":            {base, base, 200},
		"one byte":         {base, slices.Concat(base[:999], []byte{base[999] ^ 1}, base[1000:]), 200},
		"inserted":         {base, slices.Concat(base[:5000], []byte("something new"), base[5000:]), 250},
		"removed":          {base, slices.Concat(base[:5000], base[7000:]), 250},
		"moved":            {base, slices.Concat(base[100<<10:], base[:100<<10]), 300},
		"every hundredth":  {base, edited, 6000},
		"from nothing":     {nil, base, len(base) + 1000},
		"to little":        {base, base[:1], 200},
		"from little":      {base[:1], base[:5000], 6000},
		"unrelated":        {base, noise(50<<10, 4), 60 << 10},
		"zeros":            {make([]byte, 1<<20), make([]byte, 2<<20), 2000},
		"zeros then bytes": {make([]byte, 1<<20), slices.Concat(make([]byte, 1<<19), base, make([]byte, 1<<19)), len(base) + 3000},
		"periodic":         {bytes.Repeat([]byte("abcabd"), 50000), bytes.Repeat([]byte("abcabe"), 50000), 5000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spd := deltaOf(t, tc.old, tc.next)
			got, err := apply(spd, tc.old, headerOf(tc.old, tc.next))
			if err != nil || !bytes.Equal(got, tc.next) {
				t.Fatalf("apply: %d bytes, %v, want the new image of %d", len(got), err, len(tc.next))
			}
			if len(spd) > tc.most {
				t.Errorf("delta of %d bytes, want up to %d", len(spd), tc.most)
			}
			if again := deltaOf(t, tc.old, tc.next); !bytes.Equal(again, spd) {
				t.Error("the same images gave another delta")
			}
		})
	}
}

func TestSuffixArrayIsInOrder(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(7, 7))
	for round := range 300 {
		text := make([]byte, random.IntN(400))
		letters := 1 + random.IntN(4)
		for i := range text {
			text[i] = byte(random.IntN(letters))
		}
		if round%10 == 0 {
			text = bytes.Repeat([]byte("abracadabra"[:1+round%11]), round%40)
		}
		want := make([]int32, len(text))
		for i := range want {
			want[i] = int32(i)
		}
		slices.SortFunc(want, func(a, b int32) int { return bytes.Compare(text[a:], text[b:]) })
		if got := bundle.SuffixArray(text); !slices.Equal(got, want) {
			t.Fatalf("suffixes of %q: got %v, want %v", text, got, want)
		}
	}
}

func withStored(h bundle.DeltaHeader) bundle.DeltaHeader {
	h.Stored = true
	return h
}

func TestDeltaWithTheLengthsOfChunksMakesTheIndexToo(t *testing.T) {
	t.Parallel()
	old := noise(200<<10, 3)
	next := slices.Concat(old[:150<<10], []byte("new"), make([]byte, 90<<10), make([]byte, 4093))
	packed, err := bundle.Pack(bytes.NewReader(next), bundle.FormatEROFS, io.Discard, nil)
	if err != nil {
		t.Fatal(err)
	}
	var spd bytes.Buffer
	if err := bundle.WriteDelta(&spd, headerOf(old, next), old, next, packed.Index); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	stored, err := bundle.ApplyDelta(&got, bytes.NewReader(spd.Bytes()), bytes.NewReader(old), int64(len(old)), headerOf(old, next))
	if err != nil || !bytes.Equal(got.Bytes(), next) {
		t.Fatalf("apply: %d bytes, %v, want the new image of %d", got.Len(), err, len(next))
	}
	m := bundle.Manifest{Image: packed.Image, Index: packed.Info}
	index, err := bundle.MakeIndex(&got, stored, m)
	if err != nil || !slices.Equal(index, packed.Index) {
		t.Errorf("index of %d chunks, %v, want the bundle's of %d", len(index), err, len(packed.Index))
	}
	for what, wrong := range map[string][]uint32{"one too few": stored[1:], "one changed": append(slices.Clone(stored[1:]), 7), "none": nil} {
		if _, err := bundle.MakeIndex(bytes.NewReader(next), wrong, m); bundle.CodeOf(err) == "" {
			t.Errorf("%s: got %v, want a refusal", what, err)
		}
	}
	if _, err := bundle.MakeIndex(bytes.NewReader(old), stored, m); bundle.CodeOf(err) == "" {
		t.Errorf("another image: got %v, want a refusal", err)
	}
}

// records prints the records of a delta.
type records []byte

func (r records) add(diff, extra uint64, seek int64, data ...byte) records {
	r = binary.AppendUvarint(r, diff)
	r = binary.AppendUvarint(r, extra)
	return append(binary.AppendVarint(r, seek), data...)
}

func TestG4DeltasThatLieAreRefused(t *testing.T) {
	t.Parallel()
	old, next := []byte("0123456789"), []byte("0123456789ab")
	h := headerOf(old, next)
	good := records{}.add(10, 2, 0, append(make([]byte, 10), 'a', 'b')...)
	if got, err := apply(bundle.CompressDelta(h, good), old, h); err != nil || !bytes.Equal(got, next) {
		t.Fatalf("the delta that the others are made of: %q, %v", got, err)
	}
	whole := bundle.CompressDelta(h, good)
	edit := func(at int, b ...byte) []byte {
		spd := bytes.Clone(whole)
		copy(spd[at:], b)
		return spd
	}
	long := bytes.Repeat([]byte{0xff}, 10)
	for name, tc := range map[string]struct {
		spd  []byte
		want bundle.Code
	}{
		"wrong magic":                {edit(0, 'x'), bundle.ErrMagic},
		"a bundle's magic":           {edit(3, 'B'), bundle.ErrMagic},
		"version 2":                  {edit(8, 0, 2), bundle.ErrVersion},
		"flags":                      {edit(10, 0, 2), bundle.ErrVersion},
		"lengths that are not there": {edit(10, 0, 1), bundle.ErrDelta},
		"too many lengths":           {bundle.CompressDelta(withStored(h), append(bytes.Clone(good), 3, 1, 1, 1)), bundle.ErrDelta},
		"2^63 lengths":               {bundle.CompressDelta(withStored(h), append(bytes.Clone(good), append(long[:8:8], 0x7f)...)), bundle.ErrDelta},
		"a length of 0":              {bundle.CompressDelta(withStored(h), append(bytes.Clone(good), 1, 0)), bundle.ErrDelta},
		"a length of 2^28":           {bundle.CompressDelta(withStored(h), append(bytes.Clone(good), 1, 0x80, 0x80, 0x80, 0x80, 1)), bundle.ErrDelta},
		"more than the lengths":      {bundle.CompressDelta(withStored(h), append(bytes.Clone(good), 1, 5, 5)), bundle.ErrDelta},
		"from another image":         {edit(12, 0, 0), bundle.ErrDelta},
		"to another image":           {edit(44, 0, 0), bundle.ErrDelta},
		"size of 2^63":               {edit(76, 0x80), bundle.ErrLength},
		"another size":               {edit(83, 11), bundle.ErrDelta},
		"ends in its header":         {whole[:50], bundle.ErrTruncated},
		"ends behind its header":     {whole[:bundle.DeltaHeaderSize], bundle.ErrDelta},
		"ends in its stream":         {whole[:len(whole)-3], bundle.ErrDelta},
		"no zstd":                    {append(bytes.Clone(whole[:bundle.DeltaHeaderSize]), "text"...), bundle.ErrDelta},
		"second stream":              {append(bytes.Clone(whole), whole[bundle.DeltaHeaderSize:]...), bundle.ErrDelta},
		"reads behind the old":       {bundle.CompressDelta(h, records{}.add(11, 0, 0, make([]byte, 11)...)), bundle.ErrDelta},
		"moves before the old":       {bundle.CompressDelta(h, records{}.add(1, 0, -2, 0)), bundle.ErrDelta},
		"moves behind the old":       {bundle.CompressDelta(h, records{}.add(1, 0, 10, 0)), bundle.ErrDelta},
		"moves by -2^63":             {bundle.CompressDelta(h, records{}.add(1, 0, -1<<63, 0)), bundle.ErrDelta},
		"moves by 2^63-1":            {bundle.CompressDelta(h, records{}.add(1, 0, 1<<63-1, 0)), bundle.ErrDelta},
		"makes too much":             {bundle.CompressDelta(h, records{}.add(10, 3, 0, make([]byte, 13)...)), bundle.ErrDelta},
		"lengths whose sum wraps":    {bundle.CompressDelta(h, records{}.add(1<<63, 1<<63, 0)), bundle.ErrDelta},
		"makes too little":           {bundle.CompressDelta(h, records{}.add(10, 1, 0, make([]byte, 11)...)), bundle.ErrDelta},
		"goes on behind the end":     {bundle.CompressDelta(h, append(bytes.Clone(good), 0)), bundle.ErrDelta},
		"empty record":               {bundle.CompressDelta(h, records{}.add(0, 0, 0)), bundle.ErrDelta},
		"endless moves":              {bundle.CompressDelta(h, bytes.Repeat(records{}.add(0, 0, 1), 1<<20)), bundle.ErrDelta},
		"varint of 11 bytes":         {bundle.CompressDelta(h, append(long, 1)), bundle.ErrDelta},
		"varint without end":         {bundle.CompressDelta(h, bytes.Repeat([]byte{0x80}, 1<<20)), bundle.ErrDelta},
		"window larger than it may":  {append(h.Append(nil), 0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x70, 0x01, 0x00, 0x00), bundle.ErrDelta},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := apply(tc.spd, old, h)
			if !errors.Is(err, tc.want) || strings.Contains(fmt.Sprint(err), "\n") {
				t.Errorf("got %v, want one line with %s", err, tc.want)
			}
			if len(got) > len(next) {
				t.Errorf("%d bytes were written, the image has %d", len(got), len(next))
			}
		})
	}
}

func TestDeltaBombInflatesToNoMoreThanTheImage(t *testing.T) {
	t.Parallel()
	h := headerOf(nil, make([]byte, 100))
	bomb := bundle.CompressDelta(h, append(records{}.add(0, 100, 0, make([]byte, 100)...), make([]byte, 64<<20)...))
	got, err := apply(bomb, nil, h)
	if !errors.Is(err, bundle.ErrDelta) || len(got) != 100 {
		t.Errorf("%d bytes, %v, want 100 and %s", len(got), err, bundle.ErrDelta)
	}
}

func TestErrorsOfTheOldImageAndTheWriterAreTheirOwn(t *testing.T) {
	t.Parallel()
	old := noise(100<<10, 1)
	h := headerOf(old, old)
	spd := deltaOf(t, old, old)
	broken := errors.New("broken disk")
	_, err := bundle.ApplyDelta(io.Discard, bytes.NewReader(spd), failing{broken}, int64(len(old)), h)
	if !errors.Is(err, broken) || bundle.CodeOf(err) != "" {
		t.Errorf("old image that cannot be read: got %v, want %v", err, broken)
	}
	_, err = bundle.ApplyDelta(failing{broken}, bytes.NewReader(spd), bytes.NewReader(old), int64(len(old)), h)
	if !errors.Is(err, broken) || bundle.CodeOf(err) != "" {
		t.Errorf("image that cannot be written: got %v, want %v", err, broken)
	}
}

type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func FuzzApplyDelta(f *testing.F) {
	old := noise(5000, 9)
	next := slices.Concat(old[:1000], []byte("new"), old[1500:])
	h := headerOf(old, next)
	f.Add(deltaOf(f, old, next)[bundle.DeltaHeaderSize:])
	f.Add(bundle.CompressDelta(h, records{}.add(10, 2, -5, make([]byte, 12)...))[bundle.DeltaHeaderSize:])
	f.Fuzz(func(t *testing.T, stream []byte) {
		got, err := apply(append(h.Append(nil), stream...), old, h)
		if len(got) > len(next) || (err == nil && len(got) != len(next)) {
			t.Errorf("%d bytes, %v, the image has %d", len(got), err, len(next))
		}
	})
}

// FuzzApplyDeltaRecords fuzzes behind the compression.
func FuzzApplyDeltaRecords(f *testing.F) {
	old := noise(5000, 9)
	h := bundle.DeltaHeader{Size: 4000}
	f.Add([]byte(records{}.add(10, 2, -5, make([]byte, 12)...)))
	f.Add([]byte(records{}.add(0, 4000, 4999, make([]byte, 4000)...)))
	f.Fuzz(func(t *testing.T, stream []byte) {
		got, err := apply(bundle.CompressDelta(h, stream), old, h)
		if len(got) > 4000 || (err == nil && len(got) != 4000) {
			t.Errorf("%d bytes, %v, the image has 4000", len(got), err)
		}
	})
}

func FuzzParseDeltaHeader(f *testing.F) {
	f.Add(bundle.DeltaHeader{Size: 7}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := bundle.ParseDeltaHeader(b)
		if err == nil && !bytes.Equal(h.Append(nil), b) {
			t.Errorf("header: parsed %x, printed %x", b, h.Append(nil))
		}
	})
}

func FuzzWriteDelta(f *testing.F) {
	f.Add([]byte("one two three"), []byte("one 2 three"))
	f.Add(noise(300, 1), noise(300, 2))
	f.Fuzz(func(t *testing.T, old, next []byte) {
		got, err := apply(deltaOf(t, old, next), old, headerOf(old, next))
		if err != nil || !bytes.Equal(got, next) {
			t.Errorf("delta of %x and %x made %x, %v", old, next, got, err)
		}
	})
}
