package linux

import (
	"context"
	"errors"
	"os"
	"time"
	"unsafe"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// Edges gives the one reader that a line has at a time: the events are of the request, whoever reads them.
func (l *lineResource) Edges(context.Context) (hal.EdgeReader, error) {
	if l.edges == 0 {
		return nil, &Error{Code: CodeUnsupported, Detail: l.where + " is an output: it has no edges"}
	}
	if !l.reading.CompareAndSwap(false, true) {
		return nil, &Error{Code: CodeBusy, Detail: "another reader has the edges of " + l.where}
	}
	if err := l.file.SetReadDeadline(time.Time{}); err != nil { // after an earlier reader's Close
		l.reading.Store(false)
		return nil, l.fail(err)
	}
	return &lineEdges{line: l}, nil
}

// lineEdges counts what is missing between the edges of a line.
type lineEdges struct {
	_    noCompare
	line *lineResource
	buf  [64 * gpioEventSize]byte
	seq  uint64 // of the last event, from 1; the kernel's wraps at 32 bits
	last hal.Edge
}

// Read waits for edges; a context that ends makes it end.
func (e *lineEdges) Read(ctx context.Context, into []hal.Event) (int, error) {
	stop := context.AfterFunc(ctx, func() { _ = e.end() })
	n, err := e.line.file.Read(e.buf[:min(len(into)*gpioEventSize, len(e.buf))])
	stop()
	if err == nil {
		return e.decode(e.buf[:n], into), nil
	}
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = os.ErrClosed
	}
	if err = e.line.fail(err); errors.Is(err, os.ErrClosed) {
		err = &Error{Code: CodeGone, Detail: e.line.where + " was closed", Err: err}
	}
	return 0, err
}

// decode makes events of the kernel's, as many as are whole and have room.
func (e *lineEdges) decode(b []byte, into []hal.Event) int {
	wall, mono := time.Now(), monotonic()
	n := min(len(b)/gpioEventSize, len(into))
	for i := range n {
		var r gpioEvent
		copy((*[gpioEventSize]byte)(unsafe.Pointer(&r))[:], b[i*gpioEventSize:])
		ev := &into[i]
		*ev = hal.Event{Edge: hal.Falling, Mono: r.time, Time: wall.Add(time.Duration(r.time - mono)).Round(0)}
		if r.id == edgeRising {
			ev.Edge = hal.Rising
		}
		step := uint64(r.lineSeq - uint32(e.seq)) // modulo 2^32, as the kernel counts
		if e.seq == 0 {
			step = uint64(r.lineSeq) // events before the first reader are its loss
		}
		step = max(step, 1)
		ev.Lost = step - 1
		e.seq += step
		ev.Seq = e.seq
		if e.line.edges == flagsEdges && ev.Lost == 0 && ev.Edge == e.last {
			ev.Merged = 1
		}
		e.last = ev.Edge
	}
	return n
}

// end makes a waiting Read end; the line stays requested.
func (e *lineEdges) end() error { return e.line.file.SetReadDeadline(pastTime) }

// Close lets another read.
func (e *lineEdges) Close() error {
	err := e.end()
	e.line.reading.Store(false)
	if errors.Is(err, os.ErrClosed) || errors.Is(err, os.ErrNoDeadline) {
		return nil
	}
	return err
}
