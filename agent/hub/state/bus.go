package state

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/semaphore"
)

// busAnswers bounds the questions one served topic works on at once.
const busAnswers = 1024

// ErrNobody is a question that nobody serves. It comes at once, not after a timeout.
var ErrNobody = errors.New("nobody serves this topic")

// Bus carries questions between hub processes.
type Bus struct {
	conn  *nats.Conn
	names names
}

// Ask sends a question and waits for the answer or the context.
func (b *Bus) Ask(ctx context.Context, topic string, question []byte) ([]byte, error) {
	reply, err := b.conn.RequestWithContext(ctx, b.names.busSubject(topic), question)
	if errors.Is(err, nats.ErrNoResponders) {
		return nil, fmt.Errorf("ask %s: %w", topic, ErrNobody)
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", topic, err)
	}
	return reply.Data, nil
}

// Serve answers the questions of a topic, each in a goroutine of its own, until ctx ends.
func (b *Bus) Serve(ctx context.Context, topic string, answer func(ctx context.Context, question []byte) []byte) error {
	questions := make(chan *nats.Msg, busAnswers)
	sub, err := b.conn.ChanSubscribe(b.names.busSubject(topic), questions)
	if err != nil {
		return fmt.Errorf("serve %s: %w", topic, err)
	}
	if err := b.flush(ctx); err != nil {
		return fmt.Errorf("serve %s: %w", topic, errors.Join(err, sub.Unsubscribe()))
	}
	places := semaphore.NewWeighted(busAnswers)
	for {
		select {
		case <-ctx.Done():
			err := sub.Unsubscribe()
			// All places at once: every answer under way has ended. ctx is over, so this wait has none.
			_ = places.Acquire(context.WithoutCancel(ctx), busAnswers)
			return errors.Join(ctx.Err(), err)
		case q := <-questions:
			if places.Acquire(ctx, 1) != nil {
				continue
			}
			go func() {
				defer places.Release(1)
				_ = q.Respond(answer(ctx, q.Data)) // a connection that is gone has nobody to tell
			}()
		}
	}
}

// flush waits until the server knows of the subscription. The client library wants a deadline for that.
func (b *Bus) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	return b.conn.FlushWithContext(ctx)
}
