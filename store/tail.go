package store

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// minSegment is the smallest size of a segment in bytes; a record takes at most
// a quarter of one.
const minSegment = 96 << 10

// badFor is how long no journal is begun after one that was new took nothing: a
// card that fails is not to be worn out by journals made for it.
const badFor = time.Second

// group is a part of a batch that becomes one commit.
type group struct {
	*batch
	records []pending
	notes   []note
}

// empty says that there is nothing to write.
func (g group) empty() bool {
	return !slices.ContainsFunc(g.records, func(r pending) bool { return r.err == nil && r.entries > 0 })
}

// tail is the draft that records go to. What is written to the disk before a
// message is acknowledged is written here and nowhere else: one write and one
// flush for each group.
type tail struct {
	dir      *dir
	ledger   *ledger
	journals *journals
	io       *counters

	segmentBytes int64
	limit        int64         // bytes that journals and segments may take
	minFree      int64         // bytes of the partition that stay free
	closed       chan struct{} // holds one token: a draft takes no more, or the next journal is wanted

	mu      sync.Mutex // held during a commit; taken before ledger.mu
	seg     *segment   // nil: none is open
	draft   *draft
	ids     map[*lane]uint16
	notes   []note // scratch
	asked   bool   // for the next journal
	number  uint64
	highest uint64    // sequence that was stored
	bad     time.Time // when a journal that was just begun took nothing
	badErr  error
}

// errNoRoom is ErrFull before anything was written.
var errNoRoom = fmt.Errorf("%w: acknowledged messages will make room", ErrFull)

// append makes a group durable. After an error nothing of it counts as stored,
// and unless the error is errNoRoom or errBusy the journal takes no more: what
// the kernel failed to write once it may pretend to have written later.
func (t *tail) append(g group) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seg != nil {
		first, last := g.records[0].seq, g.records[len(g.records)-1].seq
		if t.draft.at+t.draft.need(g, t.ids) > len(t.draft.buf) || len(t.ids)+len(g.entries) > maxLane ||
			last>>32 != t.draft.base>>32 || first < t.draft.base { // a key has the lower half of a sequence
			t.closeLocked()
		}
	}
	if t.seg == nil {
		if err := t.beginLocked(g.records[0].seq); err != nil {
			return err
		}
		if n := t.draft.need(g, t.ids); n > len(t.draft.buf) {
			return fmt.Errorf("%d bytes in a journal of %d: %w", n, len(t.draft.buf), ErrTooLarge)
		}
	}
	var err error
	if t.notes, err = t.ledger.notes(t.notes[:0]); err != nil {
		return err
	}
	g.notes = t.notes
	if t.draft.at+t.draft.need(g, t.ids) > len(t.draft.buf) || len(t.ids)+len(g.entries)+len(g.notes) > maxLane {
		t.ledger.unnote(g.notes) // another block takes them
		g.notes = nil
	}
	if err := t.writeLocked(g); err != nil {
		return err
	}
	t.io.records.Add(uint64(len(g.records)))
	t.highest = t.draft.last
	t.ledger.committed(t.seg, g.records, g.entries, t.ids)
	if !t.asked && t.draft.at > len(t.draft.buf)/100 {
		t.asked = true
		t.tell()
	}
	return nil
}

// writeLocked writes a group as the next block.
func (t *tail) writeLocked(g group) error {
	wrote, err := t.draft.append(g, t.ids, t.ledger.storedSoFar())
	if err != nil {
		err = classify(fmt.Errorf("write journal: %w", err))
		if t.draft.commit == 0 {
			t.bad, t.badErr = time.Now(), err
		}
		t.ledger.unnote(g.notes)
		t.journals.fail(t.draft.journal)
		t.closeLocked()
		return err
	}
	t.badErr = nil
	t.io.wrote(wrote)
	t.io.synced()
	t.io.commits.Add(1)
	return nil
}

// beginLocked begins a draft in a journal that is free.
func (t *tail) beginLocked(base uint64) error {
	if err := t.dir.sure(); err != nil {
		return readOnly(err)
	}
	if t.badErr != nil && time.Since(t.bad) < badFor {
		return t.badErr
	}
	j, err := t.journals.take(t.segmentBytes, t.most())
	if err != nil {
		return err
	}
	t.number++
	t.draft = newDraft(t.number, base, t.highest, j)
	t.seg = &segment{number: t.number}
	t.seg.place.Store(&place{draft: t.draft, path: j.path})
	t.ids, t.asked = map[*lane]uint16{}, false
	t.ledger.begin(t.seg)
	return nil
}

// most is how many journals there may be: small stores do with two.
func (t *tail) most() int {
	if t.limit < 16*t.segmentBytes {
		return 2
	}
	return maxJournals
}

// tell wakes the sealer.
func (t *tail) tell() {
	select {
	case t.closed <- struct{}{}:
	default:
	}
}

// room says whether n further bytes may be taken.
func (t *tail) room(n int64) error {
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

// finish closes the draft in good order. Its records stay in the journal until
// the sealer, of this process or the next, comes to them.
func (t *tail) finish() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seg == nil {
		return nil
	}
	err := t.draft.end(t.ledger.storedSoFar())
	t.closeLocked()
	return err
}

func (t *tail) closeLocked() {
	seg := t.seg
	t.seg, t.draft, t.ids = nil, nil, nil
	t.ledger.close(seg)
	t.tell()
}
