package bundletest

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// BadRecords are what may not follow a delta's header, between whichever images of more than a few bytes: row G4.
func BadRecords() map[string][]byte {
	record := func(diff, extra uint64, seek int64, data ...byte) []byte {
		b := binary.AppendUvarint(binary.AppendUvarint(nil, diff), extra)
		return append(binary.AppendVarint(b, seek), data...)
	}
	return map[string][]byte{
		"reads behind the old":    record(1<<50, 0, 0, 0),
		"moves before the old":    record(1, 0, -2, 0),
		"moves by -2^63":          record(1, 0, -1<<63, 0),
		"moves by 2^63-1":         record(1, 0, 1<<63-1, 0),
		"lengths whose sum wraps": record(1<<63, 1<<63, 0),
		"makes too much":          append(record(0, 64<<20, 0), make([]byte, 64<<20)...),
		"makes too little":        record(1, 0, 0, 0),
		"empty record":            record(0, 0, 0),
		"endless moves":           bytes.Repeat(record(0, 0, 1), 1<<20),
		"varint of 11 bytes":      append(bytes.Repeat([]byte{0xff}, 10), 1),
		"varint without end":      bytes.Repeat([]byte{0x80}, 1<<20),
		"lengths of 2^63 chunks":  binary.AppendUvarint(record(1, 0, 0, 0), 1<<63),
	}
}

// DeltaOf puts records behind a delta's header.
func DeltaOf(tb testing.TB, header, records []byte) []byte {
	tb.Helper()
	enc, err := zstd.NewWriter(nil, zstd.WithWindowSize(1<<20), zstd.WithEncoderConcurrency(1))
	if err != nil {
		tb.Fatal(err)
	}
	return enc.EncodeAll(records, bytes.Clone(header))
}
