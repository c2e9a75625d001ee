package bundle

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// DeltaHeaderSize is the length of what stands before a delta's stream, in bytes.
const DeltaHeaderSize = 84

const (
	deltaMagic   = "\x89SPD\r\n\x1a\n"
	deltaVersion = 1
	deltaWindow  = 1 << 20  // of the zstd stream: what an applying device holds
	deltaBuffer  = 32 << 10 // bytes of the old image read at once

	flagStored = 1 // of the header
)

// DeltaHeader names the images that a delta leads from and to.
type DeltaHeader struct {
	From Digest // SHA-256 of the old image
	To   Digest // and of the new
	Size uint64 // bytes of the new image

	Stored bool // behind the image come the stored lengths of its chunks, so that nobody needs the index to make it
}

// DeltaName is what a delta is called where the new bundle is: the first 16 digits of both images' digests.
func DeltaName(from, to Digest) string { return from.Hex()[:16] + "-" + to.Hex()[:16] + ".spd" }

// Append prints the header.
func (h DeltaHeader) Append(dst []byte) []byte {
	dst = append(dst, deltaMagic...)
	dst = binary.BigEndian.AppendUint16(dst, deltaVersion)
	flags := uint16(0)
	if h.Stored {
		flags = flagStored
	}
	dst = binary.BigEndian.AppendUint16(dst, flags)
	dst = append(dst, h.From[:]...)
	dst = append(dst, h.To[:]...)
	return binary.BigEndian.AppendUint64(dst, h.Size)
}

// ParseDeltaHeader reads exactly [DeltaHeaderSize] bytes. Nothing in them is signed.
func ParseDeltaHeader(b []byte) (DeltaHeader, error) {
	switch {
	case len(b) != DeltaHeaderSize:
		return DeltaHeader{}, fmt.Errorf("delta header of %d bytes, want %d", len(b), DeltaHeaderSize)
	case !bytes.HasPrefix(b, []byte(deltaMagic)):
		return DeltaHeader{}, Reject(ErrMagic, "not a delta: it starts with %q; make one with sandpiper-bundle delta, and copy it in binary mode", b[:8])
	case binary.BigEndian.Uint16(b[8:]) != deltaVersion || binary.BigEndian.Uint16(b[10:])&^flagStored != 0:
		return DeltaHeader{}, Reject(ErrVersion, "delta version %d with flags %#x, this build reads version %d: update the agent",
			binary.BigEndian.Uint16(b[8:]), binary.BigEndian.Uint16(b[10:]), deltaVersion)
	}
	h := DeltaHeader{From: Digest(b[12:44]), To: Digest(b[44:76]), Size: binary.BigEndian.Uint64(b[76:]), Stored: b[11]&flagStored != 0}
	if h.Size > MaxPayload {
		return DeltaHeader{}, Reject(ErrLength, "delta to an image of %d bytes, up to %d are allowed: the file is damaged", h.Size, uint64(MaxPayload))
	}
	return h, nil
}

// ApplyDelta reads a delta from r and writes the image that it makes of old, in order, to w. It is a delta from and to the images
// of want, or it is refused. Neither the delta nor what it makes can be believed: w compares what it gets with a signed index. It
// holds about 4 MiB whatever the images' size; it reads old within oldSize and never writes more than want.Size bytes. It returns the
// stored lengths of the new image's chunks, for [MakeIndex], or nil where the delta has none.
func ApplyDelta(w io.Writer, r io.Reader, old io.ReaderAt, oldSize int64, want DeltaHeader) (stored []uint32, err error) {
	var first [DeltaHeaderSize]byte
	if err := readFull(r, first[:], "delta's header"); err != nil {
		return nil, err
	}
	h, err := ParseDeltaHeader(first[:])
	if err != nil {
		return nil, err
	}
	want.Stored = h.Stored
	if h != want {
		return nil, Reject(ErrDelta, "the delta leads from %v to %v, wanted is one from %v to %v: put the right file there", h.From, h.To, want.From, want.To)
	}
	dec, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(deltaWindow))
	if err != nil {
		return nil, fmt.Errorf("zstd decoder: %w", err)
	}
	defer dec.Close()
	a := applier{w: w, in: bufio.NewReaderSize(dec, deltaBuffer), old: old, oldSize: oldSize, left: h.Size}
	a.diff, a.base = make([]byte, deltaBuffer), make([]byte, deltaBuffer)
	for a.left > 0 {
		if err := a.record(); err != nil {
			return nil, err
		}
	}
	if h.Stored {
		if stored, err = a.lengths(h.Size); err != nil {
			return nil, err
		}
	}
	if _, err := a.in.ReadByte(); !errors.Is(err, io.EOF) {
		return nil, Reject(ErrDelta, "the delta goes on after its end: make it again")
	}
	return stored, nil
}

// applier is a delta on its way.
type applier struct {
	w          io.Writer
	in         *bufio.Reader
	old        io.ReaderAt
	oldSize    int64
	at         int64  // in the old image, 0 .. oldSize
	left       uint64 // bytes of the new image that are still to come
	diff, base []byte
}

// record applies one record: a length of differences, a length of new bytes, how far to move in the old image, and the two.
func (a *applier) record() error {
	diff, err := binary.ReadUvarint(a.in)
	if err != nil {
		return a.damaged(err)
	}
	extra, err := binary.ReadUvarint(a.in)
	if err != nil {
		return a.damaged(err)
	}
	seek, err := binary.ReadVarint(a.in)
	if err != nil {
		return a.damaged(err)
	}
	switch {
	case diff > a.left || extra > a.left-diff:
		return Reject(ErrDelta, "the delta makes more than the image's bytes: make it again")
	case diff+extra == 0:
		return Reject(ErrDelta, "the delta holds an empty record: make it again")
	case diff > uint64(a.oldSize-a.at):
		return Reject(ErrDelta, "the delta reads behind the old image: make it again")
	}
	next := a.at + int64(diff)
	if seek < -next || seek > a.oldSize-next {
		return Reject(ErrDelta, "the delta moves out of the old image: make it again")
	}
	if err := a.differences(int64(diff)); err != nil {
		return err
	}
	if err := a.copied(int64(extra)); err != nil {
		return err
	}
	a.at = next + seek
	a.left -= diff + extra
	return nil
}

func (a *applier) differences(n int64) error {
	for at := a.at; n > 0; {
		part := min(n, deltaBuffer)
		diff, base := a.diff[:part], a.base[:part]
		if _, err := io.ReadFull(a.in, diff); err != nil {
			return a.damaged(err)
		}
		if _, err := a.old.ReadAt(base, at); err != nil {
			return fmt.Errorf("read old image: %w", err)
		}
		for i, b := range base {
			diff[i] += b
		}
		if _, err := a.w.Write(diff); err != nil {
			return err
		}
		n -= part
		at += part
	}
	return nil
}

func (a *applier) copied(n int64) error {
	for n > 0 {
		part := a.diff[:min(n, deltaBuffer)]
		if _, err := io.ReadFull(a.in, part); err != nil {
			return a.damaged(err)
		}
		if _, err := a.w.Write(part); err != nil {
			return err
		}
		n -= int64(len(part))
	}
	return nil
}

// lengths reads how many chunks the new image has, and how long each is in the payload.
func (a *applier) lengths(size uint64) ([]uint32, error) {
	n, err := binary.ReadUvarint(a.in)
	if err != nil {
		return nil, a.damaged(err)
	}
	if n > size/MinChunk+1 || n > MaxIndex/entrySize {
		return nil, Reject(ErrDelta, "the delta holds the lengths of %d chunks for an image of %d bytes: make it again", n, size)
	}
	list := make([]uint32, 0, min(n, 4096))
	for range n {
		v, err := binary.ReadUvarint(a.in)
		if err != nil {
			return nil, a.damaged(err)
		}
		if v == 0 || v > MaxChunk {
			return nil, Reject(ErrDelta, "the delta holds a chunk of %d bytes: make it again", v)
		}
		list = append(list, uint32(v))
	}
	return list, nil
}

func (a *applier) damaged(err error) error {
	return &Error{Code: ErrDelta, Why: fmt.Sprintf("the delta is damaged: %v: make it again", err), Err: err}
}
