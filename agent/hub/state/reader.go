package state

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Entry is one event of the log with its place. Shard and Offset together are unique and never given twice.
type Entry struct {
	Event
	Shard    int
	Offset   uint64
	Enqueued time.Time
}

// Query says which events to read. The zero value is all events of shard 0.
type Query struct {
	Shard  int
	Device string      // empty: any
	Module string      // empty: any, the device's own included
	Kinds  []EventKind // empty: any
	From   uint64      // first offset; 0: by Since
	Since  time.Time   // first enqueued time; zero: the oldest there is
	Follow bool        // go on with new events; otherwise end with the newest at the start
}

// Read calls fn for the events in order. It returns nil at the end of a read that does not follow, the context's error,
// or what fn returned. idle is called once, when all that was there at the start has been read; it may be nil.
func (l *Log) Read(ctx context.Context, q Query, idle func(), fn func(Entry) error) error {
	if idle == nil {
		idle = func() {}
	}
	stream := l.names.logStream(q.Shard)
	last, err := l.readers.last(ctx, stream)
	if err != nil {
		return err
	}
	caught := false
	catchUp := func() error {
		caught = true
		idle()
		if q.Follow {
			return nil
		}
		return errStop
	}
	start := func(pending uint64) error {
		if pending == 0 {
			return catchUp()
		}
		return nil
	}
	err = l.readers.each(ctx, stream, l.consumer(q), start, func(m item) error {
		if !q.Follow && m.seq > last {
			return errStop
		}
		entry, err := newEntry(q.Shard, m)
		if err != nil {
			return err
		}
		if err := fn(entry); err != nil {
			return err
		}
		if !caught && (m.pending == 0 || m.seq >= last) {
			return catchUp()
		}
		return nil
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

func (l *Log) consumer(q Query) jetstream.OrderedConsumerConfig {
	device, module := "*", "*"
	if q.Device != "" {
		device = escape(q.Device)
	}
	if q.Module != "" {
		module = escape(q.Module)
	}
	var cfg jetstream.OrderedConsumerConfig
	if len(q.Kinds) == 0 {
		cfg.FilterSubjects = []string{l.names.logSubject(q.Shard, device, module, "*")}
	}
	for _, kind := range q.Kinds {
		cfg.FilterSubjects = append(cfg.FilterSubjects, l.names.logSubject(q.Shard, device, module, string(kind)))
	}
	switch {
	case q.From > 0:
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, q.From
	case !q.Since.IsZero():
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &q.Since
	default:
		// By sequence, so that a reader which must begin again before its first event misses none.
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, 1
	}
	return cfg
}

func newEntry(shard int, m item) (Entry, error) {
	parts := strings.Split(m.Subject(), ".")
	if len(parts) != 6 {
		return Entry{}, fmt.Errorf("read event %d of shard %d: subject %q", m.seq, shard, m.Subject())
	}
	device, err := unescape(parts[3])
	if err != nil {
		return Entry{}, fmt.Errorf("read event %d of shard %d: %w", m.seq, shard, err)
	}
	module := ""
	if parts[4] != noModule {
		if module, err = unescape(parts[4]); err != nil {
			return Entry{}, fmt.Errorf("read event %d of shard %d: %w", m.seq, shard, err)
		}
	}
	header := m.Headers()
	return Entry{
		Event: Event{
			Device:     device,
			Module:     module,
			Kind:       EventKind(parts[5]),
			Properties: header.Get(headerBag),
			Generation: header.Get(headerGeneration),
			Auth:       header.Get(headerAuth),
			Body:       m.Data(),
			ID:         header.Get("Nats-Msg-Id"),
		},
		Shard:    shard,
		Offset:   m.seq,
		Enqueued: m.stored.UTC(),
	}, nil
}
