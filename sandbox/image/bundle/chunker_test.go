package bundle_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

func cuts(t *testing.T, r io.Reader) []int {
	t.Helper()
	c := bundle.NewChunker(r)
	var lengths []int
	for {
		p, err := c.Next()
		if errors.Is(err, io.EOF) {
			return lengths
		}
		if err != nil {
			t.Fatalf("next: %v", err)
		}
		lengths = append(lengths, len(p))
	}
}

func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func TestCutsAreForEver(t *testing.T) {
	t.Parallel()
	got := cuts(t, bytes.NewReader(noise(400<<10, 1)))
	want := []int{44169, 19361, 48147, 51386, 34862, 44096, 25161, 38571, 9052, 50544, 35681, 8570}
	if !slices.Equal(got, want) {
		t.Errorf("gear table v1 cuts: got %v, want %v", got, want)
	}
}

func TestCutsDoNotDependOnHowTheStreamIsRead(t *testing.T) {
	t.Parallel()
	data := slices.Concat(noise(300<<10, 1), make([]byte, 300<<10), noise(700<<10, 2))
	want := cuts(t, bytes.NewReader(data))
	for name, r := range map[string]io.Reader{
		"a byte a time":   iotest.OneByteReader(bytes.NewReader(data)),
		"half of each":    iotest.HalfReader(bytes.NewReader(data)),
		"error with data": iotest.DataErrReader(bytes.NewReader(data)),
	} {
		if got := cuts(t, r); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

func TestChunksStayInTheirLimitsAndNearTheAverage(t *testing.T) {
	t.Parallel()
	const total = 16 << 20
	lengths := cuts(t, bytes.NewReader(noise(total, 3)))
	sum := 0
	for i, n := range lengths {
		sum += n
		if n > bundle.MaxChunk || (n < bundle.MinChunk && i < len(lengths)-1) {
			t.Errorf("chunk %d of %d bytes, want %d to %d", i, n, bundle.MinChunk, bundle.MaxChunk)
		}
	}
	if sum != total {
		t.Errorf("chunks hold %d bytes, want %d", sum, total)
	}
	if mean := total / len(lengths); mean < 28<<10 || mean > 42<<10 {
		t.Errorf("mean chunk of %d bytes, want about %d", mean, bundle.AverageChunk)
	}
}

func TestInsertionMovesOnlyTheCutsNearIt(t *testing.T) {
	t.Parallel()
	data := noise(4<<20, 4)
	seen := make(map[string]bool)
	c := bundle.NewChunker(bytes.NewReader(data))
	for p, err := c.Next(); err == nil; p, err = c.Next() {
		seen[string(p)] = true
	}
	changed := slices.Concat(data[:1<<20], []byte("one line more\n"), data[1<<20:])
	fresh := 0
	c = bundle.NewChunker(bytes.NewReader(changed))
	for p, err := c.Next(); err == nil; p, err = c.Next() {
		if !seen[string(p)] {
			fresh++
		}
	}
	if fresh > 3 {
		t.Errorf("%d new chunks after an insertion of 14 bytes, want at most 3", fresh)
	}
}
