package store

import (
	"context"
	"errors"
	"runtime"
)

const (
	// groupRecords and groupBytes bound one transaction: more would not make
	// flushes cheaper, and producers would wait longer.
	groupRecords = 256
	groupBytes   = 512 << 10
)

// commitAll is the committer: it takes what is waiting, however little, and
// commits it. There is no timer: while one flush runs the next batch gathers. It
// returns when ctx has ended and everything that was handed over is on disk.
func (q *Queue) commitAll(ctx context.Context) {
	for {
		if b := q.inbox.take(); b != nil {
			q.commit(b)
			q.inbox.giveBack(b)
			q.gather()
			continue
		}
		select {
		case <-q.inbox.wake:
		case <-ctx.Done():
			q.inbox.close()
			if b := q.inbox.take(); b != nil {
				q.commit(b)
			}
			return
		}
	}
}

// gather lets those who were just told hand over what they have next, as long as
// more of it comes: one flush then does for all, where it would do for the
// quickest. It never sleeps.
func (q *Queue) gather() {
	for before, tries := -1, 0; tries < 4; tries++ {
		runtime.Gosched()
		now := q.inbox.waiting()
		if now == before {
			return
		}
		before = now
	}
}

// commit stores a batch, group by group, and calls the producers back.
func (q *Queue) commit(b *batch) {
	most := int(min(groupBytes, q.tail.segmentBytes/4))
	for rest := b.records; len(rest) > 0; {
		n, bytes := 0, 0
		for n < len(rest) && n < groupRecords && (n == 0 || bytes < most) {
			bytes += rest[n].to - rest[n].from
			n++
		}
		g := group{batch: b, records: rest[:n]}
		rest = rest[n:]
		err := q.store(g)
		for i := range g.records {
			if r := &g.records[i]; r.err == nil && r.entries > 0 {
				r.err = err
			}
		}
		q.inbox.sources.count(g.records)
		for i := range g.records {
			r := &g.records[i]
			if r.done != nil {
				r.done(r.err)
			}
		}
	}
}

// store makes a group durable. One failure is not the end: room may be made, and
// a file that failed is left for a new one.
func (q *Queue) store(g group) error {
	if g.empty() {
		return nil
	}
	err := q.append(g)
	switch {
	case err == nil:
	case errors.Is(err, ErrFull):
		if q.reclaim() {
			err = q.append(g)
		}
	default:
		failed := err
		if err = q.append(g); err == nil {
			q.log.Error("journal took no more messages; going on in another", "err", failed)
		}
	}
	q.report(err)
	return err
}

// append makes a group durable in the tail. When every journal is full it lends
// the sealer a hand, and so waits for it.
func (q *Queue) append(g group) error {
	err := q.tail.append(g)
	for tries := 0; errors.Is(err, errBusy) && tries < 2*maxJournals; tries++ {
		if _, serr := q.sealOldest(); serr != nil {
			return serr
		}
		if tries > 0 { // somebody else is at it: wait until that is over
			if serr := q.flush(); serr != nil {
				return serr
			}
		}
		err = q.tail.append(g)
	}
	return err
}

// reclaim makes room without losing anything: what is out of time or drained
// goes, the tail included.
func (q *Queue) reclaim() bool {
	now, _ := q.clock.now()
	before, gifts := q.ledger.bytesHeld(), q.tail.journals.given()
	q.ledger.expire(now)
	if q.ledger.tailDrained() {
		if err := q.tail.finish(); err != nil {
			q.log.Debug("journal has no end", "err", err)
		}
	}
	if err := q.flush(); err != nil {
		q.log.Error("cursors cannot be written", "err", err)
		return false
	}
	_, err := q.sealOldest()
	if err == nil || q.ledger.bytesHeld() < before || q.tail.journals.given() != gifts {
		return true
	}
	thinned, err := q.thin()
	if err != nil {
		q.log.Debug("no segment is written anew", "err", err)
	}
	return thinned
}

// report logs when the queue begins to refuse messages, and when it ends that.
func (q *Queue) report(err error) {
	now := int32(taking)
	switch {
	case errors.Is(err, errNoRoom):
		now = full
	case errors.Is(err, ErrFull):
		now = diskFull
	case err != nil:
		now = failing
	}
	before := q.mood.Swap(now)
	switch {
	case now == before:
	case now == full, now == diskFull:
		q.log.Warn("queue is full: producers are refused until messages are delivered or expire",
			"held", q.ledger.bytesHeld(), "limit", q.tail.limit, "err", err)
	case now == failing:
		q.log.Error("messages cannot be stored: producers are refused", "err", err)
	default:
		q.log.Info("queue takes messages again", "held", q.ledger.bytesHeld(), "limit", q.tail.limit)
	}
}

// refuses says whether the next message meets a full queue: the last one did, and neither is there room for another journal now nor has all
// that waited been delivered, which makes some. pending is how many bytes still wait.
func (q *Queue) refuses(pending int64) bool {
	mood := q.mood.Load()
	return mood == diskFull || mood == full && pending > 0 && q.tail.room(q.tail.segmentBytes) != nil
}

// What became of the last group, in Queue.mood.
const (
	taking   = iota
	full     // by what may be held, or has to stay free
	diskFull // a write said so, which may be for a quota that no count of ours knows
	failing
)
