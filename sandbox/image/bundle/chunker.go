package bundle

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
)

// Lengths of chunks, in bytes. The last chunk of an image may be shorter than MinChunk.
const (
	MinChunk     = 8 << 10
	AverageChunk = 32 << 10
	MaxChunk     = 128 << 10

	maskSmall = uint64(1<<17-1) << (64 - 17) // before the average: rarer cuts
	maskLarge = uint64(1<<13-1) << (64 - 13) // after it: more frequent ones
)

// Chunker cuts a stream at content-defined points. See the package doc; the cuts do not depend on how the stream is read.
type Chunker struct {
	r        io.Reader
	gear     [256]uint64
	buf      []byte
	from, to int // unread part of buf
	err      error
}

// NewChunker returns the chunker of gear table v1 over r.
func NewChunker(r io.Reader) *Chunker {
	c := &Chunker{r: r, buf: make([]byte, 4*MaxChunk)}
	for i := range c.gear {
		sum := sha256.Sum256([]byte{'g', byte(i)})
		c.gear[i] = binary.LittleEndian.Uint64(sum[:])
	}
	return c
}

// Next returns the next chunk, valid until the call after, and io.EOF after the last.
func (c *Chunker) Next() ([]byte, error) {
	if c.to-c.from < MaxChunk && c.err == nil {
		c.fill()
	}
	if c.err != nil && !errors.Is(c.err, io.EOF) {
		return nil, c.err
	}
	if c.from == c.to {
		return nil, io.EOF
	}
	n := c.cut(c.buf[c.from:c.to])
	chunk := c.buf[c.from : c.from+n]
	c.from += n
	return chunk, nil
}

func (c *Chunker) fill() {
	c.to = copy(c.buf, c.buf[c.from:c.to])
	c.from = 0
	n, err := io.ReadFull(c.r, c.buf[c.to:])
	c.to += n
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	c.err = err
}

// cut returns the length of the first chunk of p, which holds at least MaxChunk bytes or the rest of the image.
func (c *Chunker) cut(p []byte) int {
	if len(p) <= MinChunk {
		return len(p)
	}
	p = p[:min(len(p), MaxChunk)]
	var h uint64
	i := MinChunk
	for end := min(len(p), AverageChunk); i < end; i++ {
		h = h<<1 + c.gear[p[i]]
		if h&maskSmall == 0 {
			return i + 1
		}
	}
	for ; i < len(p); i++ {
		h = h<<1 + c.gear[p[i]]
		if h&maskLarge == 0 {
			return i + 1
		}
	}
	return len(p)
}
