package store

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"go.etcd.io/bbolt"
)

// load finds out what is on disk: positions and sealed segments from state.db,
// other segments by reading them, and what was not sealed from the journals.
// Damage is repaired or put aside, and never keeps the store from opening.
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
	paths, err := q.dir.segments()
	if err != nil {
		return err
	}
	drafts, err := q.drafts()
	if err != nil {
		return err
	}
	floor, listed := uint64(0), map[uint64]bool{} // in the catalog: what is missing of them is counted there
	for number := range k.catalog {
		listed[number] = true
	}
	for _, number := range slices.Sorted(keys(paths, drafts)) {
		q.tail.number = max(q.tail.number, number)
		sum, known := k.catalog[number]
		delete(k.catalog, number)
		path := paths[number]
		if d := drafts[number]; d != nil && path != "" && !known && isDamage(verifySegment(path)) {
			// Power went before the catalog knew of the file, which the disk then
			// did not keep: the journal still has everything.
			if _, err := quarantine(path, "", ""); err != nil {
				return readOnly(fmt.Errorf("put damaged segment aside: %w", err))
			}
			q.io.damaged.Add(1)
			path = ""
		}
		if path == "" {
			floor = max(floor, q.loadDraft(drafts[number], floor, k))
			continue
		}
		last, err := q.loadSegment(newSegment(number, path), sum, known)
		if err != nil {
			return fmt.Errorf("segment %d: %w", number, err)
		}
		floor = max(floor, last)
		if d := drafts[number]; d != nil {
			q.tail.journals.give(d.journal)
		}
	}
	for number, sum := range k.catalog { // what is left has no file
		q.tail.number = max(q.tail.number, number)
		lost := q.ledger.missing(newSegment(number, q.dir.segment(number)), sum)
		if lost > 0 {
			q.io.damaged.Add(1)
			q.log.Error("segment is missing: its messages are lost", "file", q.dir.segment(number), "lost", lost)
		}
	}
	if reached := max(floor, q.ledger.highest()); k.seq > max(reached, k.told) {
		// The disk forgot commits that it had said it kept.
		q.io.damaged.Add(1)
		q.ledger.missed(k.seq - max(reached, k.told))
		q.log.Error("the newest messages are lost: the disk did not keep them", "lost", k.seq-max(reached, k.told))
	}
	for name, p := range k.positions {
		if p.Segment == 0 || paths[p.Segment] != "" || drafts[p.Segment] != nil {
			continue
		}
		if q.ledger.strayed(name); k.certain && !listed[p.Segment] {
			q.io.damaged.Add(1)
			q.log.Error("segment is missing: what a lane had left in it is lost", "queue", name.sink, "file", q.dir.segment(p.Segment))
		}
	}
	q.ledger.loaded()
	q.tail.highest = max(floor, k.seq, q.ledger.highest())
	q.told.Store(k.told)
	if q.ledger.lostSoFar() > 0 || !k.certain { // what is lost is not to be counted again
		q.told.Store(q.tail.highest)
		err := q.state.do(func(tx *bbolt.Tx) error { return putNumber(tx, keyTold, q.tail.highest) })
		if err != nil {
			q.log.Warn("what is lost will be counted again", "err", err)
		}
	}
	return nil
}

func keys(paths map[uint64]string, drafts map[uint64]*draft) func(func(uint64) bool) {
	all := map[uint64]bool{}
	for number := range paths {
		all[number] = true
	}
	for number := range drafts {
		all[number] = true
	}
	return maps.Keys(all)
}

// drafts reads the journals and returns them by the number of the segment that
// they have. Those that have none are free.
func (q *Queue) drafts() (map[uint64]*draft, error) {
	found, content, err := q.tail.journals.adopt()
	if err != nil {
		return nil, err
	}
	drafts := map[uint64]*draft{}
	for i, j := range found {
		epoch, newest := epochOf(content[i])
		q.tail.number = max(q.tail.number, newest)
		switch other := drafts[epoch]; {
		case epoch == 0:
			q.tail.journals.give(j)
		case other == nil:
			drafts[epoch] = &draft{number: epoch, journal: j, buf: content[i]}
		default: // only a disk that lies about flushes does that
			q.io.damaged.Add(1)
			q.log.Error("two journals claim the same messages", "file", j.path, "other", other.journal.path)
			q.tail.journals.fail(j)
			q.tail.journals.give(j)
		}
	}
	return drafts, nil
}

// loadDraft adds what a journal has above floor and above the lanes' cursors,
// and returns the highest sequence in it.
func (q *Queue) loadDraft(d *draft, floor uint64, k kept) (last uint64) {
	told := k.told
	if !k.certain { // nobody can tell what is missing from what was delivered
		told = d.before()
	}
	reached := max(floor, q.ledger.reached())
	r := d.replay(floor, reached, told)
	sum, clock, err := (&reader{content: d, number: d.number}).summarise(q.ledger.cursor)
	orphaned := r.top > reached && r.orphans > 0
	if orphaned {
		r.holes, r.lost = r.holes+1, r.lost+uint64(r.orphans)
	}
	for i := range d.drawn {
		l := &d.drawn[i]
		if from := max(told, q.ledger.lastOf(l.name)); l.ok && l.behind > from {
			r.holes, r.lost, r.above = r.holes+1, r.lost+1, r.above+1 // one at least
		}
	}
	if len(sum.Lanes) == 0 && r.above == 0 && !orphaned {
		r.holes = 0 // the file has begun a new life, and the old one was delivered
	}
	if r.holes > 0 {
		q.io.damaged.Add(1)
		q.ledger.missed(r.lost)
		q.log.Error("journal is damaged: what could be read goes on", "file", d.journal.path, "lost", r.lost)
		q.tail.journals.fail(d.journal)
	}
	if r.torn {
		q.log.Info("a commit was cut off; nobody was told that it was stored", "file", d.journal.path)
	}
	if err != nil || len(sum.Lanes) == 0 {
		q.tail.journals.give(d.journal) // all of it was delivered, or is elsewhere
		return max(d.last, r.top)
	}
	q.clock.resume(clock)
	seg := &segment{number: d.number, closed: true}
	seg.place.Store(&place{draft: d, path: d.journal.path})
	q.ledger.attach(seg, sum)
	return max(d.last, r.top)
}

// loadSegment adds one segment and returns the highest sequence that it may
// have. The catalog's word is taken until somebody reads the file: it is
// verified then.
func (q *Queue) loadSegment(seg *segment, sum summary, known bool) (last uint64, err error) {
	if !known {
		if sum, err = q.inspect(seg); err != nil {
			return 0, err
		}
	}
	for _, l := range sum.Lanes {
		last = max(last, l.Last)
	}
	info, err := os.Stat(seg.where().path)
	switch {
	case errors.Is(err, os.ErrNotExist): // nothing of it could be salvaged
		return last, nil
	case err != nil:
		return 0, err
	}
	seg.size = info.Size()
	q.ledger.attach(seg, sum)
	if !known {
		q.ledger.learn(seg, sum)
	}
	return last, nil
}

// inspect reads a segment of which the catalog knows nothing, and says what is
// above the lanes' cursors.
func (q *Queue) inspect(seg *segment) (summary, error) {
	path := seg.where().path
	sum, clock, err := q.read(path, seg.number)
	if isDamage(err) {
		cause, name := err, q.dir.segment(seg.number)
		if sum, _, err = salvage(path, name+newSuffix, seg.number, summary{}, q.ledger.cursor); err != nil {
			return summary{}, fmt.Errorf("salvage: %w", err)
		}
		bad, err := putAside(path, name, sum)
		if err != nil {
			return summary{}, err
		}
		seg.place.Store(&place{path: name})
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

// read verifies a segment, cuts off the room that one of format 1 had prepared,
// and sums it up.
func (q *Queue) read(path string, number uint64) (sum summary, clock int64, err error) {
	if err := verifySegment(path); err != nil {
		return summary{}, 0, err
	}
	if _, ok := digestOf(path); !ok {
		high, err := used(path)
		if err != nil {
			return summary{}, 0, err
		}
		if err := os.Truncate(path, high); err != nil {
			return summary{}, 0, readOnly(fmt.Errorf("cut off spare room: %w", err))
		}
	}
	db, err := openSealed(path)
	if err != nil {
		return summary{}, 0, err
	}
	err = read(db, number, func(r *reader) error {
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

func (g *ledger) lostSoFar() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lost
}

// missed counts records that are lost and whose lanes nobody knows.
func (g *ledger) missed(n uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lost += n
}

// strayed notes that a lane's position names a segment that is not there.
func (g *ledger) strayed(name laneName) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dirtyLocked(&g.sinkLocked(name.sink).lanes[name.priority])
}

// last returns the highest sequence of a lane.
func (g *ledger) last(l *lane) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return l.highest()
}

// lastOf is last by the lane's name.
func (g *ledger) lastOf(name laneName) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sinkLocked(name.sink).lanes[name.priority].highest()
}

// reached returns how far the lanes are drained.
func (g *ledger) reached() (seq uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.sinks {
		for i := range s.lanes {
			seq = max(seq, s.lanes[i].cursor)
		}
	}
	return seq
}

// loaded ends the loading.
func (g *ledger) loaded() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.restored = nil
}
