package state

import (
	"context"

	"github.com/nats-io/nats.go"
)

// committer writes the changes of one stream in the order they came. It never waits for more: whatever has queued
// while the last commit was on its way to the disk is the next one.
type committer struct {
	wire    *wire
	queue   *queue
	unique  bool         // at most one change of a subject in a batch
	batches bool         // the stream takes batches
	check   func() error // refuses writes while the disk is full
}

// run commits until ctx ends, then what is still waiting, and closes the queue.
func (c *committer) run(ctx context.Context) {
	for {
		select {
		case <-c.queue.wake:
			c.drain()
		case <-ctx.Done():
			c.queue.close()
			c.drain()
			return
		}
	}
}

func (c *committer) drain() {
	for {
		changes := c.queue.take(c.unique)
		if len(changes) == 0 {
			return
		}
		c.commit(changes)
	}
}

// commit stores changes and tells their owners. Its context is its own: a commit under way at the end of Run is
// finished, within the bounds of the wire's attempts.
func (c *committer) commit(changes []*change) {
	if err := c.check(); err != nil {
		for _, ch := range changes {
			c.tell(ch, 0, err)
		}
		return
	}
	ctx := context.Background()
	changes = c.dropBroken(changes)
	if c.batches && len(changes) > 1 && count(changes) >= batchBreakEven {
		last, err := c.wire.batch(ctx, together(changes))
		if !hasCode(err, codeWrongSequence, codeWrongConstant) {
			c.tellAll(changes, last, err)
			return
		}
		// One of them lost its compare-and-set and nothing is stored. Alone, each learns its own answer.
	}
	for _, ch := range changes {
		if ch.broken != nil && *ch.broken != nil {
			c.tell(ch, 0, *ch.broken)
			continue
		}
		last, err := c.alone(ctx, ch)
		c.tell(ch, last, err)
	}
}

func (c *committer) alone(ctx context.Context, ch *change) (uint64, error) {
	if len(ch.messages) == 1 {
		return c.wire.single(ctx, plain(ch.messages[0]))
	}
	if !c.batches {
		return 0, ErrNoBatches
	}
	return c.wire.batch(ctx, ch.messages)
}

// dropBroken fails the changes whose owner has failed before.
func (c *committer) dropBroken(changes []*change) []*change {
	kept := changes[:0]
	for _, ch := range changes {
		if ch.broken != nil && *ch.broken != nil {
			c.tell(ch, 0, *ch.broken)
			continue
		}
		kept = append(kept, ch)
	}
	return kept
}

// tellAll hands each change of a batch the sequence of its own last message; 0 when it is not known.
func (c *committer) tellAll(changes []*change, last uint64, err error) {
	left := uint64(count(changes))
	for _, ch := range changes {
		left -= uint64(len(ch.messages))
		own := uint64(0)
		if err == nil && last != 0 {
			own = last - left
		}
		c.tell(ch, own, err)
	}
}

func (c *committer) tell(ch *change, last uint64, err error) {
	c.queue.room.Release(ch.weight())
	if err != nil && ch.broken != nil && *ch.broken == nil {
		*ch.broken = err
	}
	ch.done(last, err)
}

func count(changes []*change) int {
	n := 0
	for _, ch := range changes {
		n += len(ch.messages)
	}
	return n
}

func together(changes []*change) []*nats.Msg {
	all := make([]*nats.Msg, 0, count(changes))
	for _, ch := range changes {
		all = append(all, ch.messages...)
	}
	return all
}
