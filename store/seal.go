package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// sealAgain is how long the sealer waits after an error before it tries again
// without being asked.
const sealAgain = 2 * time.Second

// sealAll is the sealer: it makes files of drafts that take no more, off the way
// of the commits, until ctx ends. What it has not come to then is in journals.
func (q *Queue) sealAll(ctx context.Context) {
	failing := false
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.tail.closed:
		case <-again:
		}
		again = nil
		sealed, err := true, error(nil)
		for sealed && err == nil && ctx.Err() == nil {
			sealed, err = q.sealOldest()
		}
		if perr := q.tail.journals.prepare(q.tail.segmentBytes, q.tail.most()); perr != nil {
			q.log.Debug("no journal is ready beforehand", "err", perr) // who needs one makes it, or is told why not
		}
		if err != nil {
			again = time.After(sealAgain)
			if !failing && !errors.Is(err, ErrFull) { // producers are told of that
				q.log.Warn("journal cannot be sealed; messages stay in it", "err", err)
			}
		}
		failing = err != nil
	}
}

// sealOldest makes a file of the oldest draft that takes no more, or finds that
// nobody needs it, and gives its journal free. It says whether there was one.
func (q *Queue) sealOldest() (bool, error) {
	q.files.Lock()
	seg := q.ledger.oldestDraft()
	var err error
	if seg != nil {
		err = q.seal(seg)
	}
	q.files.Unlock()
	if err != nil || seg == nil && !q.ledger.frees() {
		return false, err
	}
	before := q.tail.journals.given()
	if err := q.flush(); err != nil {
		return false, err
	}
	return seg != nil || q.tail.journals.given() != before, nil
}

// seal makes the file of one draft. q.files is held.
func (q *Queue) seal(seg *segment) error {
	d := seg.where().draft
	_, cursors := q.ledger.picture(seg)
	cursor := func(name laneName) uint64 { return cursors[name] }
	sum, _, err := (&reader{content: d, number: d.number}).summarise(cursor)
	if err != nil {
		return err
	}
	if len(sum.Lanes) == 0 { // acknowledged meanwhile
		q.ledger.replace(seg, seg.where(), sum, 0)
		return nil
	}
	path, size, err := q.file(d, header{number: d.number, base: d.base}, d.at, cursor)
	if err != nil {
		return fmt.Errorf("seal segment %d: %w", seg.number, err)
	}
	if lost := q.ledger.replace(seg, &place{path: path}, sum, size); lost > 0 {
		q.log.Error("messages changed in memory and are lost", "file", path, "lost", lost)
	}
	q.ledger.release(d)
	d.release()
	return nil
}

// file makes the file of a segment from a content of about size bytes, without
// what lies in front of the cursors. q.files is held.
func (q *Queue) file(c content, h header, size int, cursor func(laneName) uint64) (path string, made int64, err error) {
	keep, err := wanted(c, cursor)
	if err != nil {
		return "", 0, err
	}
	h.format, h.stored = formatVersion, q.ledger.storedSoFar()
	b, err := q.binder.bind(c, h, size, keep)
	defer q.binder.release()
	if err != nil {
		return "", 0, err
	}
	if err := q.tail.room(int64(len(b))); err != nil {
		return "", 0, err
	}
	path = q.dir.sealed(h.number, digest(b))
	rest := b
	err = writeWhole(q.medium, q.dir.segment(h.number)+newSuffix, path, func() []byte {
		part := rest[:min(len(rest), 256<<10)]
		rest = rest[len(part):]
		return part
	})
	if err != nil {
		return "", 0, classify(err)
	}
	q.io.wrote(len(b))
	q.io.synced()
	q.io.synced()
	return path, int64(len(b)), nil
}

// oldestDraft returns the oldest draft that takes no more and that somebody
// needs.
func (g *ledger) oldestDraft() *segment {
	defer g.locked()()
	for _, seg := range g.segments {
		if seg.closed && seg.live > 0 && seg.where().draft != nil {
			return seg
		}
	}
	return nil
}

// frees says whether a flush would give something free.
func (g *ledger) frees() bool {
	defer g.locked()()
	return len(g.drained)+len(g.released) > 0
}

// release notes that a draft's journal is free when the catalog knows of the
// file that took its place.
func (g *ledger) release(d *draft) {
	defer g.locked()()
	g.released = append(g.released, d)
}

// taken counts bytes of journals, fewer if n is negative.
func (g *ledger) taken(n int64) {
	defer g.locked()()
	g.held += n
}
