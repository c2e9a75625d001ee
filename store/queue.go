package store

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// MaxBody is the size of the largest message body in bytes.
const MaxBody = 512 << 10

// Entry is one place where a record must go.
type Entry struct {
	Sink     string        // any name up to 1024 bytes; it means nothing here
	Priority uint8         // 0, the highest, to [Lowest]
	TTL      time.Duration // of time switched on; 0 = never expires
}

// Record is a message body and every place where it must go. The body is stored
// once. A sink that is named twice at one priority gets one copy.
type Record struct {
	Body    []byte
	Entries []Entry
	Source  string // who made it, for [Queue.Sources]; any name up to 1024 bytes, not written to disk
}

// check says what makes a record unacceptable.
func (r Record) check() error {
	if len(r.Body) > MaxBody {
		return fmt.Errorf("message of %d bytes, at most %d: %w", len(r.Body), MaxBody, ErrTooLarge)
	}
	if len(r.Source) > MaxKey {
		return fmt.Errorf("source name of %d bytes: it must have at most %d", len(r.Source), MaxKey)
	}
	for _, e := range r.Entries {
		if e.Priority > Lowest {
			return fmt.Errorf("priority %d of sink %q: the lowest is %d", e.Priority, e.Sink, Lowest)
		}
		if e.TTL < 0 {
			return fmt.Errorf("time to live %s of sink %q: it must not be negative", e.TTL, e.Sink)
		}
		if e.Sink == "" || len(e.Sink) > MaxKey {
			return fmt.Errorf("sink name of %d bytes: it must have 1 to %d", len(e.Sink), MaxKey)
		}
	}
	return nil
}

// Item is a record as one sink receives it.
type Item struct {
	Seq      uint64 // rises in the order of acceptance; unique in the store
	Sink     string
	Priority uint8
	Stored   time.Time // wall clock when it was accepted: to be shown, not computed with
	Body     []byte    // owned by the caller
}

// Queue is the durable way of messages to their sinks. All methods may be
// called at the same time from anywhere.
type Queue struct {
	dir    *dir
	state  *state
	ledger *ledger
	shelf  *shelf
	tail   *tail
	inbox  *inbox
	clock  *clock
	log    *slog.Logger
	io     *counters
	keeper *keeper
	closed chan struct{} // closed when the store closes

	mood    atomic.Int32 // taking, full, diskFull, failing
	waiters sync.Pool
	files   sync.Mutex // held by the one that makes, replaces or unlinks segments; taken after sink.turn and keeper.flushing
	binder  binder     // guarded by files
	medium  medium
}

// Enqueue hands a record over and returns; it waits only while a megabyte, or
// 4096 records, are ahead of the disk. The body is copied: it may be reused at
// once.
//
// done is called once, by the committer, in the order of the calls: with nil
// when the record is on disk, else with the reason why it is not stored
// ([ErrFull], [ErrReadOnly], [ErrTooLarge]…). It holds up everybody's messages
// and must be quick; it must not call Enqueue or Append. After [Store.Close],
// done is called with ErrClosed before Enqueue returns. A record with no entries
// has nowhere to go and is done in its turn. done may be nil.
func (q *Queue) Enqueue(rec Record, done func(error)) {
	//nolint:contextcheck // Enqueue has no context by design: it ends with Close.
	if err := q.inbox.add(context.Background(), q.clock, q.ledger, rec, done); err != nil && done != nil {
		done(err)
	}
}

// Append is Enqueue for those who wait: it returns nil when every record is on
// disk. After another result some may be. When ctx ends first, Append returns
// its error and the records may still be stored. Before [Store.Run] runs, Append
// waits for it.
func (q *Queue) Append(ctx context.Context, recs ...Record) error {
	if len(recs) == 0 {
		return nil
	}
	w := q.waiter(len(recs))
	for i := range recs {
		if err := q.inbox.add(ctx, q.clock, q.ledger, recs[i], w.fn); err != nil {
			return fmt.Errorf("append: %w", err) // the waiter is left to those on their way
		}
	}
	select {
	case err := <-w.done:
		q.waiters.Put(w)
		return err
	case <-ctx.Done():
		return fmt.Errorf("append: %w", ctx.Err())
	}
}

// waiter collects the results of one Append. Only the committer touches left
// and err, until it sends.
type waiter struct {
	left int
	err  error
	done chan error // capacity 1: the committer never waits
	fn   func(error)
}

func (q *Queue) waiter(n int) *waiter {
	w, ok := q.waiters.Get().(*waiter)
	if !ok {
		w = &waiter{done: make(chan error, 1)}
		w.fn = func(err error) {
			if w.err == nil {
				w.err = err
			}
			if w.left--; w.left == 0 {
				w.done <- w.err
			}
		}
	}
	w.left, w.err = n, nil
	return w
}

// Ack says that items are delivered and need not be kept. Any order is allowed;
// items that are not known, or already acknowledged, are ignored. It is
// remembered on disk with the next message that is stored in any lane, at the
// latest after 512 acknowledgements or two seconds, and at Close: a crash before
// that delivers items again and loses none.
func (q *Queue) Ack(sink string, items ...Item) error {
	select {
	case <-q.closed:
		return ErrClosed
	default:
	}
	dirty, due := q.ledger.acknowledge(sink, items)
	q.keeper.tell(dirty, due)
	return nil
}

// Ready returns the channel of a sink, always the same one. It holds a token
// when something may have come since the last token was received, and from the
// start if the sink has messages. So a reader that peeks until there is nothing
// more, and then receives, misses nothing; it may wake up for nothing. A token
// wakes one reader: a sink is meant to have one.
func (q *Queue) Ready(sink string) <-chan struct{} { return q.ledger.sink(sink).ready }

// Purge drops everything that a sink has not acknowledged, also what was handed
// out, and returns how many messages that were. It is durable when Purge
// returns nil.
func (q *Queue) Purge(ctx context.Context, sink string) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("purge %q: %w", sink, err)
	}
	select {
	case <-q.closed:
		return 0, ErrClosed
	default:
	}
	n := q.ledger.purge(sink)
	if err := q.flush(); err != nil {
		return int(n), fmt.Errorf("purge %q: %w", sink, err)
	}
	return int(n), nil
}

// SinkStats is one lane in numbers. The counts of what was dropped survive a
// restart.
type SinkStats struct {
	Sink     string
	Priority uint8
	Messages int64     // not acknowledged
	Bytes    int64     // of their bodies
	Oldest   time.Time // wall clock when the first of them was accepted; about that after acknowledgements out of order
	Expired  uint64    // dropped because their time to live was over
	Damaged  uint64    // that the disk did not keep
	Purged   uint64    // dropped by [Queue.Purge]
}

// Stats returns every lane that has or had messages, by sink and priority.
func (q *Queue) Stats() []SinkStats { return q.ledger.stats() }
