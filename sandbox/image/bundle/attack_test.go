package bundle_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

// rejects extracts spb with the test key trusted and wants one of the codes. Nothing that was written may be the whole image.
func rejects(t *testing.T, spb []byte, want ...bundle.Code) {
	t.Helper()
	var image bytes.Buffer
	_, err := bundle.Extract(&image, bytes.NewReader(spb), []bundle.PublicKey{bundletest.Key(t, 1).Public()}, nil)
	for _, code := range want {
		if errors.Is(err, code) {
			if line := err.Error(); strings.Contains(line, "\n") || !strings.Contains(line, string(code)) {
				t.Errorf("error %q: want one line with %s", line, code)
			}
			return
		}
	}
	t.Errorf("got %v, want %v", err, want)
}

// rewrite puts the parts of the golden bundle together again after change touched them; the lengths of the header follow.
func rewrite(t *testing.T, change func(e *bundle.Envelope, x *bundle.Index, payload *[]byte)) []byte {
	t.Helper()
	e, x, payload := bundle.Parts(goldenBundle(t))
	change(&e, &x, &payload)
	return append(bundle.AppendPrefix(nil, e, x), payload...)
}

// resigned signs payload and header bytes of the caller's making with the trusted key.
func resigned(t *testing.T, protected func([]byte) []byte, manifest func([]byte) []byte, aad string) []byte {
	t.Helper()
	key := bundletest.Key(t, 1)
	return rewrite(t, func(e *bundle.Envelope, _ *bundle.Index, _ *[]byte) {
		p, m := e.Protected, e.Payload
		if protected != nil {
			p = protected(p)
		}
		if manifest != nil {
			m = manifest(m)
		}
		*e = bundle.SignRaw(key, p, m, aad)
	})
}

func TestA1ToA4HeadersAreRefusedBeforeAnythingIsAllocated(t *testing.T) {
	t.Parallel()
	put := func(at int, b ...byte) func([]byte) []byte {
		return func(spb []byte) []byte { copy(spb[at:], b); return spb }
	}
	u64 := func(at int, v uint64) func([]byte) []byte {
		return put(at, binary.BigEndian.AppendUint64(nil, v)...)
	}
	for name, tc := range map[string]struct {
		change func([]byte) []byte
		want   bundle.Code
	}{
		"A1 wrong magic":            {put(1, 'X'), bundle.ErrMagic},
		"A1 text-mode magic":        {func(b []byte) []byte { return bytes.Replace(b, []byte("\r\n"), []byte("\n"), 1) }, bundle.ErrMagic},
		"A1 seventh bit lost":       {put(0, 0x09), bundle.ErrMagic},
		"A2 format 2":               {put(8, 0, 2), bundle.ErrVersion},
		"A2 longer header":          {put(10, 0, 40), bundle.ErrVersion},
		"A3 no envelope":            {put(12, 0, 0, 0, 0), bundle.ErrLength},
		"A3 envelope of 65537":      {put(12, 0, 1, 0, 1), bundle.ErrLength},
		"A3 envelope of 2^32-1":     {put(12, 255, 255, 255, 255), bundle.ErrLength},
		"A3 index of 41":            {u64(16, 41), bundle.ErrLength},
		"A3 index of 2^63":          {u64(16, 1<<63), bundle.ErrLength},
		"A3 payload of 2^63":        {u64(24, 1<<63), bundle.ErrLength},
		"A4 another index length":   {u64(16, 40), bundle.ErrLength},
		"A4 another payload length": {u64(24, 4096), bundle.ErrLength},
		"A6 trailing byte":          {func(b []byte) []byte { return append(b, 0) }, bundle.ErrLength},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rejects(t, tc.change(goldenBundle(t)), tc.want)
		})
	}
}

func TestA5EveryTruncationIsRefused(t *testing.T) {
	t.Parallel()
	spb := goldenBundle(t)
	head, err := bundle.ReadHeadUnverified(bytes.NewReader(spb))
	if err != nil {
		t.Fatal(err)
	}
	h := head.Header
	for name, end := range map[string]int64{
		"header":   bundle.HeaderSize,
		"envelope": bundle.HeaderSize + int64(h.Envelope),
		"index":    h.IndexOffset(),
		"padding":  h.IndexOffset() + int64(h.Index),
		"payload":  h.PayloadOffset(),
		"file":     h.FileSize(),
	} {
		for d := int64(-1); d <= 1; d++ {
			if cut := end + d; cut < h.FileSize() {
				t.Logf("%s%+d", name, d)
				rejects(t, spb[:cut], bundle.ErrTruncated)
			}
		}
	}
}

func TestA6PaddingMustBeZero(t *testing.T) {
	t.Parallel()
	spb := goldenBundle(t)
	head, err := bundle.ReadHeadUnverified(bytes.NewReader(spb))
	if err != nil {
		t.Fatal(err)
	}
	h := head.Header
	for _, at := range []int64{bundle.HeaderSize + int64(h.Envelope), h.IndexOffset() - 1, h.IndexOffset() + int64(h.Index), h.PayloadOffset() - 1} {
		if at >= h.IndexOffset() && at < h.IndexOffset()+int64(h.Index) {
			continue // no padding there
		}
		bad := bytes.Clone(spb)
		bad[at] = 1
		rejects(t, bad, bundle.ErrLength)
	}
}

func TestA7OneFlippedBitIsRefusedWhereverItIs(t *testing.T) {
	t.Parallel()
	spb := goldenBundle(t)
	head, err := bundle.ReadHeadUnverified(bytes.NewReader(spb))
	if err != nil {
		t.Fatal(err)
	}
	places := make([]int, 0, 3000)
	for i := range bundle.HeaderSize + int(head.Header.Envelope) {
		places = append(places, i)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		places = append(places, int(head.Header.IndexOffset())+random.IntN(len(spb)-int(head.Header.IndexOffset())))
	}
	trusted := []bundle.PublicKey{bundletest.Key(t, 1).Public()}
	for _, at := range places {
		bit := byte(1) << random.IntN(8)
		spb[at] ^= bit
		if _, err := bundle.Extract(io.Discard, bytes.NewReader(spb), trusted, nil); bundle.CodeOf(err) == "" {
			t.Errorf("bit %#x at byte %d flipped: got %v, want a refusal", bit, at, err)
		}
		spb[at] ^= bit
	}
}
