package bundletest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// Hostile is a bundle of the attack list. A room that reads bundles throws all of them at itself, so that a row is written once.
type Hostile struct {
	Row  string // of the list, and what is wrong
	File []byte
	Want bundle.Code // bundle.Code("") = it is accepted, and must be harmless
}

// Attacks are all rows that are bundles, whoever reads them. The honest ones among them are module demo, for every machine.
func Attacks(tb testing.TB) []Hostile {
	tb.Helper()
	all := append(Headers(tb), Manifests(tb)...)
	return append(append(all, Signatures(tb)...), Frames(tb)...)
}

// honest is the bundle that the hostile ones are made of: several chunks, compressed and not.
func honest(tb testing.TB) []byte {
	tb.Helper()
	noise := make([]byte, 200<<10)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(noise)
	return Build(tb, Options{Files: map[string]string{
		"bin/run": "#!/bin/sh\nexec /bin/app\n", "bin/app": string(noise), "text": string(bytes.Repeat([]byte("line after line\n"), 9000)),
	}})
}

// parts takes a bundle apart.
func parts(tb testing.TB, spb []byte) (bundle.Head, bundle.Index, []byte) {
	tb.Helper()
	head, err := bundle.ReadHeadUnverified(bytes.NewReader(spb))
	if err != nil {
		tb.Fatalf("read bundle: %v", err)
	}
	at := head.Header.IndexOffset()
	index, err := bundle.ParseIndex(spb[at:at+int64(head.Header.Index)], head.Manifest.Image.Size, head.Manifest.Index.Payload)
	if err != nil {
		tb.Fatalf("read index: %v", err)
	}
	return head, index, spb[head.Header.PayloadOffset():]
}

// rewritten puts the parts together again after change touched the envelope; the lengths of the header follow.
func rewritten(tb testing.TB, spb []byte, change func(e *bundle.Envelope)) []byte {
	tb.Helper()
	head, x, payload := parts(tb, spb)
	e := head.Envelope
	change(&e)
	return append(bundle.AppendPrefix(nil, e, x), payload...)
}

// signed makes an envelope with a signature of a fixed key over any payload, header and context, by RFC 9052 and not by our own code.
func signed(seed byte, protected, payload []byte, aad string) bundle.Envelope {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	text := encode([]any{"Signature1", append([]byte{}, protected...), []byte(aad), append([]byte{}, payload...)})
	return bundle.Envelope{Protected: protected, Payload: payload, Signature: ed25519.Sign(key, text)}
}

// aad is the context of a bundle's signature.
const aad = "sandpiper/bundle/v1"

// encode prints v in core deterministic form.
func encode(v any) []byte {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	b, err := mode.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// Headers are rows A1 to A6.
func Headers(tb testing.TB) []Hostile {
	tb.Helper()
	spb := honest(tb)
	head, _, _ := parts(tb, spb)
	h := head.Header
	put := func(at int, b ...byte) []byte {
		out := bytes.Clone(spb)
		copy(out[at:], b)
		return out
	}
	u64 := func(at int, v uint64) []byte { return put(at, binary.BigEndian.AppendUint64(nil, v)...) }
	rows := []Hostile{
		{"A1 wrong magic", put(1, 'X'), bundle.ErrMagic},
		{"A1 text-mode magic", bytes.Replace(spb, []byte("\r\n"), []byte("\n"), 1), bundle.ErrMagic},
		{"A1 seventh bit lost", put(0, 0x09), bundle.ErrMagic},
		{"A2 format 2", put(8, 0, 2), bundle.ErrVersion},
		{"A2 longer header", put(10, 0, 40), bundle.ErrVersion},
		{"A3 no envelope", put(12, 0, 0, 0, 0), bundle.ErrLength},
		{"A3 envelope of 65537", put(12, 0, 1, 0, 1), bundle.ErrLength},
		{"A3 envelope of 2^32-1", put(12, 255, 255, 255, 255), bundle.ErrLength},
		{"A3 index of 41", u64(16, 41), bundle.ErrLength},
		{"A3 index of 2^63", u64(16, 1<<63), bundle.ErrLength},
		{"A3 payload of 2^63", u64(24, 1<<63), bundle.ErrLength},
		{"A4 another index length", u64(16, 40), bundle.ErrLength},
		{"A4 another payload length", u64(24, 4096), bundle.ErrLength},
		{"A6 trailing byte", append(bytes.Clone(spb), 0), bundle.ErrLength},
	}
	for name, end := range map[string]int64{
		"header": bundle.HeaderSize, "envelope": bundle.HeaderSize + int64(h.Envelope), "index": h.IndexOffset(),
		"padding": h.IndexOffset() + int64(h.Index), "payload": h.PayloadOffset(), "file": h.FileSize(),
	} {
		for d := int64(-1); d <= 1; d++ {
			if end+d < h.FileSize() {
				rows = append(rows, Hostile{fmt.Sprintf("A5 ends at the end of its %s%+d", name, d), spb[:end+d], bundle.ErrTruncated})
			}
		}
	}
	for _, at := range []int64{bundle.HeaderSize + int64(h.Envelope), h.IndexOffset() - 1, h.IndexOffset() + int64(h.Index), h.PayloadOffset() - 1} {
		if at < h.IndexOffset() || at >= h.IndexOffset()+int64(h.Index) { // padding
			rows = append(rows, Hostile{fmt.Sprintf("A6 padding at %d", at), put(int(at), 1), bundle.ErrLength})
		}
	}
	return rows
}

// Frames are rows G1 and G2: chunks and indexes that lie, under a good signature.
func Frames(tb testing.TB) []Hostile {
	tb.Helper()
	head, index, payload := parts(tb, honest(tb))
	unpack, err := bundle.NewUnpacker()
	if err != nil {
		tb.Fatal(err)
	}
	defer unpack.Close()
	first, err := unpack.Unpack(index[0], payload[:index[0].Stored])
	if err != nil {
		tb.Fatalf("unpack: %v", err)
	}
	resign := func(x bundle.Index, body []byte, stored uint64) []byte {
		m := head.Manifest
		m.Index.Size, m.Index.Digest, m.Index.Payload = uint64(len(x)*len(bundle.Index{{}}.Append(nil))), sha256.Sum256(x.Append(nil)), stored
		e, err := bundle.Sign(m, Key(tb, 1))
		if err != nil {
			tb.Fatalf("sign: %v", err)
		}
		prefix := bundle.AppendPrefix(nil, e, x)
		binary.BigEndian.PutUint64(prefix[24:], stored)
		return append(prefix, body...)
	}
	rows := make([]Hostile, 0, 16)
	for row, frame := range BadFrames(tb, first) {
		x := append(bundle.Index{}, index...)
		x[0].Stored = uint32(len(frame))
		body := append(bytes.Clone(frame), payload[index[0].Stored:]...)
		rows = append(rows, Hostile{row, resign(x, body, uint64(len(body))), bundle.ErrChunk})
	}
	for row, change := range map[string]func(bundle.Index) bundle.Index{
		"G2 a chunk of nothing":     func(x bundle.Index) bundle.Index { x[0].Plain = 0; return x },
		"G2 a chunk above the max":  func(x bundle.Index) bundle.Index { x[0].Plain = bundle.MaxChunk + 1; return x },
		"G2 stored more than plain": func(x bundle.Index) bundle.Index { x[0].Stored = x[0].Plain + 1; return x },
		"G2 stored in nothing":      func(x bundle.Index) bundle.Index { x[0].Stored = 0; return x },
		"G2 image too long":         func(x bundle.Index) bundle.Index { return append(x, x[0]) },
		"G2 image too short":        func(x bundle.Index) bundle.Index { return x[1:] },
	} {
		rows = append(rows, Hostile{row, resign(change(append(bundle.Index{}, index...)), payload, head.Manifest.Index.Payload), bundle.ErrIndex})
	}
	return rows
}
