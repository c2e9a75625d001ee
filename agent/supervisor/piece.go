package supervisor

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Stream is where a line was printed to.
type Stream uint8

// The streams of a module.
const (
	Stdout Stream = iota
	Stderr
	streams // how many there are
)

// String is "stdout" or "stderr".
func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// ParseStream reads the name of a stream.
func ParseStream(text string) (Stream, error) {
	switch text {
	case "stdout":
		return Stdout, nil
	case "stderr":
		return Stderr, nil
	}
	return 0, fmt.Errorf("stream %q: want stdout or stderr", text)
}

// piece is the header of what was taken from a stream at once; that many bytes of text follow it. A piece of dropped output has no text
// and says how much is missing in its place. A segment is pieces, one after the other, and nothing else.
//
//	0  "SL", version 1, kind: the stream, +128 = dropped
//	4  uint32 bytes of text
//	8  int64 time it was taken, nanoseconds since 1970
//	16 uint64 lines dropped
//	24 uint64 bytes dropped
//
// Numbers are little endian. The header is written before its text is moved from the module's pipe, in one step of the kernel's: an agent that is killed at
// any moment leaves a last piece whose text is shorter than the header says, and that is what was taken. Nothing is lost and nothing is there twice.
type piece struct {
	stream  Stream
	dropped bool
	size    int // of the text
	at      time.Time
	lines   uint64 // dropped
	bytes   uint64 // dropped
}

const (
	pieceSize   = 32 // bytes of a header
	pieceForm   = 1
	kindDropped = 0x80
)

func (p piece) append(b []byte) []byte {
	kind := byte(p.stream)
	if p.dropped {
		kind |= kindDropped
	}
	b = append(b, 'S', 'L', pieceForm, kind)
	b = binary.LittleEndian.AppendUint32(b, uint32(p.size))
	b = binary.LittleEndian.AppendUint64(b, uint64(p.at.UnixNano()))
	b = binary.LittleEndian.AppendUint64(b, p.lines)
	return binary.LittleEndian.AppendUint64(b, p.bytes)
}

// parsePiece reads a header. What follows one that makes no sense cannot be found.
func parsePiece(b []byte) (piece, error) {
	if len(b) < pieceSize || b[0] != 'S' || b[1] != 'L' || b[2] != pieceForm || b[3]&^kindDropped >= byte(streams) {
		return piece{}, errPiece
	}
	p := piece{
		stream: Stream(b[3] &^ kindDropped), dropped: b[3]&kindDropped != 0,
		size: int(binary.LittleEndian.Uint32(b[4:])), at: time.Unix(0, int64(binary.LittleEndian.Uint64(b[8:]))),
		lines: binary.LittleEndian.Uint64(b[16:]), bytes: binary.LittleEndian.Uint64(b[24:]),
	}
	if p.size > maxPiece || p.dropped && p.size > 0 {
		return piece{}, errPiece
	}
	return p, nil
}

// maxPiece is the most text of one piece, in bytes: more than any pipe of ours holds.
const maxPiece = 16 << 20

var errPiece = fmt.Errorf("a piece of the log makes no sense")
