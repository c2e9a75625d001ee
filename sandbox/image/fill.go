package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// fill brings every missing chunk: by a delta where that is smaller, from this device where it is here, and else by ranges of the
// bundle. body, when not nil, stands at the payload and gives it to its end.
func (t *transfer) fill(ctx context.Context, body io.ReadCloser) error {
	p := t.part
	if body != nil {
		defer func() { _ = body.Close() }()
		if !t.here() {
			return t.stream(body, 0)
		}
	}
	if err := t.byDelta(ctx); err != nil {
		return err
	}
	if body != nil { // the server knows no ranges: what it sends is all there is
		return t.stream(body, 0)
	}
	buf := make([]byte, bundle.MaxChunk)
	for i := 0; i < len(p.index); {
		switch {
		case p.have[i] && !t.fetch[i]:
			i++
		case !t.fetch[i]:
			plain, ok := t.donors.read(p, p.index[i], buf)
			if !ok {
				t.fetch = t.donors.plan(p)
				continue
			}
			if err := p.add(i, plain); err != nil {
				return err
			}
			t.progress(PhaseTransfer)
			i++
		default:
			last := i
			for last < len(p.index) && t.fetch[last] {
				last++
			}
			if err := t.ranged(ctx, i, last); err != nil {
				return err
			}
			i = last
		}
	}
	if !p.whole() {
		return fmt.Errorf("%d chunks are missing after all were asked for", p.missed)
	}
	return nil
}

// here reports whether anything of the image need not come over the network.
func (t *transfer) here() bool { return t.part.bytes > 0 || slices.Contains(t.fetch, false) }

// ranged fetches the chunks from first up to last.
func (t *transfer) ranged(ctx context.Context, first, last int) error {
	p, start := t.part, t.head.Header.PayloadOffset()
	to := start + p.stored[last]
	if last == len(p.index) {
		to = toEnd
	}
	for first < last && p.have[first] { // came before a cut
		first++
	}
	if first == last {
		return nil
	}
	var came []byte
	if t.tail.chunk == first {
		came = t.tail.bytes
	}
	src := t.src.current()
	checked := src.validator() != ""
	body, fromStart, err := src.open(ctx, start+p.stored[first]+int64(len(came)), to)
	if err != nil {
		return err
	}
	t.tail = tail{}
	defer func() { _ = body.Close() }()
	if size, known := sizeOf(body); known && size != t.head.Header.FileSize() {
		return bundle.Reject(bundle.ErrChanged, "the bundle on the server has %d bytes now, not %d: it is fetched again from its start", size, t.head.Header.FileSize())
	}
	switch {
	case fromStart:
		if err := t.skip(body, first); err != nil {
			return err
		}
		return t.stream(body, first)
	case last == len(p.index):
		err = t.stream(io.MultiReader(bytes.NewReader(came), body), first)
	default:
		err = t.receive(io.MultiReader(bytes.NewReader(came), body), first, last)
	}
	if errors.Is(err, bundle.ErrChunk) && len(came) > 0 && !p.have[first] { // it was the start of something else
		return t.ranged(ctx, first, last)
	}
	if errors.Is(err, bundle.ErrChunk) && !checked {
		if same, serr := t.sameFile(ctx); serr == nil && !same {
			return bundle.Reject(bundle.ErrChanged, "the bundle was replaced while it was fetched: it is fetched again from its start")
		}
	}
	return err
}

// stream reads the payload from a chunk to its end, after which nothing may follow.
func (t *transfer) stream(body io.Reader, first int) error {
	if err := t.receive(body, first, len(t.part.index)); err != nil {
		return err
	}
	return bundle.ExpectEnd(body)
}

func (t *transfer) receive(body io.Reader, first, last int) error {
	chunks, err := bundle.NewChunkReader(body, t.part.index[:last], first)
	if err != nil {
		return err
	}
	defer chunks.Close()
	for i := first; i < last; i++ {
		plain, err := chunks.Next()
		if err != nil {
			t.keepTail(chunks.Cut())
			return err
		}
		t.meter.wire += int64(t.part.index[i].Stored)
		if t.part.have[i] {
			continue
		}
		if err := t.part.add(i, plain); err != nil {
			return err
		}
		t.donors.arrived(t.part, i)
		t.progress(PhaseTransfer)
	}
	return nil
}
