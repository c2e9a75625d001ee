package store

import (
	"math"
	"time"
)

// maxOut is how many items of one lane may be handed out and not acknowledged.
// It bounds memory; a window of a few hundred fills any link.
const maxOut = 4096

// maxFound bounds one look into a segment, so that a long run of expired
// records is passed in steps.
const maxFound = 1024

// Cursor is how far a reader of one sink has read ahead of what it has
// acknowledged. The zero Cursor is the head: the oldest items not acknowledged.
// It means nothing to another sink or another process.
type Cursor struct{ seq [Lowest + 1]uint64 }

// found is a record that a look into a segment met.
type found struct {
	seq    uint64
	size   int
	stored int64
	body   []byte
	fate   fate
}

type fate uint8

const (
	good fate = iota
	late      // its time to live is over
	bad       // the disk did not keep it
	gone      // it was done in an earlier life of the store
)

// Peek returns up to max items of a sink behind after, in the order of delivery
// (priority, then age), and the Cursor behind them. It stops before maxBytes of
// bodies are passed, but returns at least one item if there is one; maxBytes 0
// means no limit. What is acknowledged, expired or damaged is left out, the
// latter two counted. An item of higher priority that came in meanwhile is
// returned first, wherever after stands.
//
// Items stay until they are acknowledged: Peek from the zero Cursor returns
// those again that were handed out and not acknowledged. At most 4096 items of a
// lane are handed out at a time; then Peek returns none until some are
// acknowledged. An error leaves everything as it was; Peek again later.
func (q *Queue) Peek(sink string, after Cursor, max, maxBytes int) ([]Item, Cursor, error) {
	select {
	case <-q.closed:
		return nil, after, ErrClosed
	default:
	}
	s := q.ledger.sink(sink)
	s.turn.Lock()
	defer s.turn.Unlock()
	if max < 1 {
		max = 1
	}
	if maxBytes < 1 {
		maxBytes = math.MaxInt
	}
	p := peek{q: q, sink: s, max: max, maxBytes: maxBytes}
	for i := range s.lanes {
		if err := p.lane(&s.lanes[i], &after.seq[i]); err != nil {
			if len(p.items) > 0 {
				break // the next Peek meets it again
			}
			return nil, after, err
		}
		if p.full {
			break
		}
	}
	return p.items, after, nil
}

// peek is one call of Peek under way. The sink's turn is held.
type peek struct {
	q             *Queue
	sink          *sink
	max, maxBytes int
	items         []Item
	bytes         int
	full          bool
}

// lane reads on in one lane until it ends or enough is found.
func (p *peek) lane(l *lane, after *uint64) error {
	now, _ := p.q.clock.now()
	var repaired map[*segment]int // made when it is needed: Peek is called for every message
	for !p.full {
		look, ok := p.q.ledger.look(l, *after)
		if !ok {
			return nil
		}
		seen := *after
		err := p.q.shelf.view(look.seg, func(r *reader) error {
			seen = p.read(r, l, look, now)
			return nil
		})
		if isDamage(err) && repaired[look.seg] < 2 {
			if repaired == nil {
				repaired = map[*segment]int{}
			}
			repaired[look.seg]++
			if err := p.q.repair(look.seg, look.generation, err); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		*after = max(*after, seen)
		p.give(l, look, seen)
	}
	return nil
}

// read collects into sink.found what a look meets, and returns up to which
// sequence it came.
func (p *peek) read(r *reader, l *lane, look look, now int64) (seen uint64) {
	p.sink.found = p.sink.found[:0]
	seen = look.to
	count, bytes, room := len(p.items), p.bytes, look.room
	r.scan(look.id, l.seed, look.from, look.to, func(seq uint64, val value, ok bool) bool {
		if seq <= look.last && p.q.ledger.isDone(l, seq) {
			return true
		}
		f := found{seq: seq, size: len(val.body), stored: val.stored}
		switch {
		case inSpans(look.skips, seq):
			f.fate = gone
		case !ok:
			f.fate = bad
		case val.expired(now):
			f.fate = late
		case count == p.max, count > 0 && bytes+f.size > p.maxBytes,
			seq > look.last && room == 0: // the reader owes acknowledgements
			seen, p.full = seq-1, true
			return false
		default:
			f.body = append([]byte{}, val.body...)
			count, bytes = count+1, bytes+f.size
			if seq > look.last {
				room--
			}
		}
		p.sink.found = append(p.sink.found, f)
		if len(p.sink.found) < maxFound {
			return true
		}
		seen = seq
		return false
	})
	return seen
}

// give hands out what was found, as far as it is still to be had.
func (p *peek) give(l *lane, look look, seen uint64) {
	late, bad, cut := p.q.ledger.give(l, look, p.sink.found, seen, func(f *found) {
		p.bytes += f.size
		p.items = append(p.items, Item{
			Seq: f.seq, Sink: l.sink.name, Priority: l.priority, Stored: time.UnixMilli(f.stored), Body: f.body,
		})
	})
	clear(p.sink.found) // lets go of the bodies
	if late > 0 || bad > 0 || cut {
		p.q.keeper.tell(true, false)
	}
	if cut {
		p.q.log.Error("segment has fewer messages than it was given; the rest is lost",
			"queue", l.sink.name, "file", look.seg.where().path)
	}
	if bad > 0 {
		p.q.log.Error("messages are damaged on disk and were skipped",
			"queue", l.sink.name, "count", bad, "file", look.seg.where().path)
	}
}

// look is where to look for more of a lane.
type look struct {
	seg        *segment
	generation int
	id         uint16
	from, to   uint64
	last       uint64 // what is above was never handed out
	room       int    // how much of that may be
	skips      []uint64
}

// look returns where a lane goes on behind after; ok is false at its end.
func (g *ledger) look(l *lane, after uint64) (look, bool) {
	defer g.locked()()
	from := max(after, l.cursor) + 1
	for i := range l.parts {
		if p := &l.parts[i]; p.Last >= from {
			return look{
				seg: p.seg, generation: p.seg.generation, id: p.ID, from: max(from, p.First), to: p.Last,
				last: l.last(), room: maxOut - l.out, skips: l.skips,
			}, true
		}
	}
	return look{}, false
}

// isDone says whether a record that was handed out, or passed over, is done.
func (g *ledger) isDone(l *lane, seq uint64) bool {
	defer g.locked()()
	if seq <= l.cursor {
		return true
	}
	i := l.find(seq)
	return i < len(l.ahead) && l.ahead[i].done
}

// give notes the fate of what was found up to seen, and calls out for each
// record that may be handed out. cut says that the look came to its end and the
// last record was not there: what is missing is counted when the lane leaves the
// segment.
func (g *ledger) give(l *lane, look look, all []found, seen uint64, out func(*found)) (expired, lost int, cut bool) {
	defer g.locked()()
	for i := range all {
		f := &all[i]
		switch {
		case f.fate == good:
			if l.handOut(look.seg, f) {
				out(f)
			}
		case !l.pass(look.seg, f), f.fate == gone:
		case f.fate == late:
			expired++
		default:
			lost++
		}
	}
	if cut = seen == look.to && l.last() < look.to; cut {
		l.ahead = append(l.ahead, handed{seq: look.to, seg: look.seg, done: true})
	}
	l.expired += uint64(expired)
	g.lostLocked(l, int64(lost))
	before := l.messages
	if l.advance() {
		g.movedLocked(l, before-l.messages)
	}
	return expired, lost, cut
}
