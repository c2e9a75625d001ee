package bundletest

import (
	"bytes"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// BadFrames are what may not stand for a chunk of these plain bytes: row G1.
func BadFrames(tb testing.TB, plain []byte) map[string][]byte {
	tb.Helper()
	enc, err := zstd.NewWriter(nil, zstd.WithSingleSegment(true), zstd.WithEncoderCRC(true), zstd.WithEncoderConcurrency(1))
	if err != nil {
		tb.Fatal(err)
	}
	frame := enc.EncodeAll(plain, nil)
	streaming, err := zstd.NewWriter(nil, zstd.WithWindowSize(64<<20), zstd.WithEncoderConcurrency(1))
	if err != nil {
		tb.Fatal(err)
	}
	var streamed bytes.Buffer
	streaming.Reset(&streamed)
	_, _ = streaming.Write(plain)
	_ = streaming.Flush() // no content size is known
	_ = streaming.Close()
	lie := bytes.Clone(frame)
	lie[5]++ // frame content size
	other := bytes.Clone(plain)
	other[len(other)/2] ^= 1
	return map[string][]byte{
		"G1 bomb":                  enc.EncodeAll(make([]byte, 64<<20), nil),
		"G1 content size lie":      lie,
		"G1 no content size":       streamed.Bytes(),
		"G1 two frames":            append(bytes.Clone(frame), enc.EncodeAll(nil, nil)...),
		"G1 skippable first":       append([]byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0}, frame...),
		"G1 skippable behind":      append(bytes.Clone(frame), 0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0),
		"G1 byte behind":           append(bytes.Clone(frame), 0),
		"G1 cut":                   frame[:len(frame)-1],
		"G1 no frame":              []byte("not zstd"),
		"G1 another chunk's frame": enc.EncodeAll(other, nil),
	}
}
