package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// minSegment is the smallest size of a segment in bytes; a record takes at most
// a quarter of one.
const minSegment = 256 << 10

// group is a part of a batch that becomes one transaction.
type group struct {
	*batch
	records []pending
}

// bytes estimates how far the file may grow: every record with its key and
// element, and the pages on the way to the leaves of its lanes.
func (g group) bytes() int64 {
	n := int64(64 << 10)
	for i := range g.records {
		r := &g.records[i]
		n += int64(r.to-r.from)*5/4 + int64(r.entries)*80
	}
	return n
}

// empty says that there is nothing to write.
func (g group) empty() bool {
	return !slices.ContainsFunc(g.records, func(r pending) bool { return r.err == nil && r.entries > 0 })
}

// tail is the segment that records go to. What is written to the disk for a
// message happens here and nowhere else: a journal in front of the segments
// would take this place.
type tail struct {
	dir    *dir
	ledger *ledger
	shelf  *shelf
	io     *counters

	segmentBytes int64
	limit        int64 // bytes that segments may take
	minFree      int64 // bytes of the partition that stay free

	mu     sync.Mutex // held during a commit; taken before ledger.mu
	seg    *segment   // nil: none is open
	db     *bbolt.DB
	file   *os.File // bbolt's own
	ids    map[*lane]uint16
	filled int64 // bytes that exist on disk
	high   int64 // bytes that bbolt uses
	stuck  bool  // a panic left bbolt's lock held
	number uint64
	zeros  []byte
	refs   []byte // scratch for references
}

// errNoRoom is ErrFull before anything was written.
var errNoRoom = fmt.Errorf("%w: acknowledged messages will make room", ErrFull)

// append makes a group durable. After an error nothing of it counts as stored,
// and unless the error is errNoRoom the segment takes no more: what the kernel
// failed to write once it may pretend to have written later.
func (t *tail) append(g group) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	need := g.bytes()
	if t.seg != nil && (t.high+need > t.segmentBytes || len(t.ids)+len(g.entries) > maxLane) {
		t.trimLocked()
		t.sealLocked()
	}
	if t.seg == nil {
		if err := t.beginLocked(g.records[0].seq, need); err != nil {
			return err
		}
	}
	if err := t.reserveLocked(need); err != nil {
		return err
	}
	if err := t.commitLocked(g); err != nil {
		t.sealLocked()
		return err
	}
	t.io.records.Add(uint64(len(g.records)))
	t.ledger.committed(t.seg, g.records, g.entries, t.ids)
	return nil
}

// beginLocked makes a new segment. It gets its name when it is whole.
func (t *tail) beginLocked(base uint64, need int64) error {
	if err := t.roomLocked(t.chunk(need)); err != nil {
		return err
	}
	t.number++
	seg := &segment{number: t.number, path: t.dir.segment(t.number)}
	err := t.makeLocked(seg, base)
	if err == nil {
		err = os.Rename(seg.path+newSuffix, seg.path)
	}
	if err == nil {
		err = syncDir(t.dir.folder())
		t.io.synced()
	}
	if err != nil {
		if t.db != nil {
			err = errors.Join(err, t.db.Close())
		}
		t.db = nil
		return classify(fmt.Errorf("make segment: %w", errors.Join(err, remove(seg.path+newSuffix))))
	}
	t.seg, t.ids = seg, map[*lane]uint16{}
	seg.size = t.filled
	t.shelf.adopt(seg.number, t.db)
	t.ledger.begin(seg)
	return nil
}

func (t *tail) makeLocked(seg *segment, base uint64) (err error) {
	defer catch(&err)
	t.db, err = bbolt.Open(seg.path+newSuffix, fileMode, &bbolt.Options{
		Timeout: time.Second, PageSize: pageSize, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true,
		InitialMmapSize: int(t.segmentBytes), NoStatistics: true,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := os.OpenFile(name, flag|os.O_EXCL, mode)
			t.file = f
			return f, err
		},
	})
	if err != nil {
		t.db = nil
		return err
	}
	t.db.AllocSize = int(t.step())
	err = t.db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket(bucketRecords)
		if err != nil {
			return err
		}
		return b.Put(headerKey(), header{number: seg.number, base: base}.encode())
	})
	if err != nil {
		return err
	}
	t.filled, err = t.file.Seek(0, io.SeekEnd)
	return errors.Join(err, t.measureLocked())
}

// measureLocked notes how much of the file bbolt uses.
func (t *tail) measureLocked() error {
	return t.db.View(func(tx *bbolt.Tx) error { t.high = tx.Size(); return nil })
}

// step is the size in which room is prepared.
func (t *tail) step() int64 { return min(1<<20, max(64<<10, t.segmentBytes/32)) }

// chunk rounds what is needed up to whole steps.
func (t *tail) chunk(need int64) int64 { return (need + t.step() - 1) / t.step() * t.step() }

// roomLocked says whether n further bytes may be taken.
func (t *tail) roomLocked(n int64) error {
	held := t.ledger.bytesHeld()
	if held+n > t.limit {
		return fmt.Errorf("%w (%d of %d bytes used)", errNoRoom, held, t.limit)
	}
	free, _, err := t.dir.space()
	if err != nil {
		return err
	}
	if free-n < t.minFree {
		return fmt.Errorf("%w (%d bytes free on the partition, %d must stay free)", errNoRoom, free, t.minFree)
	}
	return nil
}

// reserveLocked writes zeros behind the pages in use, so that the commits to
// come overwrite blocks that exist: the file system then has nothing of its own
// to write, which saves a flush and some KiB for each of them. The next commit's
// flush makes the zeros durable.
func (t *tail) reserveLocked(need int64) error {
	t.filled = max(t.filled, t.high)
	if t.high+need <= t.filled {
		return nil
	}
	n := t.chunk(t.high + need - t.filled)
	if err := t.roomLocked(n); err != nil {
		return err
	}
	if t.zeros == nil {
		t.zeros = make([]byte, 64<<10)
	}
	for end := t.filled + n; t.filled < end; {
		wrote, err := t.file.WriteAt(t.zeros[:min(int64(len(t.zeros)), end-t.filled)], t.filled)
		t.filled += int64(wrote)
		t.io.wrote(wrote)
		if err != nil {
			return fmt.Errorf("%w: %w", errNoRoom, classify(err))
		}
	}
	t.ledger.grown(t.seg, t.filled)
	return nil
}

// commitLocked writes a group in one transaction.
func (t *tail) commitLocked(g group) (err error) {
	defer catch(&err)
	defer faults()()
	tx, err := t.db.Begin(true)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	t.stuck = true // until Rollback has come back
	defer func() {
		tx.Rollback() // does nothing after Commit
		t.stuck = false
	}()
	b := tx.Bucket(bucketRecords)
	b.FillPercent = 1 // sequences rise: a full page is never touched again
	if err := t.putLocked(b, g); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return classify(fmt.Errorf("commit: %w", err))
	}
	t.io.commit(tx)
	return t.measureLocked()
}

func (t *tail) putLocked(b *bbolt.Bucket, g group) error {
	var key [10]byte
	t.refs = t.refs[:0]
	for i := range g.records {
		r := &g.records[i]
		if r.err != nil {
			continue
		}
		body := uint16(0)
		for j, e := range g.entries[r.first : r.first+r.entries] {
			id, err := t.laneLocked(b, e.lane)
			if err != nil {
				return err
			}
			val := g.arena[r.from:r.to]
			if j == 0 {
				body = id
			} else {
				from := len(t.refs)
				v := value{kind: kindReference, stored: r.stored, ttl: e.ttl, clock: r.clock, lane: body}
				t.refs = v.append(t.refs, e.lane.seed, r.seq)
				val = t.refs[from:]
			}
			if err := b.Put(recordKey(key[:0], id, r.seq), val); err != nil {
				return err
			}
		}
	}
	return nil
}

// laneLocked returns the number of a lane in this segment, and names it there
// if it is new.
func (t *tail) laneLocked(b *bbolt.Bucket, l *lane) (uint16, error) {
	if id, ok := t.ids[l]; ok {
		return id, nil
	}
	id := uint16(len(t.ids) + 1)
	t.ids[l] = id
	return id, b.Put(laneKey(id), laneName{sink: l.sink.name, priority: l.priority}.encode(t.seg.number, id))
}

// finish ends the segment in good order.
func (t *tail) finish() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seg != nil {
		t.trimLocked()
		t.sealLocked()
	}
}

// abandon ends the segment if it is seg, which is damaged. stuck says that
// bbolt's lock on it is held for ever.
func (t *tail) abandon(seg *segment) (stuck bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seg != seg {
		return false
	}
	stuck = t.stuck
	t.sealLocked()
	return stuck
}

// trimLocked gives back the prepared room that a segment in good order did not
// need.
func (t *tail) trimLocked() {
	if t.high < t.filled && t.file.Truncate(t.high) == nil {
		t.ledger.grown(t.seg, t.high)
	}
}

func (t *tail) sealLocked() {
	seg, stuck := t.seg, t.stuck
	t.seg, t.db, t.file, t.ids, t.filled, t.high, t.stuck = nil, nil, nil, nil, 0, 0, false
	if stuck {
		t.shelf.drop(seg.number, true)
	} else {
		t.shelf.release(seg.number)
	}
	t.ledger.seal(seg)
}
