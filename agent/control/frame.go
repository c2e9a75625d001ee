package control

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// frameKind says what a frame of an exec stream holds.
type frameKind byte

// The frames of an exec stream: a byte of kind, four of length (big endian), and that much.
const (
	frameStdin  frameKind = iota // to the program; empty = its end
	frameStdout                  // from it
	frameStderr                  // from it
	frameResize                  // of its terminal: rows and columns, two bytes each, big endian
	frameExit                    // it ended: its code, four bytes
	frameFault                   // it did not run: why
	frameEnd                     // how many kinds there are
)

// maxFrame bounds what one frame holds, in bytes.
const maxFrame = 64 << 10

const frameHead = 5

var errFrame = errors.New("exec stream makes no sense")

// readFrame reads one frame into buf, which holds maxFrame bytes.
func readFrame(r io.Reader, buf []byte) (frameKind, []byte, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	kind, size := frameKind(head[0]), binary.BigEndian.Uint32(head[1:])
	if kind >= frameEnd || size > maxFrame {
		return 0, nil, fmt.Errorf("%w: kind %d of %d bytes", errFrame, kind, size)
	}
	if _, err := io.ReadFull(r, buf[:size]); err != nil {
		return 0, nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	return kind, buf[:size], nil
}

// frameWriter writes frames; several may write at once.
type frameWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (f *frameWriter) write(kind frameKind, p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		part := p[:min(len(p), maxFrame)]
		p = p[len(part):]
		out := make([]byte, 0, frameHead+len(part))
		out = binary.BigEndian.AppendUint32(append(out, byte(kind)), uint32(len(part)))
		if _, err := f.w.Write(append(out, part...)); err != nil || len(p) == 0 {
			return err
		}
	}
}

// stream is one kind of frame as a writer.
type stream struct {
	to   *frameWriter
	kind frameKind
}

func (s stream) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.to.write(s.kind, p); err != nil {
		return 0, err
	}
	return len(p), nil
}
