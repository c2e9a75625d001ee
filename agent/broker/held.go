package broker

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
	"github.com/sandpiper-edge/sandpiper/store"
)

const (
	// holdFirst and holdLast bound the pause before the disk is asked again: short enough that a store with room takes up at once,
	// long enough that a full one is not asked a thousand times a second.
	holdFirst = 100 * time.Millisecond
	holdLast  = 5 * time.Second
)

// held are the publishes of one connection that the disk did not take, in the order they came. None is acknowledged, so the session
// stops reading the connection when its window is full: the producer waits, and no message is sent twice. The oldest is tried alone
// until it is stored, then the next: order is kept whatever the disk takes again first.
type held struct {
	mu    sync.Mutex // guards what follows
	list  []waiting
	wait  time.Duration
	timer *time.Timer // nil = nothing is held, or a try is under way
	trial bool        // a try is under way
	ended bool
}

// waiting is one publish and its place in the order of arrival.
type waiting struct {
	p *mqtt.Publish
	n uint64
}

// behind takes p if earlier ones of its connection are held: it must not overtake them.
func (h *held) behind(p *mqtt.Publish, n uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.list) == 0 {
		return false
	}
	h.insertLocked(waiting{p, n})
	return true
}

func (h *held) insertLocked(w waiting) {
	at := len(h.list)
	for at > 0 && h.list[at-1].n > w.n {
		at--
	}
	h.list = slices.Insert(h.list, at, w)
}

// hold keeps a publish that was not stored and sees to it that it is tried again. It tells whether it is the first.
func (h *held) hold(p *mqtt.Publish, n uint64, retry func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return false
	}
	first := len(h.list) == 0
	h.insertLocked(waiting{p, n})
	if first {
		h.wait = holdFirst
		h.timer = time.AfterFunc(h.wait, retry)
	}
	return first
}

// next is the oldest, to be tried now; nil = nothing to do.
func (h *held) next() *mqtt.Publish {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended || h.trial || len(h.list) == 0 {
		return nil
	}
	h.trial = true
	return h.list[0].p
}

// tried is the outcome of next: stored drops it from the list. It tells whether the list is empty now.
func (h *held) tried(p *mqtt.Publish, stored bool, retry func()) (empty bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trial = false
	if stored {
		h.list = slices.DeleteFunc(h.list, func(w waiting) bool { return w.p == p })
		h.wait = 0
	} else {
		h.wait = min(max(2*h.wait, holdFirst), holdLast)
	}
	if h.ended || len(h.list) == 0 {
		return len(h.list) == 0
	}
	h.timer = time.AfterFunc(h.wait, retry)
	return false
}

// end forgets everything: the client sends it again on its next connection.
func (h *held) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended, h.list = true, nil
	if h.timer != nil {
		h.timer.Stop()
	}
}

// lasting tells whether a store that refused a message may take it later.
func lasting(err error) bool {
	return !errors.Is(err, store.ErrTooLarge) && !errors.Is(err, store.ErrClosed)
}

// notStored deals with a publish that did not reach the disk: there is no PUBACK. It is held for a store that may recover; else the
// connection ends, for MQTT 3.1.1 has no other way to say no.
func (c *client) notStored(p *mqtt.Publish, n uint64, err error) {
	c.b.cfg.NotStored(err)
	if lasting(err) && p.QoS > 0 {
		if c.held.hold(p, n, c.retry) {
			c.b.cfg.Logger.Error("message not stored, not acknowledged, tried again until it is", "identity", c.id.String(), "err", err)
		}
		return
	}
	c.mu.Lock()
	first := !c.refused
	c.refused = true
	c.mu.Unlock()
	if !first {
		return
	}
	if lasting(err) {
		c.b.cfg.Logger.Error("message not stored and dropped: quality 0", "identity", c.id.String(), "err", err)
		return
	}
	c.b.cfg.Logger.Error("message not stored, not acknowledged, connection closed", "identity", c.id.String(), "err", err)
	c.close(err)
}

// retry tries the oldest that is held. It runs on a timer's goroutine.
func (c *client) retry() {
	p := c.held.next()
	if p == nil {
		return
	}
	pub, err := iothub.ParsePublish(p.Topic)
	var m message.Message
	if err == nil {
		bag := pub.Bag
		if p.Retain {
			bag = bag.Set(iothub.PropRetain, "true")
		}
		m, err = c.b.message(c.id, bag, p.Payload)
	}
	if err != nil { // it was read before
		c.close(err)
		return
	}
	raw := m.Append(nil)
	to := c.b.entries(c.b.cfg.Router(), m, false)
	c.b.cfg.Put(store.Record{Body: raw, Entries: to.entries, Source: c.id.Module}, to.durability, func(err error) {
		switch {
		case err == nil:
			c.b.cfg.Stored(c.id, len(raw))
			p.Ack()
			if c.held.tried(p, true, c.retry) {
				c.b.cfg.Logger.Info("messages are stored again", "identity", c.id.String())
			}
		case lasting(err):
			c.b.cfg.NotStored(err)
			c.held.tried(p, false, c.retry)
		default:
			c.close(err)
		}
	})
}
