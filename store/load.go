package store

import (
	"errors"
	"fmt"
	"os"
	"slices"
)

// load finds out what is on disk: positions and sealed segments from state.db,
// other segments by reading them. Damage is repaired or put aside, and never
// keeps the store from opening.
func (q *Queue) load() error {
	k, err := q.state.kept()
	if err != nil {
		return fmt.Errorf("read cursors: %w", err)
	}
	if k.damaged > 0 {
		q.log.Error("cursors are damaged: messages may be delivered again", "count", k.damaged)
	}
	q.clock.resume(k.clock)
	for name, p := range k.positions {
		q.ledger.restore(name, p)
	}
	numbers, err := q.dir.segments()
	if err != nil {
		return err
	}
	slices.Sort(numbers)
	for _, number := range numbers {
		q.tail.number = max(q.tail.number, number)
		seg := &segment{number: number, path: q.dir.segment(number), sealed: true}
		sum, known := k.catalog[number]
		delete(k.catalog, number)
		if err := q.loadSegment(seg, sum, known); err != nil {
			return fmt.Errorf("segment %d: %w", number, err)
		}
	}
	for number, sum := range k.catalog { // what is left has no file
		q.tail.number = max(q.tail.number, number)
		lost := q.ledger.missing(&segment{number: number, path: q.dir.segment(number), sealed: true}, sum)
		if lost > 0 {
			q.io.damaged.Add(1)
			q.log.Error("segment is missing: its messages are lost", "file", q.dir.segment(number), "lost", lost)
		}
	}
	q.ledger.loaded()
	return nil
}

// loadSegment adds one segment. The catalog's word is taken until somebody
// reads the file: it is verified then.
func (q *Queue) loadSegment(seg *segment, sum summary, known bool) error {
	if !known {
		var err error
		if sum, err = q.inspect(seg); err != nil {
			return err
		}
	}
	info, err := os.Stat(seg.path)
	switch {
	case errors.Is(err, os.ErrNotExist): // nothing of it could be salvaged
		return nil
	case err != nil:
		return err
	}
	seg.size = info.Size()
	q.ledger.attach(seg, sum)
	if !known {
		q.ledger.learn(seg, sum)
	}
	return nil
}

// inspect reads a segment that was the tail when the last process ended, or of
// which the catalog knows nothing, and says what is above the lanes' cursors.
func (q *Queue) inspect(seg *segment) (summary, error) {
	sum, clock, err := q.read(seg)
	if isDamage(err) {
		cause := err
		if sum, _, err = salvage(seg.path, seg.path+newSuffix, seg.number, summary{}, q.ledger.cursor); err != nil {
			return summary{}, fmt.Errorf("salvage: %w", err)
		}
		bad, err := putAside(seg.path, sum)
		if err != nil {
			return summary{}, err
		}
		q.io.damaged.Add(1)
		left := int64(0)
		for _, l := range sum.Lanes {
			left += l.Count
		}
		q.log.Error("segment is damaged: what could be read goes on, the file was put aside",
			"file", bad, "left", left, "err", cause)
		return sum, nil
	}
	q.clock.resume(clock)
	return sum, err
}

// read verifies a segment, cuts off the room it had prepared, and sums it up.
func (q *Queue) read(seg *segment) (sum summary, clock int64, err error) {
	if err := verify(seg.path, segmentMetas); err != nil {
		return summary{}, 0, err
	}
	high, err := used(seg.path)
	if err != nil {
		return summary{}, 0, err
	}
	if err := os.Truncate(seg.path, high); err != nil {
		return summary{}, 0, readOnly(fmt.Errorf("cut off spare room: %w", err))
	}
	db, err := openSealed(seg.path)
	if err != nil {
		return summary{}, 0, err
	}
	err = read(db, seg.number, func(r *reader) error {
		sum, clock, err = r.summarise(q.ledger.cursor)
		return err
	})
	return sum, clock, errors.Join(err, db.Close())
}

// used returns the bytes that a verified file's pages take.
func used(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close() // only read
	m, _, err := readMeta(f)
	return int64(m.high) * pageSize, err
}

// learn has the catalog learn of a segment.
func (g *ledger) learn(seg *segment, sum summary) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if seg.live > 0 {
		g.news[seg] = &sum
	}
}

// missing counts what a segment had that the catalog lists and that has no
// file; the catalog is to forget it.
func (g *ledger) missing(seg *segment, sum summary) (lost int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, ls := range sum.Lanes {
		l := &g.sinkLocked(ls.Sink).lanes[ls.Priority]
		if ls.Last <= l.cursor {
			continue
		}
		n := ls.Count
		if r := g.restored[l]; r.Segment == seg.number && ls.First <= l.cursor {
			n -= r.Done
		}
		lost += max(0, n)
		g.lostLocked(l, max(0, n))
		g.movedLocked(l, 0)
	}
	g.drained = append(g.drained, seg)
	return lost
}

// loaded ends the loading.
func (g *ledger) loaded() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.restored = nil
}
