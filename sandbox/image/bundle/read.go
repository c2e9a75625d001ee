package bundle

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// Head is what is known of a bundle before its index is read.
type Head struct {
	Header   Header
	Envelope Envelope
	Manifest Manifest
	Digest   Digest    // the bundle's identity: SHA-256 of the manifest's bytes
	Signer   PublicKey // zero when the signature was not checked
}

// ReadHead reads header and envelope, checks the signature against the trusted keys, and then the header's lengths against the
// signed ones. It takes at most HeaderSize + MaxEnvelope bytes from r.
func ReadHead(r io.Reader, trusted []PublicKey) (Head, error) {
	return readHead(r, func(e Envelope) (Manifest, PublicKey, error) { return e.Open(trusted) })
}

// ReadHeadUnverified reads the same and checks no signature: for tools that look at a bundle, or sign it.
func ReadHeadUnverified(r io.Reader) (Head, error) {
	return readHead(r, func(e Envelope) (Manifest, PublicKey, error) {
		m, err := ParseManifest(e.Payload)
		return m, PublicKey{}, err
	})
}

func readHead(r io.Reader, open func(Envelope) (Manifest, PublicKey, error)) (Head, error) {
	var first [HeaderSize]byte
	if err := readFull(r, first[:], "header"); err != nil {
		return Head{}, err
	}
	h, err := ParseHeader(first[:])
	if err != nil {
		return Head{}, err
	}
	raw := make([]byte, h.Envelope)
	if err := readFull(r, raw, "envelope"); err != nil {
		return Head{}, err
	}
	e, err := ParseEnvelope(raw)
	if err != nil {
		return Head{}, err
	}
	m, key, err := open(e)
	if err != nil {
		return Head{}, err
	}
	if h.Index != m.Index.Size || h.Payload != m.Index.Payload {
		return Head{}, Reject(ErrLength, "the header says index %d and payload %d bytes, the signed manifest %d and %d: %s",
			h.Index, h.Payload, m.Index.Size, m.Index.Payload, rebuild)
	}
	return Head{Header: h, Envelope: e, Manifest: m, Digest: e.Digest(), Signer: key}, nil
}

// ReadIndex reads what lies between the envelope and the payload, and checks it against the manifest. r must stand where
// ReadHead left it; afterwards it stands at the payload.
func (h Head) ReadIndex(r io.Reader) (Index, error) {
	if err := skipPadding(r, h.Header.IndexOffset()-HeaderSize-int64(h.Header.Envelope)); err != nil {
		return nil, err
	}
	raw := make([]byte, h.Header.Index)
	if err := readFull(r, raw, "index"); err != nil {
		return nil, err
	}
	if sha256.Sum256(raw) != h.Manifest.Index.Digest {
		return nil, Reject(ErrDigest, "the index is not the signed one: the bundle is damaged, %s", rebuild)
	}
	index, err := ParseIndex(raw, h.Manifest.Image.Size, h.Manifest.Index.Payload)
	if err != nil {
		return nil, err
	}
	return index, skipPadding(r, h.Header.PayloadOffset()-h.Header.IndexOffset()-int64(h.Header.Index))
}

func skipPadding(r io.Reader, n int64) error {
	pad := make([]byte, n) // below dataAlign
	if err := readFull(r, pad, "padding"); err != nil {
		return err
	}
	if len(bytes.Trim(pad, "\x00")) != 0 {
		return Reject(ErrLength, "the padding is not zero: the bundle is damaged, %s", rebuild)
	}
	return nil
}

// ChunkReader reads a payload chunk by chunk and gives out only chunks that are what the signed index says.
type ChunkReader struct {
	r      io.Reader
	index  Index
	next   int
	came   int // bytes of it that came before an error
	stored []byte
	unpack *Unpacker
}

// NewChunkReader reads from r, which must stand at the start of the stored chunk from.
func NewChunkReader(r io.Reader, index Index, from int) (*ChunkReader, error) {
	u, err := NewUnpacker()
	if err != nil {
		return nil, err
	}
	return &ChunkReader{r: r, index: index, next: from, stored: make([]byte, MaxChunk), unpack: u}, nil
}

// Close frees the decoder; it does not close the reader below.
func (c *ChunkReader) Close() { c.unpack.Close() }

// Next returns the next chunk's plain bytes, valid until the call after. After the last it returns io.EOF.
func (c *ChunkReader) Next() ([]byte, error) {
	if c.next == len(c.index) {
		return nil, io.EOF
	}
	entry := c.index[c.next]
	stored := c.stored[:entry.Stored]
	c.came = 0
	if err := readFull(countReader{c.r, &c.came}, stored, "payload"); err != nil {
		return nil, err
	}
	c.came = 0
	plain, err := c.unpack.Unpack(entry, stored)
	if err != nil {
		return nil, fmt.Errorf("chunk %d: %w", c.next, err)
	}
	c.next++
	return plain, nil
}

// Cut returns which chunk Next failed to read to its end, and what came of it.
func (c *ChunkReader) Cut() (chunk int, came []byte) { return c.next, c.stored[:c.came] }

type countReader struct {
	io.Reader
	n *int
}

func (c countReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	*c.n += n
	return n, err
}

// ExpectEnd checks that nothing follows the payload.
func ExpectEnd(r io.Reader) error {
	var one [1]byte
	_, err := io.ReadFull(r, one[:])
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return fmt.Errorf("read end: %w", err)
	}
	return Reject(ErrLength, "bytes follow the payload: the bundle is damaged, %s", rebuild)
}

// Extract reads a whole bundle from r, checks everything that needs no device, and writes the image to w. progress, when not
// nil, is told the image bytes done and their total. Until it returns nil, what w got is not to be used.
func Extract(w io.Writer, r io.Reader, trusted []PublicKey, progress func(done, total int64)) (Head, error) {
	head, err := ReadHead(r, trusted)
	if err != nil {
		return Head{}, err
	}
	return head, extract(w, r, head, progress)
}

// ExtractUnverified does the same and checks no signature: for tools on build hosts.
func ExtractUnverified(w io.Writer, r io.Reader, progress func(done, total int64)) (Head, error) {
	head, err := ReadHeadUnverified(r)
	if err != nil {
		return Head{}, err
	}
	return head, extract(w, r, head, progress)
}

func extract(w io.Writer, r io.Reader, head Head, progress func(done, total int64)) error {
	index, err := head.ReadIndex(r)
	if err != nil {
		return err
	}
	chunks, err := NewChunkReader(r, index, 0)
	if err != nil {
		return err
	}
	defer chunks.Close()
	content := NewContent()
	for {
		plain, err := chunks.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		_, _ = content.Write(plain) // never fails
		if _, err := w.Write(plain); err != nil {
			return fmt.Errorf("write image: %w", err)
		}
		if progress != nil {
			progress(int64(content.size), int64(head.Manifest.Image.Size))
		}
	}
	if err := ExpectEnd(r); err != nil {
		return err
	}
	return content.Check(head.Manifest.Image)
}
