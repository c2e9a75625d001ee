package image

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

func TestTier2OfALargeImageNeedsNoIndex(t *testing.T) {
	t.Parallel()
	build := func(version uint64) []byte {
		return bundletest.Build(t, bundletest.Options{
			Files:    map[string]string{"a": fmt.Sprint("version ", version), "b": string(noise(9<<20, 5))},
			Manifest: func(m *bundle.Manifest) { m.Sequence = version },
		})
	}
	old, next := build(1), build(2)
	name, spd := deltaBetween(t, old, next)
	head, _ := imageOf(t, next)
	if head.Header.PayloadOffset() < firstBytes+int64(len(spd)) {
		t.Fatalf("an index of %d bytes says nothing beside a delta of %d", head.Header.Index, len(spd))
	}
	flipped := clone(spd)
	flipped[len(flipped)/2] ^= 1
	var bare bytes.Buffer // as a delta without the lengths is
	_, oldImage := imageOf(t, old)
	_, nextImage := imageOf(t, next)
	h, err := bundle.ParseDeltaHeader(spd[:bundle.DeltaHeaderSize])
	if err != nil {
		t.Fatal(err)
	}
	if err := bundle.WriteDelta(&bare, h, oldImage, nextImage, nil); err != nil {
		t.Fatal(err)
	}
	index := int64(head.Header.Index)
	for what, tc := range map[string]struct {
		spd  []byte
		most int64 // bytes that come
	}{
		"with the lengths of chunks":     {spd, firstBytes + bundle.DeltaHeaderSize + int64(len(spd))},
		"without them":                   {bare.Bytes(), firstBytes + index + 4096 + 2*int64(bare.Len())},
		"damaged":                        {flipped, firstBytes + index + 4096 + int64(len(spd)) + 4*bundle.MaxChunk},
		"none":                           {nil, firstBytes + index + 4096 + 4*bundle.MaxChunk},
		"one that is larger than chunks": {noise(300<<10, 3), firstBytes + index + 4096 + 4*bundle.MaxChunk},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWeb(map[string][]byte{"2.spb": next, name: tc.spd})
			if tc.spd == nil {
				delete(w.files, name)
			}
			base, s := w.on(t, nil)
			install(t, s, old)
			img, err := s.Fetch(t.Context(), base+"2.spb", "", nil)
			verified(t, s, img, err)
			if got := w.total(); got > tc.most {
				t.Errorf("%d bytes came, want at most %d", got, tc.most)
			}
			cfg := s.cfg
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if _, ok := reopen(t, cfg, nil).Lookup(img.Digest); !ok {
				t.Error("the next agent does not find it")
			}
		})
	}
	for _, cut := range []int{3000, 8500, 8<<10 + len(spd) - 1} {
		t.Run(fmt.Sprint("cut after ", cut, " bytes, and by the next agent"), func(t *testing.T) {
			t.Parallel()
			w := newWeb(map[string][]byte{"2.spb": next, name: spd})
			base, s := w.on(t, nil)
			install(t, s, old)
			ctx, end := context.WithCancel(t.Context())
			defer end()
			w.cut = func(string) (int, func()) {
				var sum int
				for _, n := range w.bytes {
					sum += int(n)
				}
				if ctx.Err() != nil || cut < sum {
					return -1, nil
				}
				return cut - sum, end
			}
			if _, err := s.Fetch(ctx, base+"2.spb", "", nil); err == nil {
				t.Fatal("the cut came too late")
			}
			cfg := s.cfg
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = reopen(t, cfg, nil)
			img, err := s.Fetch(t.Context(), base+"2.spb", "", nil)
			verified(t, s, img, err)
			if got, most := w.total(), int64(2*firstBytes+2*(len(spd)+bundle.DeltaHeaderSize)); got > most {
				t.Errorf("%d bytes came, want at most %d: the start and the delta twice, as what was under way at the cut may be lost", got, most)
			}
		})
	}
}
