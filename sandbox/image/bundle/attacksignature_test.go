package bundle_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

func TestCSignaturesThatAreNotTheKeysAreRefused(t *testing.T) {
	t.Parallel()
	key, other := bundletest.Key(t, 1), bundletest.Key(t, 2)
	es256, err := bundle.GenerateKey(bundle.ES256)
	if err != nil {
		t.Fatal(err)
	}
	id := key.Public().ID()
	header := func(fields map[int]any) func([]byte) []byte {
		return func([]byte) []byte { return bundle.EncodeCBOR(fields) }
	}
	const ctype = "application/sandpiper-manifest+cbor"
	envelope := func(change func(*bundle.Envelope)) []byte {
		return rewrite(t, func(e *bundle.Envelope, _ *bundle.Index, _ *[]byte) { change(e) })
	}
	// rawEnvelope replaces the envelope's bytes; the header's length follows.
	rawEnvelope := func(change func([]byte) []byte) []byte {
		e, x, payload := bundle.Parts(goldenBundle(t))
		raw := change(e.Encode())
		_, stored := x.Sums(len(x))
		h := bundle.Header{Envelope: uint32(len(raw)), Index: uint64(len(x)) * 40, Payload: uint64(stored)}
		out := append(h.Append(nil), raw...)
		out = append(out, make([]byte, h.IndexOffset()-int64(len(out)))...)
		out = x.Append(out)
		out = append(out, make([]byte, h.PayloadOffset()-int64(len(out)))...)
		return append(out, payload...)
	}
	for name, tc := range map[string]struct {
		spb  []byte
		want bundle.Code
	}{
		"C1 unsigned":                {envelope(func(e *bundle.Envelope) { *e = bundle.Envelope{Payload: e.Payload} }), bundle.ErrSignature},
		"C1 empty signature":         {envelope(func(e *bundle.Envelope) { e.Signature = nil }), bundle.ErrSignature},
		"C1 short signature":         {envelope(func(e *bundle.Envelope) { e.Signature = e.Signature[:63] }), bundle.ErrSignature},
		"C1 tag missing":             {rawEnvelope(func(b []byte) []byte { return b[1:] }), bundle.ErrSignature},
		"C1 COSE_Sign":               {rawEnvelope(func(b []byte) []byte { return append([]byte{0xd8, 98}, b[1:]...) }), bundle.ErrSignature},
		"C1 trailing byte":           {rawEnvelope(func(b []byte) []byte { return append(b, 0) }), bundle.ErrSignature},
		"C1 null signature":          {rawEnvelope(func(b []byte) []byte { return append(b[:len(b)-66], 0xf6) }), bundle.ErrSignature},
		"C2 unknown key":             {bundletest.Build(t, bundletest.Options{Key: other}), bundle.ErrKey},
		"C2 another key's signature": {envelope(func(e *bundle.Envelope) { *e = bundle.SignRaw(other, e.Protected, e.Payload, bundle.ExternalAAD) }), bundle.ErrSignature},
		"C3 alg none":                {resigned(t, header(map[int]any{1: "none", 3: ctype, 4: id[:]}), nil, bundle.ExternalAAD), bundle.ErrAlgorithm},
		"C3 alg HS256":               {resigned(t, header(map[int]any{1: 5, 3: ctype, 4: id[:]}), nil, bundle.ExternalAAD), bundle.ErrAlgorithm},
		"C3 alg ES256":               {resigned(t, header(map[int]any{1: -7, 3: ctype, 4: id[:]}), nil, bundle.ExternalAAD), bundle.ErrAlgorithm},
		"C3 alg absent":              {resigned(t, header(map[int]any{3: ctype, 4: id[:]}), nil, bundle.ExternalAAD), bundle.ErrAlgorithm},
		"C4 no kid":                  {resigned(t, header(map[int]any{1: -8, 3: ctype}), nil, bundle.ExternalAAD), bundle.ErrSignature},
		"C4 x5chain":                 {resigned(t, header(map[int]any{1: -8, 3: ctype, 4: id[:], 33: []byte{1}}), nil, bundle.ExternalAAD), bundle.ErrSignature},
		"C4 crit":                    {resigned(t, header(map[int]any{1: -8, 2: []int{99}, 3: ctype, 4: id[:], 99: 1}), nil, bundle.ExternalAAD), bundle.ErrSignature},
		"C4 another content type":    {resigned(t, header(map[int]any{1: -8, 3: "x", 4: id[:]}), nil, bundle.ExternalAAD), bundle.ErrSignature},
		"C4 header not a map":        {resigned(t, func([]byte) []byte { return []byte{0x80} }, nil, bundle.ExternalAAD), bundle.ErrSignature},
		"C4 key in the open": {rawEnvelope(func(b []byte) []byte {
			return bytes.Replace(b, []byte{0xa0, 0x59}, []byte{0xa1, 4, 0x41, 1, 0x59}, 1)
		}), bundle.ErrSignature},
		"C5 signature of a catalog":    {resigned(t, nil, nil, "sandpiper/catalog/v1"), bundle.ErrSignature},
		"C5 signature without context": {resigned(t, nil, nil, ""), bundle.ErrSignature},
		"C6 non-canonical S":           {envelope(func(e *bundle.Envelope) { e.Signature = addOrder(e.Signature) }), bundle.ErrSignature},
		"ES256 key unknown":            {bundletest.Build(t, bundletest.Options{Key: es256}), bundle.ErrKey},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rejects(t, tc.spb, tc.want)
		})
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

func TestC7KeySignsOnlyItsNames(t *testing.T) {
	t.Parallel()
	spb := bundletest.Build(t, bundletest.Options{})
	open := func(prefixes ...[]string) error {
		var trusted []bundle.PublicKey
		for _, p := range prefixes {
			k := bundletest.Key(t, 1).Public()
			k.Prefixes = p
			trusted = append(trusted, k)
		}
		_, err := bundle.ReadHead(bytes.NewReader(spb), trusted)
		return err
	}
	if err := open([]string{"acme-", "filter"}); !errors.Is(err, bundle.ErrRole) {
		t.Errorf("outside its prefixes: got %v, want %s", err, bundle.ErrRole)
	}
	if err := open([]string{"acme-", "de"}); err != nil {
		t.Errorf("inside a prefix: %v", err)
	}
	if err := open([]string{"acme-"}, []string{"demo"}); err != nil {
		t.Errorf("the key listed twice, once with the name: %v", err)
	}
	if err := open(nil); err != nil {
		t.Errorf("without prefixes: %v", err)
	}
	if err := open(); !errors.Is(err, bundle.ErrKey) {
		t.Errorf("no trusted key at all: got %v, want %s", err, bundle.ErrKey)
	}
}

func TestES256BundlesVerifyAndAreReproducible(t *testing.T) {
	t.Parallel()
	key, err := bundle.GenerateKey(bundle.ES256)
	if err != nil {
		t.Fatal(err)
	}
	one := bundletest.Build(t, bundletest.Options{Key: key})
	if _, err := bundle.Extract(io.Discard, bytes.NewReader(one), []bundle.PublicKey{key.Public()}, nil); err != nil {
		t.Errorf("extract: %v", err)
	}
	if !bytes.Equal(one, bundletest.Build(t, bundletest.Options{Key: key})) {
		t.Error("two signatures of one manifest with one key differ")
	}
}
