package linux

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// Edges gives the one reader that a line has at a time: the events are of the request, whoever reads them.
func (l *lineResource) Edges(context.Context) (hal.EdgeReader, error) {
	if l.req.config.edges == 0 {
		return nil, &Error{Code: CodeUnsupported, Detail: l.req.where + " is an output: it has no edges"}
	}
	if !l.reading.CompareAndSwap(false, true) {
		return nil, &Error{Code: CodeBusy, Detail: "another reader has the edges of " + l.req.where}
	}
	if err := l.req.file.SetReadDeadline(time.Time{}); err != nil { // after an earlier reader's Close
		l.reading.Store(false)
		return nil, l.fail(err)
	}
	return &lineEdges{line: l, from: edgeReader{file: l.req.file}}, nil
}

// lineEdges counts what is missing between the edges of a line.
type lineEdges struct {
	_    apart
	line *lineResource
	from edgeReader
	raw  [edgeBatch]edge
	seq  uint64 // of the last event, from 1; the kernel's wraps at 32 bits
	last hal.Edge
}

// Read waits for edges; a context that ends makes it end.
func (e *lineEdges) Read(ctx context.Context, into []hal.Event) (int, error) {
	stop := context.AfterFunc(ctx, func() { _ = e.end() })
	n, err := e.from.read(e.raw[:min(len(into), len(e.raw))])
	stop()
	if err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = os.ErrClosed
		}
		if err = e.line.fail(err); errors.Is(err, os.ErrClosed) {
			err = &Error{Code: CodeGone, Detail: e.line.req.where + " was closed", Err: err}
		}
		return 0, err
	}
	wall, mono := time.Now(), monotonic()
	for i := range e.raw[:n] {
		r, ev := &e.raw[i], &into[i]
		*ev = hal.Event{Edge: hal.Falling, Mono: r.mono, Time: wall.Add(time.Duration(r.mono - mono)).Round(0)}
		if r.rising {
			ev.Edge = hal.Rising
		}
		step := uint64(r.seq - uint32(e.seq)) // modulo 2^32, as the kernel counts
		if e.seq == 0 {
			step = uint64(r.seq) // events before the first reader are its loss
		}
		step = max(step, 1)
		ev.Lost = step - 1
		e.seq += step
		ev.Seq = e.seq
		if e.line.req.config.edges == flagsEdges && ev.Lost == 0 && ev.Edge == e.last {
			ev.Merged = 1
		}
		e.last = ev.Edge
	}
	return n, nil
}

// end makes a waiting Read end; the line stays requested.
func (e *lineEdges) end() error { return e.line.req.file.SetReadDeadline(pastTime) }

// Close lets another read.
func (e *lineEdges) Close() error {
	err := e.end()
	e.line.reading.Store(false)
	if errors.Is(err, os.ErrClosed) || errors.Is(err, os.ErrNoDeadline) {
		return nil
	}
	return err
}
