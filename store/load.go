package store

import (
	"errors"
	"fmt"
	"os"
	"sort"
)

// loading is what load has found out.
type loading struct {
	kept
	evidence
	paths  map[uint64]string // of segments' files
	drafts map[uint64]*draft
	found  map[uint64]replayed
	told   map[laneName]bool // lanes of which a journal knows more than state.db
	spent  bool              // a journal is free again
}

// load finds out what is on disk: positions and sealed segments from state.db,
// other segments by reading them, and what was not sealed from the journals,
// which also have the newest positions. Damage is repaired or put aside, and
// never keeps the store from opening.
func (q *Queue) load() error {
	l := &loading{drafts: map[uint64]*draft{}, found: map[uint64]replayed{}, told: map[laneName]bool{}}
	var err error
	if l.kept, err = q.state.kept(); err != nil {
		return fmt.Errorf("read cursors: %w", err)
	}
	if n := len(l.damaged) + l.lacks; n > 0 || l.stale {
		q.io.damaged.Add(1)
		q.log.Error("state.db is damaged: messages may be delivered again", "damaged", n, "stale", l.stale)
	}
	q.clock.resume(l.clock)
	l.certain = l.certain && len(l.damaged) == 0
	var spare []string
	if l.paths, spare, err = q.dir.segments(); err != nil {
		return err
	}
	if err := q.readJournals(l); err != nil {
		return err
	}
	for name, p := range l.positions {
		q.ledger.restore(name, p, l.told[name])
		l.number, l.evidence.seq = max(l.number, p.Segment), max(l.evidence.seq, p.Cursor)
	}
	floor, err := q.loadSegments(l)
	if err != nil {
		return err
	}
	for _, path := range spare {
		if err := errors.Join(q.dir.sure(), q.medium.remove(path)); err != nil {
			return readOnly(fmt.Errorf("remove old copy of a segment: %w", err))
		}
	}
	q.ledger.loaded()
	missing := q.ledger.weigh(l.balance, &l.evidence, l.certain)
	if counted := q.ledger.lostSoFar(); missing > counted {
		q.ledger.missed(missing - counted) // beside what is known by its lane
		q.log.Error("messages are lost: the disk did not keep them, or what told that they were delivered", "lost", missing-counted)
	}
	q.tail.number, q.tail.highest = l.number, max(floor, l.evidence.seq, l.kept.seq, q.ledger.highest())
	// What is lost is not to be counted again, nor what a journal alone knows to be
	// done, once it is written over.
	if missing > 0 || !l.certain || l.stale || l.spent && len(l.told) > 0 {
		if err := q.write(q.ledger.collect(), l.damaged...); err != nil {
			q.log.Warn("what is lost will be counted again", "err", err)
		}
	}
	return nil
}

// loadSegments attaches everything that has records, oldest first, and returns
// the highest sequence.
func (q *Queue) loadSegments(l *loading) (floor uint64, err error) {
	for _, number := range keys(l.paths, l.drafts) {
		l.number = max(l.number, number)
		sum, known := l.catalog[number]
		delete(l.catalog, number)
		path, d := l.paths[number], l.drafts[number]
		if d != nil && path != "" && !known {
			if path, err = q.choose(l, d, path); err != nil {
				return 0, fmt.Errorf("segment %d: %w", number, err)
			}
		}
		if path == "" {
			floor = max(floor, q.loadDraft(l, d, floor))
			continue
		}
		last, err := q.loadSegment(l, newSegment(number, path), sum, known)
		if err != nil {
			return 0, fmt.Errorf("segment %d: %w", number, err)
		}
		floor = max(floor, last)
		if d != nil {
			l.spent = true
			q.tail.journals.give(d.journal)
			d.release()
		}
	}
	for number, sum := range l.catalog { // what is left has no file
		l.number = max(l.number, number)
		lost := q.ledger.missing(newSegment(number, q.dir.segment(number)), sum)
		if lost > 0 {
			q.io.damaged.Add(1)
			q.log.Error("segment is missing: its messages are lost", "file", q.dir.segment(number), "lost", lost)
		}
	}
	return floor, nil
}

// keys are the numbers of both, ascending.
func keys(paths map[uint64]string, drafts map[uint64]*draft) []uint64 {
	all := make([]uint64, 0, len(paths)+len(drafts))
	for number := range paths {
		all = append(all, number)
	}
	for number := range drafts {
		if _, twice := paths[number]; !twice {
			all = append(all, number)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	return all
}

// readJournals reads the journals and notes them by the number of the segment
// that they have, and what they know of lanes. Those that have none are free.
func (q *Queue) readJournals(l *loading) error {
	found, err := q.tail.journals.adopt()
	if err != nil {
		return err
	}
	for _, d := range found {
		j := d.journal
		l.evidence.journal(d.buf, j.key)
		if !j.old {
			d.buf = d.buf[:max(0, len(d.buf)-blockHeader)]
		}
		r := d.replay()
		switch other := l.drafts[r.epoch]; {
		case r.epoch == 0:
			q.tail.journals.give(j)
			d.release()
			continue
		case other != nil: // only a disk that lies about flushes does that
			q.io.damaged.Add(1)
			q.log.Error("two journals claim the same messages", "file", j.path, "other", other.journal.path)
			q.tail.journals.fail(j)
			q.tail.journals.give(j)
			d.release()
			continue
		}
		l.drafts[r.epoch], l.found[r.epoch] = d, r
		l.evidence.replayed(r)
		for name, p := range r.positions {
			was := l.positions[name]
			l.positions[name] = was.join(p)
			l.told[name] = l.told[name] || !was.equal(l.positions[name])
		}
	}
	return nil
}

// choose returns the path of a segment's file of which the catalog does not know
// yet, or "" if its journal is the better one: power went between the two. The
// file lacks what was done when it was made, and the positions that say so come
// with the catalog.
func (q *Queue) choose(l *loading, d *draft, path string) (string, error) {
	sum, _, err := q.read(path, d.number, l)
	switch last := sum.last(); {
	case isDamage(err):
		if _, err := quarantine(path, "", ""); err != nil {
			return "", readOnly(fmt.Errorf("put damaged segment aside: %w", err))
		}
		q.io.damaged.Add(1)
		return "", nil
	case err != nil || l.found[d.number].holes > 0 || last > d.last:
		return path, err
	}
	return "", readOnly(errors.Join(q.dir.sure(), q.medium.remove(path), q.medium.syncDir(q.dir.folder())))
}

// loadDraft adds what a journal has above floor and above the lanes' cursors,
// and returns the highest sequence in it.
func (q *Queue) loadDraft(l *loading, d *draft, floor uint64) (last uint64) {
	r := l.found[d.number]
	d.trim(floor)
	sum, clock, err := (&reader{content: d, number: d.number}).summarise(q.ledger.cursor)
	if r.torn {
		q.log.Info("a commit was cut off; nobody was told that it was stored", "file", d.journal.path)
	}
	if err != nil || len(sum.Lanes) == 0 {
		l.spent = true
		q.tail.journals.give(d.journal) // all of it was delivered, or is elsewhere
		d.release()
		return max(d.last, r.top)
	}
	if r.holes > 0 {
		q.io.damaged.Add(1)
		q.log.Error("journal is damaged: what could be read goes on", "file", d.journal.path)
		q.tail.journals.fail(d.journal)
		if !l.certain { // else the balance tells
			q.ledger.missed(r.lost)
		}
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
func (q *Queue) loadSegment(l *loading, seg *segment, sum summary, known bool) (last uint64, err error) {
	if !known {
		if sum, err = q.inspect(seg, l); err != nil {
			return 0, err
		}
	}
	last = sum.last()
	if seg.size = sum.Size; seg.size == 0 {
		info, err := os.Stat(seg.where().path)
		switch {
		case errors.Is(err, os.ErrNotExist): // nothing of it could be salvaged
			return last, nil
		case err != nil:
			return 0, err
		}
		seg.size = info.Size()
	}
	q.ledger.attach(seg, sum)
	if !known {
		sum.Size = seg.size
		q.ledger.learn(seg, sum)
	}
	return last, nil
}

// inspect reads a segment of which the catalog knows nothing, and says what is
// above the lanes' cursors.
func (q *Queue) inspect(seg *segment, found *loading) (summary, error) {
	path := seg.where().path
	sum, clock, err := q.read(path, seg.number, found)
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
func (q *Queue) read(path string, number uint64, l *loading) (sum summary, clock int64, err error) {
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
		if f, ok := r.content.(*filed); ok {
			l.stored = max(l.stored, f.stored)
		}
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
	defer g.locked()()
	if seg.live > 0 {
		g.news[seg] = &sum
	}
}

// missing counts what a segment had that the catalog lists and that has no
// file; the catalog is to forget it.
func (g *ledger) missing(seg *segment, sum summary) (lost int64) {
	defer g.locked()()
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
	defer g.locked()()
	return g.lost
}

// missed counts records that are lost and whose lanes nobody knows.
func (g *ledger) missed(n uint64) {
	defer g.locked()()
	g.lost += n
}

// loaded ends the loading.
func (g *ledger) loaded() {
	defer g.locked()()
	g.restored = nil
}
