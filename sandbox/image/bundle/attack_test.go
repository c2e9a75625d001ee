package bundle_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/zstd"

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

func TestBManifestsThatAreNotTheOneEncodingAreRefused(t *testing.T) {
	t.Parallel()
	// fields decodes the manifest, lets change edit it, and encodes it again, deterministically.
	fields := func(change func(map[uint64]cbor.RawMessage)) func([]byte) []byte {
		return func(b []byte) []byte {
			var m map[uint64]cbor.RawMessage
			if err := cbor.Unmarshal(b, &m); err != nil {
				t.Fatal(err)
			}
			change(m)
			return bundle.EncodeCBOR(m)
		}
	}
	set := func(key uint64, v any) func([]byte) []byte {
		return fields(func(m map[uint64]cbor.RawMessage) { m[key] = bundle.EncodeCBOR(v) })
	}
	raw := func(key uint64, b ...byte) func([]byte) []byte {
		return func(whole []byte) []byte {
			var m map[uint64]cbor.RawMessage
			if err := cbor.Unmarshal(whole, &m); err != nil {
				t.Fatal(err)
			}
			m[key] = b
			out, err := cbor.CoreDetEncOptions().EncMode()
			if err != nil {
				t.Fatal(err)
			}
			enc, err := out.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			return enc
		}
	}
	replace := func(b ...byte) func([]byte) []byte { return func([]byte) []byte { return b } }
	for name, tc := range map[string]struct {
		change func([]byte) []byte
		want   bundle.Code
	}{
		"B1 duplicate key":           {replace(0xa2, 1, 1, 1, 1), bundle.ErrCBOR},
		"B1 indefinite map":          {func(b []byte) []byte { return append(append([]byte{0xbf}, b[1:]...), 0xff) }, bundle.ErrCBOR},
		"B1 depth bomb":              {replace(append(bytes.Repeat([]byte{0x81}, 5000), 0)...), bundle.ErrCBOR},
		"B1 array of 2^63":           {replace(0x9b, 0x80, 0, 0, 0, 0, 0, 0, 0), bundle.ErrCBOR},
		"B1 text of 2^63":            {replace(0xa1, 2, 0x7b, 0x80, 0, 0, 0, 0, 0, 0, 0), bundle.ErrCBOR},
		"B1 bad UTF-8":               {raw(2, 0x61, 0xff), bundle.ErrCBOR},
		"B1 tag":                     {raw(4, 0xc1, 1), bundle.ErrCBOR},
		"B1 float":                   {raw(4, 0xf9, 0x3c, 0), bundle.ErrCBOR},
		"B1 negative sequence":       {raw(4, 0x20), bundle.ErrCBOR},
		"B1 null sequence":           {raw(4, 0xf6), bundle.ErrCBOR},
		"B1 trailing data":           {func(b []byte) []byte { return append(bytes.Clone(b), 0) }, bundle.ErrCBOR},
		"B1 empty":                   {replace(), bundle.ErrCBOR},
		"B1 an array":                {replace(0x80), bundle.ErrCBOR},
		"B2 longer integer":          {raw(4, 0x18, 7), bundle.ErrCBOR},
		"B2 unsorted keys":           {replace(0xa2, 3, 0x61, '1', 1, 1), bundle.ErrCBOR},
		"B2 zero where absent":       {set(15, 0), bundle.ErrCBOR},
		"B2 digest of 31 bytes":      {set(8, map[int]any{1: 1, 2: 4096, 3: make([]byte, 31), 4: make([]byte, 32)}), bundle.ErrCBOR},
		"B2 digest as array":         {set(8, map[int]any{1: 1, 2: 4096, 3: make([]int, 32), 4: make([]byte, 32)}), bundle.ErrCBOR},
		"B2 extension not canonical": {raw(1500, 0x18, 7), bundle.ErrCBOR},
		"B3 unknown key 18":          {set(18, 1), bundle.ErrCBOR},
		"B3 unknown key 999":         {set(999, 1), bundle.ErrCBOR},
		"B3 unknown key 2000":        {set(2000, 1), bundle.ErrCBOR},
		"B3 unknown inner key":       {set(7, map[int]string{1: "linux", 2: "arm", 9: "x"}), bundle.ErrCBOR},
		"B4 name ../x":               {set(2, "../x"), bundle.ErrField},
		"B4 name a/b":                {set(2, "a/b"), bundle.ErrField},
		"B4 name of 64":              {set(2, strings.Repeat("a", 64)), bundle.ErrField},
		"B4 name upper case":         {set(2, "Demo"), bundle.ErrField},
		"B4 name with NUL":           {set(2, "a\x00"), bundle.ErrField},
		"B4 name empty":              {set(2, ""), bundle.ErrField},
		"B4 version of 65":           {set(3, strings.Repeat("1", 65)), bundle.ErrField},
		"B4 version with newline":    {set(3, "1\n2"), bundle.ErrField},
		"schema 2":                   {set(1, 2), bundle.ErrField},
		"kind 4":                     {set(5, 4), bundle.ErrField},
		"no class":                   {set(6, []string{}), bundle.ErrField},
		"17 classes":                 {set(6, strings.Split(strings.Repeat("x,", 16)+"x", ",")), bundle.ErrField},
		"another os":                 {set(7, map[int]string{1: "plan9", 2: "arm"}), bundle.ErrField},
		"kernel nonsense":            {set(7, map[int]string{1: "linux", 2: "arm", 4: "5.x"}), bundle.ErrField},
		"floor above sequence":       {set(17, 8), bundle.ErrField},
		"another chunker":            {set(9, map[int]any{1: 40, 2: make([]byte, 32), 3: 1, 4: []int{2, 8192, 32768, 131072}}), bundle.ErrField},
		"image not in blocks":        {set(8, map[int]any{1: 1, 2: 4097, 3: make([]byte, 32), 4: make([]byte, 32)}), bundle.ErrField},
		"a module depends on itself": {set(11, []map[int]any{{1: "demo", 2: 1}}), bundle.ErrField},
		"runtime without program":    {set(10, map[int]any{1: []string{""}}), bundle.ErrField},
		"runtime of kind 2":          {fields(func(m map[uint64]cbor.RawMessage) { m[5] = []byte{2}; m[6] = bundle.EncodeCBOR([]string{"x"}) }), bundle.ErrField},
		"host view false":            {set(10, map[int]any{1: []string{"/a"}, 6: false}), bundle.ErrCBOR},
		"env name with =":            {set(10, map[int]any{1: []string{"/a"}, 2: map[string]string{"A=": ""}}), bundle.ErrField},
		"env name beyond ASCII":      {set(10, map[int]any{1: []string{"/a"}, 2: map[string]string{"\u212a": ""}}), bundle.ErrField},
		"relative cwd":               {set(10, map[int]any{1: []string{"/a"}, 3: "x"}), bundle.ErrField},
		"user -1":                    {set(10, map[int]any{1: []string{"/a"}, 4: "-1"}), bundle.ErrField},
		"stop with SIGSTOP":          {set(10, map[int]any{1: []string{"/a"}, 5: "SIGSTOP"}), bundle.ErrField},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rejects(t, resigned(t, nil, tc.change, bundle.ExternalAAD), tc.want)
		})
	}
}

func TestB3ExtensionsAreKeptAndIgnored(t *testing.T) {
	t.Parallel()
	key := bundletest.Key(t, 1)
	spb := bundletest.Build(t, bundletest.Options{Manifest: func(m *bundle.Manifest) {
		m.Extensions = map[uint64]cbor.RawMessage{1500: bundle.EncodeCBOR(map[string]any{"a": []int{1, 2}}), 1000: {0xf9, 0x3c, 0}}
	}})
	head, err := bundle.ReadHead(bytes.NewReader(spb), []bundle.PublicKey{key.Public()})
	if err != nil {
		t.Fatalf("a bundle with extensions: %v", err)
	}
	if n := len(head.Manifest.Extensions); n != 2 {
		t.Errorf("got %d extensions, want 2", n)
	}
}

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

func TestGFramesGiveNoMoreThanTheIndexSays(t *testing.T) {
	t.Parallel()
	enc, err := zstd.NewWriter(nil, zstd.WithSingleSegment(true), zstd.WithEncoderCRC(true))
	if err != nil {
		t.Fatal(err)
	}
	plain := bytes.Repeat([]byte("abcd"), 8<<10)
	frame := enc.EncodeAll(plain, nil)
	streaming, err := zstd.NewWriter(nil, zstd.WithWindowSize(64<<20))
	if err != nil {
		t.Fatal(err)
	}
	var streamed bytes.Buffer
	streaming.Reset(&streamed)
	_, _ = streaming.Write(plain)
	_ = streaming.Flush() // no content size is known
	_ = streaming.Close()
	bomb := enc.EncodeAll(make([]byte, 64<<20), nil)
	chunk := func(stored []byte) bundle.Chunk {
		return bundle.Chunk{Digest: digestOf(plain), Plain: uint32(len(plain)), Stored: uint32(len(stored))}
	}
	unpack, err := bundle.NewUnpacker()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unpack.Close)
	if got, err := unpack.Unpack(chunk(frame), frame); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("an honest frame with checksum: %v", err)
	}
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0}, frame...)
	lie := bytes.Clone(frame)
	lie[5]++ // frame content size
	for name, stored := range map[string][]byte{
		"G1 bomb":               bomb,
		"G1 content size lie":   lie,
		"G1 no content size":    streamed.Bytes(),
		"G1 two frames":         append(bytes.Clone(frame), enc.EncodeAll(nil, nil)...),
		"G1 skippable first":    skippable,
		"G1 skippable behind":   append(bytes.Clone(frame), 0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0),
		"G1 byte behind":        append(bytes.Clone(frame), 0),
		"G1 cut":                frame[:len(frame)-1],
		"G1 no frame":           []byte("not zstd"),
		"another chunk's frame": enc.EncodeAll(bytes.Repeat([]byte("abce"), 8<<10), nil),
	} {
		if _, err := unpack.Unpack(chunk(stored), stored); !errors.Is(err, bundle.ErrChunk) {
			t.Errorf("%s: got %v, want %s", name, err, bundle.ErrChunk)
		}
	}
}

func TestG2IndexMustAddUp(t *testing.T) {
	t.Parallel()
	key := bundletest.Key(t, 1)
	for name, change := range map[string]func(bundle.Index) bundle.Index{
		"a chunk of nothing":     func(x bundle.Index) bundle.Index { x[0].Plain = 0; return x },
		"a chunk above the max":  func(x bundle.Index) bundle.Index { x[0].Plain = bundle.MaxChunk + 1; return x },
		"stored more than plain": func(x bundle.Index) bundle.Index { x[0].Stored = x[0].Plain + 1; return x },
		"stored in nothing":      func(x bundle.Index) bundle.Index { x[0].Stored = 0; return x },
		"image too long":         func(x bundle.Index) bundle.Index { return append(x, x[0]) },
		"image too short":        func(x bundle.Index) bundle.Index { return x[1:] },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, x, payload := bundle.Parts(goldenBundle(t))
			m, err := bundle.ParseManifest(e.Payload)
			if err != nil {
				t.Fatal(err)
			}
			x = change(x)
			info := bundle.InfoOf(x)
			info.Payload = m.Index.Payload // the payload's length stays true
			m.Index = info
			if e, err = bundle.Sign(m, key); err != nil {
				t.Fatal(err)
			}
			prefix := bundle.AppendPrefix(nil, e, x)
			binary.BigEndian.PutUint64(prefix[24:], m.Index.Payload)
			rejects(t, append(prefix, payload...), bundle.ErrIndex)
		})
	}
}

func TestH3CraftedImagesAreRefusedInGo(t *testing.T) {
	t.Parallel()
	img := bundletest.Image(t, goldenFiles())
	whole, err := io.ReadAll(io.NewSectionReader(img, 0, 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func([]byte) []byte{
		"no superblock":     func(b []byte) []byte { return make([]byte, len(b)) },
		"shorter than it":   func(b []byte) []byte { return b[:1024] },
		"half of the image": func(b []byte) []byte { return b[:len(b)/2] },
		"root far away":     func(b []byte) []byte { b[1024+14], b[1024+15] = 0xff, 0xff; return b },
		"metadata far away": func(b []byte) []byte { b[1024+40+3] = 0xff; return b },
		"odd block size":    func(b []byte) []byte { b[1024+12] = 31; return b },
	} {
		b := change(bytes.Clone(whole))
		if _, err := bundle.CheckImage(bytes.NewReader(b), int64(len(b))); !errors.Is(err, bundle.ErrImage) {
			t.Errorf("%s: got %v, want %s", name, err, bundle.ErrImage)
		}
	}
}
