package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

const (
	// flushAcks and flushAfter say when acknowledgements are written for which no
	// commit has come by: what a crash costs is that many messages delivered again.
	flushAcks  = 512
	flushAfter = 2 * time.Second
	// expireEvery is how often whole segments are checked for messages out of
	// time; single ones are found when they are read.
	expireEvery = time.Minute
	// clockEvery is how often the powered-on clock is written while messages
	// with a time to live wait and nothing else is: that much they may outlive
	// it for each start.
	clockEvery = 10 * time.Minute
)

// keeper is what the keeper's goroutine listens to.
type keeper struct {
	dirty chan struct{} // holds one token: there is something to flush within flushAfter
	due   chan struct{} // holds one token: flush now

	flushing sync.Mutex // held by the one that flushes
}

func newKeeper() *keeper {
	return &keeper{dirty: make(chan struct{}, 1), due: make(chan struct{}, 1)}
}

// tell passes on what the ledger said of itself.
func (k *keeper) tell(dirty, due bool) {
	signal := k.dirty
	switch {
	case due:
		signal = k.due
	case !dirty:
		return
	}
	select {
	case signal <- struct{}{}:
	default:
	}
}

// keep is the keeper: it flushes cursors, the catalog and the clock, unlinks
// drained segments and looks for expired ones, until ctx ends.
func (q *Queue) keep(ctx context.Context) {
	expire := time.NewTicker(expireEvery)
	defer expire.Stop()
	saved, _ := q.clock.now()
	failing := false
	var soon <-chan time.Time
	for {
		save := q.note
		select {
		case <-ctx.Done():
			return
		case <-q.keeper.dirty:
			if soon == nil {
				soon = time.After(flushAfter)
			}
			continue
		case <-q.keeper.due:
		case <-soon:
			if since, ok := q.ledger.waiting(); !ok {
				soon = nil // commits of the queue took them along
				continue
			} else if left := flushAfter - time.Since(since); left > 0 {
				soon = time.After(left)
				continue
			}
		case <-expire.C:
			now, _ := q.clock.now()
			if _, err := q.thin(); err != nil {
				q.log.Debug("no segment is written anew", "err", err)
			}
			if !q.ledger.expire(now) && now-saved < clockEvery.Milliseconds() {
				continue
			}
			saved = now
			save = q.save
		}
		soon = nil
		err := save()
		if err != nil {
			soon = time.After(flushAfter)
			if !failing {
				q.log.Error("cursors cannot be written: messages are delivered again after a restart", "err", err)
			}
		}
		failing = err != nil
	}
}

// flush is everything that state.db must learn.
type flush struct {
	lanes     []*lane
	positions []position
	sealed    map[*segment]*summary
	drained   []*segment
	released  []*draft
	settled   int
	seq       uint64 // the highest that is known
	balance   balance
}

// empty says that state.db knows it all.
func (f flush) empty() bool {
	return len(f.lanes) == 0 && len(f.sealed) == 0 && len(f.drained) == 0 && len(f.released) == 0
}

// flush makes positions and catalog durable, if they changed, and then unlinks
// what is drained.
func (q *Queue) flush() error {
	q.keeper.flushing.Lock()
	defer q.keeper.flushing.Unlock()
	if f := q.ledger.collect(); !f.empty() {
		return q.write(f)
	}
	return nil
}

// save is flush, also if only the clock has moved and somebody's time runs.
func (q *Queue) save() error {
	q.keeper.flushing.Lock()
	defer q.keeper.flushing.Unlock()
	if f := q.ledger.collect(); !f.empty() || q.ledger.clockRuns() {
		return q.write(f)
	}
	return nil
}

// write makes what was collected durable, and takes positions that cannot be read
// out of state.db.
func (q *Queue) write(f flush, damaged ...[]byte) error {
	if err := q.dir.sure(); err != nil {
		q.ledger.putBack(f)
		return readOnly(err)
	}
	now, _ := q.clock.now()
	err := q.state.do(func(tx *bbolt.Tx) error {
		for _, key := range damaged {
			if err := tx.Bucket(bucketCursors).Delete(key); err != nil {
				return err
			}
		}
		return f.write(tx, now)
	})
	for _, d := range f.released { // if state.db takes nothing the file still says what it is
		q.tail.journals.give(d.journal)
	}
	if err != nil {
		f.released = nil
		q.ledger.putBack(f)
		return fmt.Errorf("write cursors: %w", err)
	}
	return q.discard(f.drained)
}

// discard gives up segments that nobody needs: state.db no longer lists them. A
// file is unlinked, a draft's journal is free.
func (q *Queue) discard(segments []*segment) error {
	if len(segments) == 0 {
		return nil
	}
	q.files.Lock() // one of them may be getting its file
	defer q.files.Unlock()
	var failed error
	removed := false
	for i, seg := range segments {
		q.shelf.drop(seg.number)
		if at := seg.where(); at.draft != nil {
			q.tail.journals.give(at.draft.journal)
			at.draft.release()
		} else if err := q.medium.remove(at.path); err != nil {
			q.ledger.putBack(flush{drained: segments[i : i+1]})
			failed = errors.Join(failed, fmt.Errorf("remove drained segment: %w", err))
			continue
		} else {
			removed = true
		}
		q.ledger.forget(seg)
	}
	if !removed {
		return readOnly(failed)
	}
	q.io.synced()
	return readOnly(errors.Join(failed, q.medium.syncDir(q.dir.folder())))
}

func (f flush) write(tx *bbolt.Tx, now int64) error {
	cursors, catalog := tx.Bucket(bucketCursors), tx.Bucket(bucketCatalog)
	for i, l := range f.lanes {
		b, err := f.positions[i].encode()
		if err != nil {
			return err
		}
		key := laneName{sink: l.sink.name, priority: l.priority}.cursorKey()
		if err := cursors.Put(key, sealed(key, b)); err != nil {
			return err
		}
	}
	for seg, sum := range f.sealed {
		b, err := sum.encode()
		if err != nil {
			return err
		}
		key := binary.BigEndian.AppendUint64(nil, seg.number)
		if err := catalog.Put(key, sealed(key, b)); err != nil {
			return err
		}
	}
	for _, seg := range f.drained {
		if err := catalog.Delete(binary.BigEndian.AppendUint64(nil, seg.number)); err != nil {
			return err
		}
	}
	return errors.Join(putNumber(tx, keySeq, f.seq), f.balance.put(tx), putNumber(tx, keyClock, uint64(now)))
}

// putNumber and number write and read what state.db knows of the whole queue.
func putNumber(tx *bbolt.Tx, key []byte, n uint64) error {
	return tx.Bucket(bucketMeta).Put(key, sealed(key, binary.BigEndian.AppendUint64(nil, n)))
}

func number(tx *bbolt.Tx, key []byte) uint64 {
	b, ok := opened(key, tx.Bucket(bucketMeta).Get(key))
	if !ok || len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

func (n laneName) cursorKey() []byte { return append([]byte{n.priority}, n.sink...) }

// kept is what state.db knows of the queue.
type kept struct {
	clock     int64
	seq       uint64
	balance   balance
	certain   bool // the balance was there
	stale     bool // a page is of an older transaction than the file: the disk did not keep it
	positions map[laneName]position
	catalog   map[uint64]summary
	damaged   [][]byte // keys of positions that were left out
	lacks     int      // entries of the catalog that were left out
}

// kept reads what flush wrote. An entry that is damaged is left out: its lane
// starts at its oldest message, its segment is read instead.
func (s *state) kept() (kept, error) {
	k := kept{positions: map[laneName]position{}, catalog: map[uint64]summary{}}
	err := s.read(func(tx *bbolt.Tx) error {
		k.clock, k.seq = int64(number(tx, keyClock)), number(tx, keySeq)
		k.balance = balance{stored: number(tx, keyStored), gone: number(tx, keyGone)}
		k.stale = s.stale || number(tx, keyTx) != uint64(tx.ID())
		k.certain = tx.Bucket(bucketMeta).Get(keyStored) != nil && tx.Bucket(bucketMeta).Get(keyGone) != nil
		cursors := tx.Bucket(bucketCursors).Cursor()
		for key, v := cursors.First(); key != nil; key, v = cursors.Next() {
			b, ok := opened(key, v)
			p, parsed := parsePosition(b)
			if !ok || !parsed || len(key) < 2 || key[0] > Lowest {
				k.damaged = append(k.damaged, bytes.Clone(key))
				continue
			}
			k.positions[laneName{sink: string(key[1:]), priority: key[0]}] = p
		}
		catalog := tx.Bucket(bucketCatalog).Cursor()
		for key, v := catalog.First(); key != nil; key, v = catalog.Next() {
			b, ok := opened(key, v)
			sum, parsed := parseSummary(bytes.Clone(b))
			if !ok || !parsed || len(key) != 8 {
				k.lacks++
				continue
			}
			k.catalog[binary.BigEndian.Uint64(key)] = sum
		}
		return nil
	})
	return k, err
}

// collect takes what state.db must learn.
func (g *ledger) collect() flush {
	defer g.locked()()
	f := flush{
		lanes: g.dirty, sealed: g.news, drained: g.drained, released: g.released, settled: g.settled,
		seq: g.highestLocked(), balance: g.balance,
	}
	for _, l := range f.lanes {
		l.dirty, l.unnoted = false, false
		f.positions = append(f.positions, l.position())
	}
	g.unnoted = nil // they are dirty too
	g.dirty, g.news, g.drained, g.released, g.settled = nil, map[*segment]*summary{}, nil, nil, 0
	return f
}

// putBack undoes a collect whose flush failed.
func (g *ledger) putBack(f flush) {
	defer g.locked()()
	for _, l := range f.lanes {
		g.dirtyLocked(l)
	}
	for seg, sum := range f.sealed {
		if seg.live > 0 && g.news[seg] == nil {
			g.news[seg] = sum
		}
	}
	g.drained = append(g.drained, f.drained...)
	g.released = append(g.released, f.released...)
	g.settled += f.settled
}

// clockRuns says whether there may be messages whose time runs.
func (g *ledger) clockRuns() bool {
	defer g.locked()()
	return g.timed && len(g.segments) > 0
}

// forget removes a segment that is gone from disk.
func (g *ledger) forget(seg *segment) {
	defer g.locked()()
	g.held -= seg.size
	for i, s := range g.segments {
		if s == seg {
			g.segments = append(g.segments[:i], g.segments[i+1:]...)
			return
		}
	}
}
