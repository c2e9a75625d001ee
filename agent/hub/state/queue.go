package state

import (
	"context"
	"errors"
	"sync"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/semaphore"
)

// ErrClosed is a write after the end of Run.
var ErrClosed = errors.New("state is closed")

// change is what must be stored together, and who wants to know. done is called once, from the committer.
type change struct {
	messages []*nats.Msg
	bytes    int
	done     func(last uint64, err error)
	// broken is set by the first failure of its owner: whatever the owner has queued behind it must fail too, or the
	// owner's events would be stored out of order. nil for changes without order.
	broken *error
}

// newChange sums up the messages.
func newChange(messages []*nats.Msg, done func(uint64, error)) *change {
	c := &change{messages: messages, done: done}
	for _, m := range messages {
		c.bytes += len(m.Data) + len(m.Subject) + queueOverhead
		for key, values := range m.Header {
			c.bytes += len(key)
			for _, v := range values {
				c.bytes += len(v)
			}
		}
	}
	return c
}

// queue holds the changes that wait for one stream, in order.
type queue struct {
	room *semaphore.Weighted // bytes
	wake chan struct{}       // capacity 1: a token says that there may be changes

	mu      sync.Mutex // guards the two below
	waiting []*change
	closed  bool
}

func newQueue() *queue {
	return &queue{room: semaphore.NewWeighted(queueBytes), wake: make(chan struct{}, 1)}
}

// weight is what a change takes of the room. One larger than the queue takes all of it.
func (c *change) weight() int64 { return int64(min(c.bytes, queueBytes)) }

// add queues a change, waiting for room.
func (q *queue) add(ctx context.Context, c *change) error {
	if err := q.room.Acquire(ctx, c.weight()); err != nil {
		return err
	}
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		q.room.Release(c.weight())
		return ErrClosed
	}
	q.waiting = append(q.waiting, c)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return nil
}

// take removes what goes into the next commit, oldest first: up to the batch limits, and never one subject twice when
// unique is set, because a compare-and-set reads the stream as it was before the batch.
func (q *queue) take(unique bool) []*change {
	q.mu.Lock()
	defer q.mu.Unlock()
	var (
		taken    []*change
		messages int
		bytes    int
		used     = map[string]bool{}
		kept     = q.waiting[:0]
	)
	for i, c := range q.waiting {
		full := len(taken) > 0 && (messages+len(c.messages) > batchMessages || bytes+c.bytes > batchBytes)
		if full {
			kept = append(kept, q.waiting[i:]...)
			break
		}
		if unique && overlaps(used, c) {
			kept = append(kept, c)
			continue
		}
		taken = append(taken, c)
		messages += len(c.messages)
		bytes += c.bytes
	}
	clear(q.waiting[len(kept):])
	q.waiting = kept
	return taken
}

// overlaps says whether a change touches a subject already used, and marks its own: a change that is held back holds
// back the later ones of the same subject too.
func overlaps(used map[string]bool, c *change) bool {
	overlap := false
	for _, m := range c.messages {
		if used[m.Subject] {
			overlap = true
		}
		used[m.Subject] = true
	}
	return overlap
}

// close refuses further changes; what waits is still taken.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
}
