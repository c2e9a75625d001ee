package bundle_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

func TestGFramesGiveNoMoreThanTheIndexSays(t *testing.T) {
	t.Parallel()
	plain := bytes.Repeat([]byte("abcd"), 8<<10)
	chunk := func(stored []byte) bundle.Chunk {
		return bundle.Chunk{Digest: digestOf(plain), Plain: uint32(len(plain)), Stored: uint32(len(stored))}
	}
	unpack, err := bundle.NewUnpacker()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unpack.Close)
	enc, err := zstd.NewWriter(nil, zstd.WithSingleSegment(true), zstd.WithEncoderCRC(true))
	if err != nil {
		t.Fatal(err)
	}
	frame := enc.EncodeAll(plain, nil)
	if got, err := unpack.Unpack(chunk(frame), frame); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("an honest frame with checksum: %v", err)
	}
	for name, stored := range bundletest.BadFrames(t, plain) {
		if _, err := unpack.Unpack(chunk(stored), stored); !errors.Is(err, bundle.ErrChunk) {
			t.Errorf("%s: got %v, want %s", name, err, bundle.ErrChunk)
		}
	}
}

func TestGIndexesAndFramesThatLieUnderAGoodSignatureAreRefused(t *testing.T) {
	t.Parallel()
	refusesAll(t, bundletest.Frames(t))
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
