package bundle_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

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
