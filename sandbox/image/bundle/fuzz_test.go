package bundle_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

func FuzzParseHeader(f *testing.F) {
	f.Add(goldenBundle(f)[:bundle.HeaderSize])
	f.Add(make([]byte, bundle.HeaderSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := bundle.ParseHeader(b)
		if err != nil {
			return
		}
		if got := h.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("header: parsed %x, printed %x", b, got)
		}
		if h.PayloadOffset() > bundle.HeaderSize+bundle.MaxEnvelope+bundle.MaxIndex+8192 || h.FileSize() < h.PayloadOffset() {
			t.Errorf("header %+v: sections up to %d of %d", h, h.PayloadOffset(), h.FileSize())
		}
	})
}

func FuzzParseEnvelope(f *testing.F) {
	e, _, _ := bundle.Parts(goldenBundle(f))
	f.Add(e.Encode())
	f.Add(bundle.Envelope{Payload: e.Payload}.Encode())
	f.Add([]byte{0xd2, 0x84, 0x40, 0xa0, 0x40, 0x40})
	trusted := []bundle.PublicKey{bundletest.Key(f, 1).Public()}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := bundle.ParseEnvelope(b)
		if err != nil {
			return
		}
		if got := e.Encode(); !bytes.Equal(got, b) {
			t.Errorf("envelope: parsed %x, printed %x", b, got)
		}
		e.Signer()
		_, _, _ = e.Open(trusted)
	})
}

func FuzzParseManifest(f *testing.F) {
	e, _, _ := bundle.Parts(goldenBundle(f))
	f.Add(e.Payload)
	small, _, _ := bundle.Parts(bundletest.Build(f, bundletest.Options{}))
	f.Add(small.Payload)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := bundle.ParseManifest(b)
		if err != nil {
			if bundle.CodeOf(err) == "" {
				t.Errorf("refusal without a code: %v", err)
			}
			return
		}
		got, err := m.Encode()
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("manifest: parsed %x, printed %x %v", b, got, err)
		}
	})
}

func FuzzParseIndex(f *testing.F) {
	_, x, _ := bundle.Parts(goldenBundle(f))
	plain, stored := x.Sums(len(x))
	f.Add(x.Append(nil), uint64(plain), uint64(stored))
	f.Fuzz(func(t *testing.T, b []byte, plain, stored uint64) {
		x, err := bundle.ParseIndex(b, plain, stored)
		if err != nil {
			return
		}
		if got := x.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("index: parsed %x, printed %x", b, got)
		}
	})
}

func FuzzUnpack(f *testing.F) {
	_, x, payload := bundle.Parts(goldenBundle(f))
	for _, c := range x {
		f.Add(payload[:c.Stored], c.Plain)
		payload = payload[c.Stored:]
	}
	unpack, err := bundle.NewUnpacker()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, stored []byte, plain uint32) {
		if plain > bundle.MaxChunk || len(stored) > int(plain) {
			return
		}
		got, err := unpack.Unpack(bundle.Chunk{Digest: digestOf(stored), Plain: plain, Stored: uint32(len(stored))}, stored)
		if err == nil && !bytes.Equal(got, stored) {
			t.Errorf("a chunk with another digest was accepted")
		}
	})
}

func FuzzReadBundle(f *testing.F) {
	f.Add(bundletest.Build(f, bundletest.Options{}))
	trusted := []bundle.PublicKey{bundletest.Key(f, 1).Public()}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := bundle.ReadHeadUnverified(bytes.NewReader(b)); err != nil {
			return
		}
		head, err := bundle.Extract(io.Discard, bytes.NewReader(b), trusted, nil)
		if err == nil && head.Header.FileSize() != int64(len(b)) {
			t.Errorf("accepted %d bytes, the header says %d", len(b), head.Header.FileSize())
		}
	})
}

func FuzzCheckImage(f *testing.F) {
	img, err := io.ReadAll(bundletest.Image(f, map[string]string{"a/b": "c", "d": "e"}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(img)
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = bundle.CheckImage(bytes.NewReader(b), int64(len(b)))
	})
}

func FuzzChunker(f *testing.F) {
	f.Add(noise(100<<10, 1), 7)
	f.Fuzz(func(t *testing.T, b []byte, piece int) {
		if piece < 1 {
			return
		}
		want := cuts(t, bytes.NewReader(b))
		got := cuts(t, io.MultiReader(bytes.NewReader(b[:min(piece, len(b))]), bytes.NewReader(b[min(piece, len(b)):])))
		if len(got) != len(want) {
			t.Errorf("cuts: got %v, want %v", got, want)
		}
	})
}
