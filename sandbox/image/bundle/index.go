package bundle

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Chunk is one entry of the index.
type Chunk struct {
	Digest Digest // of the plain bytes
	Plain  uint32 // bytes of the image, 1 .. MaxChunk
	Stored uint32 // bytes of the payload; equal to Plain when stored plain, else less
}

// Index lists the chunks in image order. Offsets are sums, so none can lie.
type Index []Chunk

// ParseIndex reads an index and checks that its sums are the sizes the manifest signs.
func ParseIndex(b []byte, imageSize, payloadSize uint64) (Index, error) {
	if len(b) > MaxIndex || len(b)%entrySize != 0 {
		return nil, Reject(ErrIndex, "index of %d bytes, a multiple of %d up to %d is allowed: %s", len(b), entrySize, MaxIndex, rebuild)
	}
	index := make(Index, 0, len(b)/entrySize)
	var plain, stored uint64
	for ; len(b) > 0; b = b[entrySize:] {
		c := Chunk{
			Digest: Digest(b[:32]),
			Plain:  binary.BigEndian.Uint32(b[32:]),
			Stored: binary.BigEndian.Uint32(b[36:]),
		}
		if c.Plain == 0 || c.Plain > MaxChunk || c.Stored == 0 || c.Stored > c.Plain {
			return nil, Reject(ErrIndex, "index: chunk %d of %d bytes stored in %d: %s", len(index), c.Plain, c.Stored, rebuild)
		}
		plain += uint64(c.Plain)
		stored += uint64(c.Stored)
		index = append(index, c)
	}
	if plain != imageSize || stored != payloadSize {
		return nil, Reject(ErrIndex, "index: chunks of %d bytes stored in %d, but the image has %d and the payload %d: %s", plain, stored, imageSize, payloadSize, rebuild)
	}
	return index, nil
}

// MakeIndex cuts an image and pairs its chunks with stored lengths that somebody says they have. What comes of it is the index of the
// manifest, or refused.
func MakeIndex(image io.Reader, stored []uint32, m Manifest) (Index, error) {
	if uint64(len(stored))*entrySize != m.Index.Size {
		return nil, Reject(ErrIndex, "the lengths of %d chunks, the signed index has %d", len(stored), m.Index.Size/entrySize)
	}
	chunks := NewChunker(image)
	index := make(Index, 0, len(stored))
	for _, n := range stored {
		plain, err := chunks.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read image: %w", err)
		}
		index = append(index, Chunk{Digest: sha256.Sum256(plain), Plain: uint32(len(plain)), Stored: n})
	}
	raw := index.Append(nil)
	if sha256.Sum256(raw) != m.Index.Digest {
		return nil, Reject(ErrDigest, "the image and the lengths of its chunks are not those of the signed index")
	}
	return ParseIndex(raw, m.Image.Size, m.Index.Payload)
}

// Append prints the index.
func (x Index) Append(dst []byte) []byte {
	for _, c := range x {
		dst = append(dst, c.Digest[:]...)
		dst = binary.BigEndian.AppendUint32(dst, c.Plain)
		dst = binary.BigEndian.AppendUint32(dst, c.Stored)
	}
	return dst
}

// Sums returns the plain and stored bytes of the first n chunks: where chunk n starts in the image and in the payload.
func (x Index) Sums(n int) (plain, stored int64) {
	for _, c := range x[:n] {
		plain += int64(c.Plain)
		stored += int64(c.Stored)
	}
	return plain, stored
}

// info names the index in a manifest.
func (x Index) info() IndexInfo {
	_, payload := x.Sums(len(x))
	return IndexInfo{
		Size:    uint64(len(x)) * entrySize,
		Digest:  sha256.Sum256(x.Append(nil)),
		Payload: uint64(payload),
		Chunker: chunkerV1,
	}
}
