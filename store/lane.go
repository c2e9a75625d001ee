package store

import (
	"sort"
	"sync"
)

// Lowest is the lowest priority; 0 is the highest.
const Lowest = 10

// sink is one place where messages go, with a lane for each priority.
type sink struct {
	name  string
	ready chan struct{} // holds one token: something may have come
	lanes [Lowest + 1]lane

	// turn is held by the one that peeks: two at once would hand out records in
	// an order that [lane.ahead] cannot note. It is taken before ledger.mu.
	turn  sync.Mutex
	found []found // scratch of the one that peeks
}

// wake puts the token, unless it is there.
func (s *sink) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// lane is one sink at one priority: a queue over parts of segments. It has no
// lock: everything in it is guarded by ledger.mu.
//
// Its invariant: every record up to cursor is done (acknowledged, expired,
// purged or lost), and every record above it that was handed out, or passed
// over, is in ahead, in order and without a gap.
type lane struct {
	sink     *sink
	priority uint8
	seed     uint32

	parts  []part // oldest first, not drained
	cursor uint64
	ahead  []handed
	out    int // of ahead, handed out and not acknowledged

	messages, bytes          int64  // not done
	stored                   uint64 // records ever, as far as it is known
	since                    int64  // wall clock of the record at the cursor, ms; 0 = not known
	expired, damaged, purged uint64
	skips                    []uint64 // done ahead of the cursor in an earlier life, see [position]; it is not written to
	dirty                    bool     // in ledger.dirty
	unnoted                  bool     // in ledger.unnoted
}

// part is a lane's share of one segment.
type part struct {
	laneSummary
	seg             *segment
	done, doneBytes int64 // of Count and Bytes, up to the cursor
	// what done and doneBytes were when a repair began
	pictured, picturedBytes int64
}

// handed is one record that was handed out, or a run of records of one segment
// that are done and end at seq.
type handed struct {
	seq    uint64
	seg    *segment
	n      int64
	bytes  int64
	stored int64 // wall clock, ms
	done   bool
}

func (l *lane) position() position {
	p := position{
		Cursor: l.cursor, Expired: l.expired, Damaged: l.damaged, Purged: l.purged,
		Settled: l.stored - uint64(max(0, l.messages)), Ahead: l.spans(),
	}
	if len(l.parts) > 0 && l.parts[0].First <= l.cursor {
		p.Segment, p.Done, p.DoneBytes = l.parts[0].seg.number, l.parts[0].done, l.parts[0].doneBytes
	}
	return p
}

// spans returns what is done ahead of the cursor, as in [position].
func (l *lane) spans() (spans []uint64) {
	before := l.cursor
	for i := 0; i < len(l.ahead) && len(spans) <= 2*maxSpans; i++ {
		h := &l.ahead[i]
		switch n := len(spans); {
		case !h.done:
		case n > 0 && spans[n-1] == before:
			spans[n-1] = h.seq
		default:
			spans = append(spans, before+1, h.seq)
		}
		before = h.seq
	}
	spans = append(spans, spansAbove(l.skips, l.last())...)
	return spans[:min(len(spans), 2*maxSpans)]
}

// find returns the index in ahead of the entry that covers seq.
func (l *lane) find(seq uint64) int {
	return sort.Search(len(l.ahead), func(i int) bool { return l.ahead[i].seq >= seq })
}

// last returns the highest sequence that was handed out or is done.
func (l *lane) last() uint64 {
	if n := len(l.ahead); n > 0 {
		return l.ahead[n-1].seq
	}
	return l.cursor
}

// handOut notes that a reader gets a record, and says whether it may: not if the
// record is done.
func (l *lane) handOut(seg *segment, f *found) bool {
	if f.seq <= l.cursor {
		return false
	}
	if f.seq > l.last() {
		l.ahead = append(l.ahead, handed{seq: f.seq, seg: seg, n: 1, bytes: int64(f.size), stored: f.stored})
		l.out++
		return true
	}
	return !l.ahead[l.find(f.seq)].done
}

// pass notes that a record is not to be handed out (any more) and says whether
// that is news.
func (l *lane) pass(seg *segment, f *found) bool {
	if f.seq <= l.cursor {
		return false
	}
	if f.seq <= l.last() {
		return l.finish(f.seq)
	}
	if n := len(l.ahead); n > 0 && l.ahead[n-1].done && l.ahead[n-1].seg == seg {
		run := &l.ahead[n-1]
		run.seq, run.n, run.bytes = f.seq, run.n+1, run.bytes+int64(f.size)
	} else {
		l.ahead = append(l.ahead, handed{seq: f.seq, seg: seg, n: 1, bytes: int64(f.size), stored: f.stored, done: true})
	}
	return true
}

// finish notes that the record seq, which was handed out, is done; false if it
// was already, or is not known.
func (l *lane) finish(seq uint64) bool {
	i := l.find(seq)
	if seq <= l.cursor || i == len(l.ahead) || l.ahead[i].seq != seq || l.ahead[i].done {
		return false
	}
	l.ahead[i].done = true
	l.out--
	return true
}

// advance moves the cursor over everything at the head that is done, and says
// whether it moved.
func (l *lane) advance() bool {
	n := 0
	for ; n < len(l.ahead) && l.ahead[n].done; n++ {
		l.cursor = l.ahead[n].seq
		l.settle(l.ahead[n])
	}
	if n == 0 {
		return false
	}
	l.ahead = l.ahead[n:]
	if len(l.ahead) == 0 {
		l.ahead = nil // lets the garbage collector have the front
	}
	l.skips = spansAbove(l.skips, l.cursor)
	return true
}

// highest returns the highest sequence of a lane that is known.
func (l *lane) highest() uint64 {
	if n := len(l.parts); n > 0 {
		return max(l.cursor, l.parts[n-1].Last)
	}
	return l.cursor
}

// settle takes done records out of the counts.
func (l *lane) settle(h handed) {
	l.messages -= h.n
	l.bytes -= h.bytes
	l.since = max(l.since, h.stored)
	for i := range l.parts {
		p := &l.parts[i]
		if p.seg != h.seg {
			continue
		}
		p.done += h.n
		p.doneBytes += h.bytes
		if p.done >= p.Count { // of a damaged record the size is not known
			l.bytes -= p.Bytes - p.doneBytes
			p.doneBytes = p.Bytes
		}
		return
	}
}

// skip makes everything up to the end of the first part done and returns how
// many records that concerned.
func (l *lane) skip() int64 {
	p := &l.parts[0]
	for len(l.ahead) > 0 && l.ahead[0].seq <= p.Last {
		h := l.ahead[0]
		if h.done {
			l.settle(h)
		} else {
			l.out--
		}
		l.ahead = l.ahead[1:]
	}
	n := p.Count - p.done
	l.messages -= n
	l.bytes -= p.Bytes - p.doneBytes
	p.done, p.doneBytes = p.Count, p.Bytes
	l.cursor = max(l.cursor, p.Last)
	return n
}

// shed forgets parts of closed segments that are drained and calls left for
// each, with the number of its records that nobody ever saw.
func (l *lane) shed(left func(seg *segment, unseen int64)) {
	for len(l.parts) > 0 && l.parts[0].Last <= l.cursor && l.parts[0].seg.closed {
		p := l.parts[0]
		l.messages -= p.Count - p.done
		l.bytes -= p.Bytes - p.doneBytes
		l.parts = l.parts[1:]
		left(p.seg, p.Count-p.done)
	}
	if len(l.parts) == 0 {
		l.parts = nil
	}
}
