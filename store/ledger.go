package store

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// ledger knows, in memory, where every lane stands and which segments there
// are. Its size depends on sinks and segments, never on messages.
type ledger struct {
	mu       sync.Mutex
	unlock   func() // mu's
	sinks    map[string]*sink
	segments []*segment // oldest first
	restored map[*lane]position

	dirty    []*lane               // whose position is not in state.db
	unnoted  []*lane               // whose position is neither there nor in a journal
	since    time.Time             // of which unnoted is not empty
	settled  int                   // records done since unnoted was empty
	news     map[*segment]*summary // sealed and not in the catalog yet
	drained  []*segment            // closed, nobody needs them
	released []*draft              // that have a file of which the catalog does not know yet
	held     int64                 // bytes of journals and segment files
	timed    bool                  // something with a time to live was stored
	lost     uint64                // records that the disk did not keep, since Open
	balance  balance
}

func newLedger() *ledger {
	g := &ledger{sinks: map[string]*sink{}, restored: map[*lane]position{}, news: map[*segment]*summary{}}
	g.unlock = g.mu.Unlock
	return g
}

// locked takes the lock; defer what it returns. A deferred method would be a function more at each of forty places.
func (g *ledger) locked() func() {
	g.mu.Lock()
	return g.unlock
}

// sink returns the sink of that name, made if it must be.
func (g *ledger) sink(name string) *sink {
	defer g.locked()()
	return g.sinkLocked(name)
}

func (g *ledger) sinkLocked(name string) *sink {
	if s, ok := g.sinks[name]; ok {
		return s
	}
	s := &sink{name: name, ready: make(chan struct{}, 1)}
	for i := range s.lanes {
		s.lanes[i] = lane{sink: s, priority: uint8(i), seed: laneSeed(name, uint8(i))}
	}
	g.sinks[name] = s
	return s
}

// resolve appends the lanes of a record to dst. A lane that is named twice gets
// one copy.
func (g *ledger) resolve(dst []entry, entries []Entry) []entry {
	defer g.locked()()
	first := len(dst)
	for i := range entries {
		l := &g.sinkLocked(entries[i].Sink).lanes[entries[i].Priority]
		if slices.ContainsFunc(dst[first:], func(e entry) bool { return e.lane == l }) {
			continue
		}
		ttl := entries[i].TTL.Milliseconds()
		if ttl == 0 && entries[i].TTL > 0 {
			ttl = 1
		}
		dst = append(dst, entry{lane: l, ttl: ttl})
	}
	return dst
}

// restore sets a lane to where it stood, before segments are attached. If told is
// true state.db has yet to learn of it: the journal that knows may be written over.
func (g *ledger) restore(name laneName, p position, told bool) {
	defer g.locked()()
	l := &g.sinkLocked(name.sink).lanes[name.priority]
	l.cursor, l.expired, l.damaged, l.purged, l.stored, l.skips = p.Cursor, p.Expired, p.Damaged, p.Purged, p.Settled, p.Ahead
	g.restored[l] = p
	if told && !l.dirty {
		l.dirty = true
		g.dirty = append(g.dirty, l)
	}
}

// attach adds a segment found on disk, newer than those before.
func (g *ledger) attach(seg *segment, sum summary) {
	defer g.locked()()
	g.segments = append(g.segments, seg)
	g.held += seg.size
	for _, ls := range sum.Lanes {
		l := &g.sinkLocked(ls.Sink).lanes[ls.Priority]
		g.timed = g.timed || ls.Timed
		if ls.Last <= l.cursor {
			g.movedLocked(l, 0) // its position may name this segment, which goes
			continue
		}
		p := part{laneSummary: ls, seg: seg}
		if r := g.restored[l]; r.Segment == seg.number && ls.First <= l.cursor {
			p.done, p.doneBytes = min(r.Done, ls.Count), min(r.DoneBytes, ls.Bytes)
		}
		l.parts = append(l.parts, p)
		l.messages += p.Count - p.done
		l.stored += uint64(p.Count - p.done)
		l.bytes += p.Bytes - p.doneBytes
		l.sink.wake()
		seg.live++
	}
	if seg.live == 0 {
		g.drained = append(g.drained, seg)
	}
}

// begin adds the new tail.
func (g *ledger) begin(seg *segment) {
	defer g.locked()()
	g.segments = append(g.segments, seg)
	g.held += seg.size
}

func (g *ledger) bytesHeld() int64 {
	defer g.locked()()
	return g.held
}

// committed adds records that the tail now has.
func (g *ledger) committed(seg *segment, records []pending, entries []entry, ids map[*lane]uint16) {
	defer g.locked()()
	for i := range records {
		r := &records[i]
		if r.err != nil {
			continue
		}
		for _, e := range entries[r.first : r.first+r.entries] {
			l := e.lane
			n := len(l.parts)
			if n == 0 || l.parts[n-1].seg != seg {
				l.parts = append(l.parts, part{
					laneSummary: laneSummary{ID: ids[l], Sink: l.sink.name, Priority: l.priority}, seg: seg,
				})
				seg.live++
				n++
			}
			deadline := int64(0)
			if e.ttl > 0 {
				deadline = r.clock + e.ttl
				g.timed = true
			}
			l.parts[n-1].add(r.seq, r.size, r.stored, deadline)
			l.messages++
			l.stored++
			g.balance.stored++
			l.bytes += int64(r.size)
			l.sink.wake()
		}
	}
}

// close ends the tail: the sealer comes to it, unless it is drained already.
func (g *ledger) close(seg *segment) {
	defer g.locked()()
	seg.closed = true
	if seg.live == 0 {
		g.drained = append(g.drained, seg)
		return
	}
	for _, s := range g.sinks {
		for i := range s.lanes {
			g.shedLocked(&s.lanes[i])
		}
	}
}

// summaryLocked says what a segment holds, lanes that are drained left out.
func (g *ledger) summaryLocked(seg *segment) *summary {
	sum := summary{Size: seg.size}
	for _, s := range g.sinks {
		for i := range s.lanes {
			for _, p := range s.lanes[i].parts {
				if p.seg == seg {
					sum.Lanes = append(sum.Lanes, p.laneSummary)
				}
			}
		}
	}
	return &sum
}

// shedLocked lets a lane leave the closed segments that it has drained.
func (g *ledger) shedLocked(l *lane) {
	l.shed(func(seg *segment, unseen int64) {
		g.lostLocked(l, max(0, unseen))
		g.leftLocked(seg)
		g.dirtyLocked(l) // no position on disk names a segment that is gone
	})
}

// lostLocked counts records that the disk did not keep.
func (g *ledger) lostLocked(l *lane, n int64) {
	l.damaged += uint64(n)
	g.lost += uint64(n)
}

// leftLocked notes that a lane has left a closed segment.
func (g *ledger) leftLocked(seg *segment) {
	if seg.live--; seg.live == 0 {
		delete(g.news, seg)
		g.drained = append(g.drained, seg)
	}
}

// movedLocked notes that a lane's position changed by n records.
func (g *ledger) movedLocked(l *lane, n int64) {
	g.settled += int(n)
	g.dirtyLocked(l)
	g.shedLocked(l)
}

// dirtyLocked has a journal, and later state.db, learn of a lane's position.
func (g *ledger) dirtyLocked(l *lane) {
	if !l.dirty {
		l.dirty = true
		g.dirty = append(g.dirty, l)
	}
	g.unnotedLocked(l)
}

// acknowledge marks items done and says whether a flush is due.
func (g *ledger) acknowledge(name string, items []Item) (dirty, due bool) {
	defer g.locked()()
	s, ok := g.sinks[name]
	if !ok {
		return false, false
	}
	for i := range items {
		if items[i].Sink != name || items[i].Priority > Lowest {
			continue
		}
		l := &s.lanes[items[i].Priority]
		before := l.messages
		if !l.finish(items[i].Seq) {
			continue
		}
		if l.advance() {
			g.movedLocked(l, before-l.messages)
		} else {
			g.dirtyLocked(l)
		}
	}
	return len(g.unnoted) > 0, g.dueLocked()
}

func (g *ledger) dueLocked() bool {
	return g.settled >= flushAcks || len(g.drained) > 0 || len(g.news) > 0
}

// expire makes parts of which every record is out of time done, at powered-on
// time now.
func (g *ledger) expire(now int64) (due bool) {
	defer g.locked()()
	for _, s := range g.sinks {
		for i := range s.lanes {
			l := &s.lanes[i]
			for len(l.parts) > 0 && l.parts[0].Deadline > 0 && l.parts[0].Deadline <= now && l.parts[0].Last > l.cursor {
				n := l.skip()
				l.expired += uint64(n)
				g.movedLocked(l, n)
			}
		}
	}
	return g.dueLocked()
}

// purge makes everything in a sink done.
func (g *ledger) purge(name string) (purged int64) {
	defer g.locked()()
	s, ok := g.sinks[name]
	if !ok {
		return 0
	}
	for i := range s.lanes {
		l := &s.lanes[i]
		for len(l.parts) > 0 && l.parts[0].Last > l.cursor {
			first := l.parts[0].seg
			n := l.skip()
			purged += n
			l.purged += uint64(n)
			g.movedLocked(l, n)
			if len(l.parts) > 0 && l.parts[0].seg == first {
				break // the tail stays, done
			}
		}
	}
	return purged
}

// tailDrained says whether nobody needs what the tail has.
func (g *ledger) tailDrained() bool {
	defer g.locked()()
	n := len(g.segments)
	if n == 0 || g.segments[n-1].closed {
		return false
	}
	for _, s := range g.sinks {
		for i := range s.lanes {
			for _, p := range s.lanes[i].parts {
				if p.seg == g.segments[n-1] && p.Last > s.lanes[i].cursor {
					return false
				}
			}
		}
	}
	return true
}

func (g *ledger) stats() []SinkStats {
	defer g.locked()()
	var all []SinkStats
	for _, name := range slices.Sorted(maps.Keys(g.sinks)) {
		for i := range g.sinks[name].lanes {
			l := &g.sinks[name].lanes[i]
			s := SinkStats{
				Sink: name, Priority: l.priority, Messages: max(0, l.messages), Bytes: max(0, l.bytes),
				Expired: l.expired, Damaged: l.damaged, Purged: l.purged,
			}
			if s.Messages > 0 && len(l.parts) > 0 {
				oldest := max(l.parts[0].Oldest, l.since)
				if len(l.ahead) > 0 {
					oldest = l.ahead[0].stored
				}
				s.Oldest = time.UnixMilli(oldest)
			}
			if s.Messages > 0 || l.cursor > 0 {
				all = append(all, s)
			}
		}
	}
	return all
}

// highest returns the highest sequence that is known.
func (g *ledger) highest() (seq uint64) {
	defer g.locked()()
	return g.highestLocked()
}

func (g *ledger) highestLocked() (seq uint64) {
	for _, s := range g.sinks {
		for i := range s.lanes {
			seq = max(seq, s.lanes[i].highest())
		}
	}
	return seq
}

// pending returns the bytes of bodies that are not acknowledged, once for each
// sink, how many segments there are, and how many records were lost.
func (g *ledger) pending() (bytes int64, segments int, lost uint64) {
	defer g.locked()()
	for _, s := range g.sinks {
		for i := range s.lanes {
			bytes += max(0, s.lanes[i].bytes)
		}
	}
	return bytes, len(g.segments), g.lost
}
