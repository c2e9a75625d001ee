package state

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
)

// EventKind is what an event tells. The values are part of the stored format.
type EventKind string

// Kinds of events.
const (
	EventTelemetry  EventKind = "t"
	EventWill       EventKind = "w"  // telemetry left behind by a client that vanished
	EventTwin       EventKind = "tw" // a twin changed; the body is the patch
	EventLifeCycle  EventKind = "lc" // an identity was created or deleted
	EventConnection EventKind = "cs" // an identity connected or disconnected
)

// noModule is the module's place in a subject when the device itself speaks.
const noModule = "_"

// Headers of a stored event.
const (
	headerBag        = "Bag"
	headerGeneration = "Gen"
	headerAuth       = "Auth"
)

// Event is one entry of the log as its writer gives it.
type Event struct {
	Device     string
	Module     string // empty: the device itself
	Kind       EventKind
	Properties string // percent-encoded bag, see iothub.Bag
	Generation string // of the identity that spoke
	Auth       string // how it was authenticated: sas, x509 or hub
	Body       []byte
	ID         string // unique to this event; empty: one is made
}

// Log is the events of all devices, one ordered log per shard.
type Log struct {
	names      names
	shards     int
	committers []*committer
	readers    *consumers
}

// Shards is the number of shards.
func (l *Log) Shards() int { return l.shards }

// Appender writes the events of one connection in order. After the first event that could not be stored it stores no
// other, so that a sender which repeats from there never sees its events swapped. It belongs to one goroutine.
type Appender struct {
	log    *Log
	broken *error
}

// Appender starts an order.
func (l *Log) Appender() *Appender { return &Appender{log: l, broken: new(error)} }

// Append queues an event and returns. done is called once, in order, from the committer: with nil when the event is
// durable. Append waits while too much is queued; its own error means that done will not be called.
func (a *Appender) Append(ctx context.Context, e Event, done func(error)) error {
	shard := shardOf(e.Device, a.log.shards)
	module := noModule
	if e.Module != "" {
		module = escape(e.Module)
	}
	c := a.log.committers[shard]
	m := nats.NewMsg(a.log.names.logSubject(shard, escape(e.Device), module, string(e.Kind)))
	m.Data = e.Body
	if e.ID == "" {
		e.ID = c.wire.id()
	}
	m.Header[nats.MsgIdHdr] = []string{e.ID}
	for name, value := range map[string]string{headerBag: e.Properties, headerGeneration: e.Generation, headerAuth: e.Auth} {
		if value != "" {
			m.Header[name] = []string{value}
		}
	}
	ch := newChange([]*nats.Msg{m}, func(_ uint64, err error) { done(err) })
	ch.broken = a.broken
	if err := c.queue.add(ctx, ch); err != nil {
		return fmt.Errorf("append event: %w", err)
	}
	return nil
}
