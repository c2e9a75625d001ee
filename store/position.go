package store

import (
	"slices"

	"github.com/fxamacker/cbor/v2"
)

// position is how far a lane is drained, as blocks of a journal and state.db tell
// it.
type position struct {
	_         struct{} `cbor:",toarray"`
	Cursor    uint64
	Segment   uint64 // that the cursor is in
	Done      int64  // records of that part up to the cursor
	DoneBytes int64
	Expired   uint64
	Damaged   uint64
	Purged    uint64
	Settled   uint64   // records that were ever stored in the lane, less what is not done
	Ahead     []uint64 // from, to, from, to…: sequences above the cursor that are done
}

// oldPosition is a position of format 2.
type oldPosition struct {
	_         struct{} `cbor:",toarray"`
	Cursor    uint64
	Segment   uint64
	Done      int64
	DoneBytes int64
	Expired   uint64
	Damaged   uint64
	Purged    uint64
}

// maxSpans is how many runs of records that are done ahead of the cursor a
// position tells: what is in further ones is delivered again after a crash.
const maxSpans = 32

func (p position) encode() ([]byte, error) { return cbor.Marshal(p) }

func parsePosition(b []byte) (p position, ok bool) {
	if cbor.Unmarshal(b, &p) != nil {
		var old oldPosition
		if cbor.Unmarshal(b, &old) != nil {
			return position{}, false
		}
		return position{
			Cursor: old.Cursor, Segment: old.Segment, Done: old.Done, DoneBytes: old.DoneBytes,
			Expired: old.Expired, Damaged: old.Damaged, Purged: old.Purged,
		}, true
	}
	last := p.Cursor
	for i, seq := range p.Ahead {
		if seq < last || i%2 == 0 && seq == last {
			return position{}, false
		}
		last = seq
	}
	return p, len(p.Ahead)%2 == 0 && p.Done >= 0 && p.DoneBytes >= 0
}

// join is what two positions of one lane know together; with one cursor in both,
// p says what lies at it.
func (p position) join(o position) position {
	if o.Cursor > p.Cursor {
		p, o = o, p
	}
	if o.Cursor == p.Cursor {
		p.Settled = max(p.Settled, o.Settled)
	}
	p.Expired, p.Damaged, p.Purged = max(p.Expired, o.Expired), max(p.Damaged, o.Damaged), max(p.Purged, o.Purged)
	if ahead := spansAbove(o.Ahead, p.Cursor); len(ahead) > 0 && (len(p.Ahead) == 0 || ahead[len(ahead)-1] > p.Ahead[len(p.Ahead)-1]) {
		p.Ahead = ahead
	}
	return p
}

// equal says whether two positions tell the same.
func (p position) equal(o position) bool {
	same := p.Cursor == o.Cursor && p.Segment == o.Segment && p.Done == o.Done && p.DoneBytes == o.DoneBytes && p.Settled == o.Settled
	return same && p.Expired == o.Expired && p.Damaged == o.Damaged && p.Purged == o.Purged && slices.Equal(p.Ahead, o.Ahead)
}

// spansAbove returns what of spans is above seq.
func spansAbove(spans []uint64, seq uint64) []uint64 {
	for len(spans) > 0 && spans[1] <= seq {
		spans = spans[2:]
	}
	if len(spans) == 0 || spans[0] > seq {
		return spans
	}
	return append([]uint64{seq + 1}, spans[1:]...)
}

// inSpans says whether seq is in one of the spans.
func inSpans(spans []uint64, seq uint64) bool {
	for i := 0; i < len(spans) && spans[i] <= seq; i += 2 {
		if seq <= spans[i+1] {
			return true
		}
	}
	return false
}
