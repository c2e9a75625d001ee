package linux

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// boardLine is a line of the contract.
type boardLine struct {
	*lineResource
	held
	reading atomic.Bool
}

// FD is the held one's.
func (l *boardLine) FD(safe float64) (int, hal.SafeAction) { return l.held.FD(safe) }

// Prompt is true of a controller in the processor's own memory; one behind I2C, SPI or USB makes its callers wait.
func (l *boardLine) Prompt() bool { return l.req.prompt }

// Edges gives the one reader that a line has at a time.
func (l *boardLine) Edges(ctx context.Context) (hal.EdgeReader, error) {
	if l.req.config.edges == 0 {
		return nil, &Error{Code: CodeUnsupported, Detail: l.req.where + " is an output: it has no edges"}
	}
	if !l.reading.CompareAndSwap(false, true) {
		return nil, &Error{Code: CodeBusy, Detail: "another reader has the edges of " + l.req.where}
	}
	r, err := l.lineResource.Edges(ctx)
	if err != nil {
		l.reading.Store(false)
		return nil, err
	}
	return &boardEdges{line: l, from: r, both: l.req.config.edges == flagsEdges}, nil
}

// boardEdges counts what is missing between the edges of a line.
type boardEdges struct {
	line *boardLine
	from EdgeReader
	both bool
	raw  [edgeBatch]Edge
	seq  uint64 // of the last event, from 1; the kernel's wraps at 32 bits
	last hal.Edge
}

// Read waits for edges; a context that ends makes it end.
func (e *boardEdges) Read(ctx context.Context, into []hal.Event) (int, error) {
	stop := context.AfterFunc(ctx, func() { _ = e.from.Close() })
	n, err := e.from.Read(e.raw[:min(len(into), len(e.raw))])
	stop()
	if err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if errors.Is(err, os.ErrClosed) {
			err = &Error{Code: CodeGone, Detail: e.line.req.where + " was closed", Err: err}
		}
		return 0, err
	}
	wall := time.Now()
	mono := monotonic()
	for i, r := range e.raw[:n] {
		ev := hal.Event{Edge: hal.Falling, Mono: r.Mono, Time: wall.Add(time.Duration(r.Mono - mono)).Round(0)}
		if r.Rising {
			ev.Edge = hal.Rising
		}
		step := uint64(r.Seq - uint32(e.seq)) // modulo 2^32, as the kernel counts
		if e.seq == 0 {
			step = uint64(r.Seq) // events before the first reader are its loss
		}
		step = max(step, 1)
		ev.Lost = step - 1
		e.seq += step
		ev.Seq = e.seq
		if e.both && ev.Lost == 0 && ev.Edge == e.last {
			ev.Merged = 1
		}
		e.last = ev.Edge
		into[i] = ev
	}
	return n, nil
}

// Close lets another read.
func (e *boardEdges) Close() error {
	err := e.from.Close()
	e.line.reading.Store(false)
	if errors.Is(err, os.ErrClosed) || errors.Is(err, os.ErrNoDeadline) {
		return nil
	}
	return err
}
