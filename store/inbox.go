package store

import (
	"context"
	"sync"
)

const (
	// waitingRecords and waitingBytes are what may wait for the committer
	// before producers have to wait as well.
	waitingRecords = 4096
	waitingBytes   = 1 << 20
	// keepArena is the largest buffer that is kept for the next batch.
	keepArena = 256 << 10
)

// pending is a record that waits for the committer. Its encoded body is in the
// arena of its batch.
type pending struct {
	seq      uint64
	stored   int64 // wall clock, ms
	clock    int64 // powered-on ms
	from, to int   // in batch.arena
	size     int   // of the body
	first    int   // in batch.entries
	entries  int   // how many of them
	err      error // it is refused
	source   *SourceStats
	done     func(error)
}

// entry is one lane of a pending record.
type entry struct {
	lane *lane
	ttl  int64 // ms
}

// batch is what has come in since the committer last looked. Producers encode
// into one while the committer writes the other.
type batch struct {
	arena   []byte
	records []pending
	entries []entry
}

func (b *batch) full() bool {
	return len(b.records) >= waitingRecords || len(b.arena) >= waitingBytes
}

func (b *batch) reset() {
	clear(b.records) // lets go of the callbacks
	clear(b.entries)
	b.records, b.entries, b.arena = b.records[:0], b.entries[:0], b.arena[:0]
	if cap(b.arena) > keepArena {
		b.arena = nil
	}
}

// inbox is where producers leave records. Sequences are given here, so that the
// order of arrival is the order of delivery.
type inbox struct {
	wake    chan struct{} // holds one token: something has come, or it was closed
	sources sources

	mu     sync.Mutex
	next   uint64 // sequence
	batch  *batch
	spare  *batch
	room   chan struct{} // closed when the batch was taken, if somebody waits
	closed bool
}

func newInbox(next uint64) *inbox {
	return &inbox{wake: make(chan struct{}, 1), next: next, batch: &batch{}, spare: &batch{}}
}

// add leaves a record. It copies the body. It waits while too much is waiting,
// unless ctx ends; then, and when the inbox is closed, done is not called.
func (b *inbox) add(ctx context.Context, clock *clock, ledger *ledger, rec Record, done func(error)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.batch.full() && !b.closed {
		if err := b.waitLocked(ctx); err != nil {
			return err
		}
	}
	if b.closed {
		return ErrClosed
	}
	powered, wall := clock.now()
	t := b.batch
	p := pending{
		seq: b.next, stored: max(0, wall.UnixMilli()), clock: powered,
		size: len(rec.Body), from: len(t.arena), first: len(t.entries), done: done,
	}
	b.next++
	source := rec.Source
	if len(source) > MaxKey {
		source = ""
	}
	p.source = b.sources.of(source)
	if p.err = rec.check(); p.err == nil {
		t.entries = ledger.resolve(t.entries, rec.Entries)
		if p.entries = len(t.entries) - p.first; p.entries > 0 {
			e := t.entries[p.first]
			v := value{kind: kindBody, stored: p.stored, ttl: e.ttl, clock: p.clock, body: rec.Body}
			t.arena = v.append(t.arena, e.lane.seed, p.seq)
		}
	}
	p.to = len(t.arena)
	t.records = append(t.records, p)
	b.signal()
	return nil
}

// waitLocked waits until the batch was taken, with the lock given up.
func (b *inbox) waitLocked(ctx context.Context) error {
	if b.room == nil {
		b.room = make(chan struct{})
	}
	room := b.room
	b.mu.Unlock()
	defer b.mu.Lock()
	select {
	case <-room:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *inbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take returns what has come, or nil. The batch must be given back.
func (b *inbox) take() *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.batch.records) == 0 {
		return nil
	}
	t := b.batch
	b.batch, b.spare = b.spare, nil
	if b.batch == nil {
		b.batch = &batch{}
	}
	b.letInLocked()
	return t
}

func (b *inbox) giveBack(t *batch) {
	t.reset()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spare = t
}

// close refuses further records; what has come can still be taken.
func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.letInLocked()
	b.signal()
}

func (b *inbox) letInLocked() {
	if b.room != nil {
		close(b.room)
		b.room = nil
	}
}

func (b *inbox) waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.batch.records)
}
