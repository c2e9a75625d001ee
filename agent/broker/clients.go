package broker

import (
	"context"
	"fmt"
	"sort"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Client is who was seen at the endpoint, as $edgeHub reports it.
type Client struct {
	ID        iothub.ID
	Connected bool
	Since     time.Time // of the last change
}

// Clients lists everybody who connected since the broker was made, by identity.
func (b *Broker) Clients() []Client {
	b.mu.Lock()
	list := make([]Client, 0, len(b.seen))
	for _, c := range b.seen {
		list = append(list, c)
	}
	b.mu.Unlock()
	sort.Slice(list, func(i, j int) bool { return list[i].ID.String() < list[j].ID.String() })
	return list
}

// OnClients registers a callback for every change of Clients. It is called from connections' goroutines and must be quick. Register
// before Serve.
func (b *Broker) OnClients(fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.onChange = append(b.onChange, fn)
}

// enter makes c the connection of its identity; false when the identity was dropped meanwhile.
func (b *Broker) enter(c *client) bool {
	b.mu.Lock()
	if c.stored.isGone() {
		b.mu.Unlock()
		return false
	}
	b.clients[c.id] = c
	b.seen[c.id] = Client{ID: c.id, Connected: true, Since: b.cfg.Now()}
	b.mu.Unlock()
	b.cfg.Logger.Info("client connected", "identity", c.id.String(), "origin", c.hello.Origin.Label, "resumed", c.Resumed())
	b.announce()
	b.tellClients()
	return true
}

// leave forgets c unless a newer connection has its place.
func (b *Broker) leave(c *client) {
	b.mu.Lock()
	if b.clients[c.id] != c {
		b.mu.Unlock()
		return
	}
	delete(b.clients, c.id)
	b.seen[c.id] = Client{ID: c.id, Since: b.cfg.Now()}
	b.mu.Unlock()
	b.tellClients()
}

func (b *Broker) tellClients() {
	b.mu.Lock()
	fns := b.onChange
	b.mu.Unlock()
	for _, fn := range fns {
		fn()
	}
}

// Drop ends the connection of an identity that is no more and forgets its session and what waits for its inputs, durable when it
// returns nil; after an error it is called again.
func (b *Broker) Drop(ctx context.Context, id iothub.ID) error {
	b.mu.Lock()
	s := b.sessions[id]
	if s == nil {
		s = &session{b: b, id: id, durable: true}
		b.sessions[id] = s // a CONNECT that comes now meets it
	}
	b.mu.Unlock()
	if err := s.drop(ctx); err != nil {
		return fmt.Errorf("drop session: %w", err)
	}
	b.mu.Lock()
	c := b.clients[id]
	delete(b.clients, id) // so that the end of the connection changes nothing
	delete(b.seen, id)
	if b.sessions[id] == s {
		delete(b.sessions, id)
	}
	b.mu.Unlock()
	if c != nil {
		c.close(errGone)
	}
	b.tellClients()
	if !id.IsModule() || id.Device != b.cfg.Device {
		return nil
	}
	for _, lane := range b.cfg.Queue.Stats() {
		if module, _, ok := parseInputLane(lane.Sink); ok && module == id.Module && lane.Messages > 0 {
			if _, err := b.cfg.Queue.Purge(ctx, lane.Sink); err != nil {
				return fmt.Errorf("purge %s: %w", lane.Sink, err)
			}
		}
	}
	return nil
}
