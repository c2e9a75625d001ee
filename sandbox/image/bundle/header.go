package bundle

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Sizes of the format, in bytes.
const (
	HeaderSize  = 32
	MaxEnvelope = 64 << 10
	MaxIndex    = 16 << 20
	MaxPayload  = 1 << 40

	format     = 1
	indexAlign = 8
	dataAlign  = 4096
	entrySize  = 40
)

const magic = "\x89SPB\r\n\x1a\n"

// Header is the first 32 bytes of a bundle: the lengths of its sections. It is not signed, so it is only used to find them.
type Header struct {
	Envelope uint32 // bytes, 1 .. MaxEnvelope
	Index    uint64 // bytes, a multiple of 40, up to MaxIndex
	Payload  uint64 // bytes, up to MaxPayload
}

// ParseHeader reads exactly [HeaderSize] bytes and checks every limit, so that what follows can be allocated.
func ParseHeader(b []byte) (Header, error) {
	if len(b) != HeaderSize {
		return Header{}, fmt.Errorf("header of %d bytes, want %d", len(b), HeaderSize)
	}
	if !bytes.HasPrefix(b, []byte(magic)) {
		return Header{}, Reject(ErrMagic, "not a Sandpiper bundle: it starts with %q; build one with sandpiper-bundle, and copy it in binary mode", b[:8])
	}
	if v, n := binary.BigEndian.Uint16(b[8:]), binary.BigEndian.Uint16(b[10:]); v != format || n != HeaderSize {
		return Header{}, Reject(ErrVersion, "bundle format %d with a header of %d bytes, this build reads format %d: update the agent", v, n, format)
	}
	h := Header{
		Envelope: binary.BigEndian.Uint32(b[12:]),
		Index:    binary.BigEndian.Uint64(b[16:]),
		Payload:  binary.BigEndian.Uint64(b[24:]),
	}
	switch {
	case h.Envelope == 0 || h.Envelope > MaxEnvelope:
		return Header{}, Reject(ErrLength, "envelope of %d bytes, 1 to %d are allowed: the file is damaged", h.Envelope, MaxEnvelope)
	case h.Index > MaxIndex || h.Index%entrySize != 0:
		return Header{}, Reject(ErrLength, "index of %d bytes, a multiple of %d up to %d is allowed: the file is damaged", h.Index, entrySize, MaxIndex)
	case h.Payload > MaxPayload:
		return Header{}, Reject(ErrLength, "payload of %d bytes, up to %d are allowed: the file is damaged", h.Payload, uint64(MaxPayload))
	}
	return h, nil
}

// Append prints the header.
func (h Header) Append(dst []byte) []byte {
	dst = append(dst, magic...)
	dst = binary.BigEndian.AppendUint16(dst, format)
	dst = binary.BigEndian.AppendUint16(dst, HeaderSize)
	dst = binary.BigEndian.AppendUint32(dst, h.Envelope)
	dst = binary.BigEndian.AppendUint64(dst, h.Index)
	return binary.BigEndian.AppendUint64(dst, h.Payload)
}

// IndexOffset is where the index starts, in bytes from the start of the file.
func (h Header) IndexOffset() int64 { return align(HeaderSize+int64(h.Envelope), indexAlign) }

// PayloadOffset is where the payload starts. Everything before it is what the device keeps beside the image.
func (h Header) PayloadOffset() int64 { return align(h.IndexOffset()+int64(h.Index), dataAlign) }

// FileSize is the length of the whole bundle.
func (h Header) FileSize() int64 { return h.PayloadOffset() + int64(h.Payload) }

func align(n, to int64) int64 { return (n + to - 1) / to * to }
