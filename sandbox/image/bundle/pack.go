package bundle

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// Packed is an image cut into chunks: what a manifest says of it, and its index. The stored chunks went to Pack's writer.
type Packed struct {
	Image ImageInfo
	Info  IndexInfo
	Index Index
}

// Pack reads a whole image and writes the payload made of it. progress, when not nil, is told the bytes read so far. The same
// image gives the same payload on every machine.
func Pack(image io.Reader, format Format, payload io.Writer, progress func(done int64)) (Packed, error) {
	comp, err := newCompressor()
	if err != nil {
		return Packed{}, err
	}
	chunks := NewChunker(image)
	content := NewContent()
	var index Index
	var done int64
	for {
		plain, err := chunks.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Packed{}, fmt.Errorf("read image: %w", err)
		}
		_, _ = content.Write(plain) // never fails
		stored := comp.pack(plain)
		index = append(index, Chunk{Digest: sha256.Sum256(plain), Plain: uint32(len(plain)), Stored: uint32(len(stored))})
		if len(index)*entrySize > MaxIndex {
			return Packed{}, fmt.Errorf("image of more than %d chunks: split the module", MaxIndex/entrySize)
		}
		if _, err := payload.Write(stored); err != nil {
			return Packed{}, fmt.Errorf("write payload: %w", err)
		}
		done += int64(len(plain))
		if progress != nil {
			progress(done)
		}
	}
	packed := Packed{Image: content.Info(format), Info: index.info(), Index: index}
	return packed, packed.Image.validate()
}

// Write prints a whole bundle: header, envelope, index and the payload, which must have the length that the index says.
func Write(w io.Writer, e Envelope, index Index, payload io.Reader) error {
	prefix := AppendPrefix(nil, e, index)
	if _, err := w.Write(prefix); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	_, want := index.Sums(len(index))
	n, err := io.Copy(w, io.LimitReader(payload, want))
	if err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	if n != want {
		return fmt.Errorf("write bundle: payload of %d bytes, the index says %d", n, want)
	}
	return nil
}

// AppendPrefix prints everything before the payload, padding included: what a device keeps of a bundle beside its image.
func AppendPrefix(dst []byte, e Envelope, index Index) []byte {
	envelope := e.Encode()
	_, payload := index.Sums(len(index))
	h := Header{Envelope: uint32(len(envelope)), Index: uint64(len(index)) * entrySize, Payload: uint64(payload)}
	start := len(dst)
	dst = h.Append(dst)
	dst = append(dst, envelope...)
	dst = append(dst, make([]byte, h.IndexOffset()-int64(len(dst)-start))...)
	dst = index.Append(dst)
	return append(dst, make([]byte, h.PayloadOffset()-int64(len(dst)-start))...)
}
