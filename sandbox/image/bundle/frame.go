package bundle

import (
	"crypto/sha256"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// compressor makes the stored form of chunks: the smaller of one zstd frame and the plain bytes.
type compressor struct {
	enc *zstd.Encoder
	buf []byte
}

func newCompressor() (*compressor, error) {
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(MaxChunk),
		zstd.WithSingleSegment(true),
		zstd.WithEncoderCRC(false), // the index holds a SHA-256
	)
	if err != nil {
		return nil, fmt.Errorf("zstd encoder: %w", err)
	}
	return &compressor{enc: enc}, nil
}

// pack returns the stored form, valid until the next call.
func (c *compressor) pack(plain []byte) []byte {
	c.buf = c.enc.EncodeAll(plain, c.buf[:0])
	if len(c.buf) >= len(plain) {
		return plain
	}
	return c.buf
}

// Unpacker makes chunks plain again. It never writes more than the index says, whatever a frame claims.
type Unpacker struct {
	dec *zstd.Decoder
	buf []byte
}

// NewUnpacker returns an unpacker. It holds about 2*MaxChunk bytes.
func NewUnpacker() (*Unpacker, error) {
	dec, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(MaxChunk),
		zstd.WithDecoderMaxWindow(MaxChunk),
		zstd.WithDecodeAllCapLimit(true),
	)
	if err != nil {
		return nil, fmt.Errorf("zstd decoder: %w", err)
	}
	return &Unpacker{dec: dec, buf: make([]byte, 0, MaxChunk)}, nil
}

// Close frees the decoder.
func (u *Unpacker) Close() { u.dec.Close() }

// Unpack checks one stored chunk and returns its plain bytes, valid until the next call.
func (u *Unpacker) Unpack(c Chunk, stored []byte) ([]byte, error) {
	if len(stored) != int(c.Stored) || c.Plain > MaxChunk || c.Stored > c.Plain {
		return nil, fmt.Errorf("unpack chunk: %d stored bytes for %d of %d", len(stored), c.Stored, c.Plain)
	}
	plain := stored
	if c.Stored != c.Plain {
		if err := oneFrame(stored, c.Plain); err != nil {
			return nil, &Error{Code: ErrChunk, Why: fmt.Sprintf("a chunk is no valid zstd frame: %v: %s", err, rebuild), Err: err}
		}
		var err error
		plain, err = u.dec.DecodeAll(stored, u.buf[:0:c.Plain])
		if err != nil {
			return nil, &Error{Code: ErrChunk, Why: fmt.Sprintf("a chunk is no valid zstd frame: %v: %s", err, rebuild), Err: err}
		}
	}
	if len(plain) != int(c.Plain) || sha256.Sum256(plain) != c.Digest {
		return nil, Reject(ErrChunk, "a chunk is not what the signed index says: the bundle is damaged, %s", rebuild)
	}
	return plain, nil
}

// oneFrame checks that b is exactly one zstd frame that says it holds size bytes, without a dictionary: no skippable frames, no
// second frame, nothing behind. The blocks' headers are walked, their content is the decoder's affair.
func oneFrame(b []byte, size uint32) error {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return err
	}
	switch {
	case h.Skippable:
		return fmt.Errorf("skippable frame")
	case h.DictionaryID != 0:
		return fmt.Errorf("dictionary %d", h.DictionaryID)
	case !h.HasFCS || h.FrameContentSize != uint64(size):
		return fmt.Errorf("content size %d, want %d", h.FrameContentSize, size)
	case !h.SingleSegment && h.WindowSize > MaxChunk:
		return fmt.Errorf("window of %d bytes, up to %d are allowed", h.WindowSize, MaxChunk)
	}
	rest := b[h.HeaderSize:]
	for last := false; !last; {
		if len(rest) < 3 {
			return fmt.Errorf("ends in a block header")
		}
		block := uint32(rest[0]) | uint32(rest[1])<<8 | uint32(rest[2])<<16
		last = block&1 != 0
		length := int(block >> 3)
		const repeated = 1 // block type: one byte stands for length bytes
		if block>>1&3 == repeated {
			length = 1
		}
		rest = rest[3:]
		if len(rest) < length {
			return fmt.Errorf("ends in a block")
		}
		rest = rest[length:]
	}
	if h.HasCheckSum {
		if len(rest) < 4 {
			return fmt.Errorf("ends in its checksum")
		}
		rest = rest[4:]
	}
	if len(rest) != 0 {
		return fmt.Errorf("%d bytes behind the frame", len(rest))
	}
	return nil
}
