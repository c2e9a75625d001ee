package bundletest

import (
	"bytes"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// Signatures are rows C1 to C6: signatures that are not the key's, or not of this, or not where they belong.
func Signatures(tb testing.TB) []Hostile {
	tb.Helper()
	es256, err := bundle.GenerateKey(bundle.ES256)
	if err != nil {
		tb.Fatal(err)
	}
	spb := honest(tb)
	id := Key(tb, 1).Public().ID()
	const ctype = "application/sandpiper-manifest+cbor"
	// header is signed by the right key, but says something else.
	header := func(fields any) []byte {
		return rewritten(tb, spb, func(e *bundle.Envelope) { *e = signed(1, encode(fields), e.Payload, aad) })
	}
	context := func(aad string) []byte {
		return rewritten(tb, spb, func(e *bundle.Envelope) { *e = signed(1, e.Protected, e.Payload, aad) })
	}
	envelope := func(change func(*bundle.Envelope)) []byte {
		return rewritten(tb, spb, func(e *bundle.Envelope) { change(e) })
	}
	// rawEnvelope replaces the envelope's bytes; the header's length follows.
	rawEnvelope := func(change func([]byte) []byte) []byte {
		head, x, payload := parts(tb, spb)
		raw := change(head.Envelope.Encode())
		h := head.Header
		h.Envelope = uint32(len(raw))
		out := append(h.Append(nil), raw...)
		out = append(out, make([]byte, h.IndexOffset()-int64(len(out)))...)
		out = x.Append(out)
		out = append(out, make([]byte, h.PayloadOffset()-int64(len(out)))...)
		return append(out, payload...)
	}
	return []Hostile{
		{"C1 unsigned", envelope(func(e *bundle.Envelope) { *e = bundle.Envelope{Payload: e.Payload} }), bundle.ErrSignature},
		{"C1 empty signature", envelope(func(e *bundle.Envelope) { e.Signature = nil }), bundle.ErrSignature},
		{"C1 short signature", envelope(func(e *bundle.Envelope) { e.Signature = e.Signature[:63] }), bundle.ErrSignature},
		{"C1 tag missing", rawEnvelope(func(b []byte) []byte { return b[1:] }), bundle.ErrSignature},
		{"C1 COSE_Sign", rawEnvelope(func(b []byte) []byte { return append([]byte{0xd8, 98}, b[1:]...) }), bundle.ErrSignature},
		{"C1 trailing byte", rawEnvelope(func(b []byte) []byte { return append(b, 0) }), bundle.ErrSignature},
		{"C1 null signature", rawEnvelope(func(b []byte) []byte { return append(b[:len(b)-66], 0xf6) }), bundle.ErrSignature},
		{"C2 unknown key", Build(tb, Options{Key: Key(tb, 2)}), bundle.ErrKey},
		{"C2 another key's signature", envelope(func(e *bundle.Envelope) { *e = signed(2, e.Protected, e.Payload, aad) }), bundle.ErrSignature},
		{"C3 alg none", header(map[int]any{1: "none", 3: ctype, 4: id[:]}), bundle.ErrAlgorithm},
		{"C3 alg HS256", header(map[int]any{1: 5, 3: ctype, 4: id[:]}), bundle.ErrAlgorithm},
		{"C3 alg ES256", header(map[int]any{1: -7, 3: ctype, 4: id[:]}), bundle.ErrAlgorithm},
		{"C3 alg absent", header(map[int]any{3: ctype, 4: id[:]}), bundle.ErrAlgorithm},
		{"C4 no kid", header(map[int]any{1: -8, 3: ctype}), bundle.ErrSignature},
		{"C4 x5chain", header(map[int]any{1: -8, 3: ctype, 4: id[:], 33: []byte{1}}), bundle.ErrSignature},
		{"C4 crit", header(map[int]any{1: -8, 2: []int{99}, 3: ctype, 4: id[:], 99: 1}), bundle.ErrSignature},
		{"C4 another content type", header(map[int]any{1: -8, 3: "x", 4: id[:]}), bundle.ErrSignature},
		{"C4 header not a map", header([]int{}), bundle.ErrSignature},
		{"C4 key in the open", rawEnvelope(func(b []byte) []byte {
			at := bytes.Index(b, id[:]) + len(id) // of the empty map behind the protected header
			return append(append(bytes.Clone(b[:at]), 0xa1, 4, 0x41, 1), b[at+1:]...)
		}), bundle.ErrSignature},
		{"C5 signature of a catalog", context("sandpiper/catalog/v1"), bundle.ErrSignature},
		{"C5 signature without context", context(""), bundle.ErrSignature},
		{"C6 non-canonical S", envelope(func(e *bundle.Envelope) { e.Signature = addOrder(e.Signature) }), bundle.ErrSignature},
		{"ES256 key unknown", Build(tb, Options{Key: es256}), bundle.ErrKey},
	}
}

// addOrder adds the group order to S of an Ed25519 signature: the same point, another number.
func addOrder(sig []byte) []byte {
	order := []byte{
		0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
	}
	out := bytes.Clone(sig)
	carry := 0
	for i, o := range order {
		carry += int(out[32+i]) + int(o)
		out[32+i] = byte(carry)
		carry >>= 8
	}
	return out
}
