package state

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// idleConsumer is how long the server keeps a reader that has gone without saying so.
const idleConsumer = 30 * time.Second

// consumers reads streams in order. A gap or a lost heartbeat makes the reader begin again where it was.
type consumers struct{ js jetstream.JetStream }

// item is one stored message of a stream being read.
type item struct {
	jetstream.Msg
	seq     uint64
	stored  time.Time
	pending uint64 // matching messages after this one
}

// each calls fn for every matching message in order until ctx ends or fn fails. start is called when the reader stands,
// with the number of matching messages already there.
func (c *consumers) each(
	ctx context.Context, stream string, cfg jetstream.OrderedConsumerConfig, start func(pending uint64) error, fn func(item) error,
) error {
	cfg.InactiveThreshold = idleConsumer
	consumer, err := c.js.OrderedConsumer(ctx, stream, cfg)
	if err != nil {
		return fmt.Errorf("read %s: %w", stream, err)
	}
	defer c.forget(stream, consumer.CachedInfo().Name)
	if err := start(consumer.CachedInfo().NumPending); err != nil {
		return err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("read %s: %w", stream, err)
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("read %s: %w", stream, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read %s: %w", stream, err)
		}
		if err := fn(item{Msg: m, seq: meta.Sequence.Stream, stored: meta.Timestamp, pending: meta.NumPending}); err != nil {
			return err
		}
	}
}

// forget removes a reader at once instead of after idleConsumer. The reader may have been replaced or be gone: no matter.
func (c *consumers) forget(stream, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.js.DeleteConsumer(ctx, stream, name)
}

// errStop ends a read from inside.
var errStop = errors.New("stop reading")

// last is the newest sequence of a stream.
func (c *consumers) last(ctx context.Context, stream string) (uint64, error) {
	s, err := c.js.Stream(ctx, stream)
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", stream, err)
	}
	return s.CachedInfo().State.LastSeq, nil
}
