package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
	"github.com/sandpiper-edge/sandpiper/agent/route"
	"github.com/sandpiper-edge/sandpiper/store"
)

// upstreamLane is where what id sends to the hub waits.
func upstreamLane(id iothub.ID) string {
	if id.IsModule() {
		return "upstream/" + id.Module
	}
	return "upstream/_"
}

// telemetry stores one message for every sink of its routes and acknowledges it when the disk has it. No sink: it is
// acknowledged and dropped, as IoT Edge does.
func (c *client) telemetry(p *mqtt.Publish, pub iothub.Publish) {
	if pub.ID != c.id {
		c.once("publish as another identity", "other", pub.ID.String())
		c.close(fmt.Errorf("publish as %s by %s", pub.ID, c.id))
		return
	}
	c.arrived++
	if p.QoS > 0 && c.held.behind(p, c.arrived) {
		return
	}
	c.bag = append(c.bag[:0], pub.Bag...) // the message takes its bag over, and the next one may come on the same topic
	bag := c.bag
	if p.Retain {
		bag = bag.Set(iothub.PropRetain, "true")
	}
	m, err := c.b.message(c.id, bag, p.Payload)
	if err != nil { // MQTT 3.1.1 has no other way to say no
		c.once("message refused", "err", err)
		c.close(err)
		return
	}
	to := c.route(m)
	if len(to.entries) == 0 {
		p.Ack()
		return
	}
	c.buf = m.Append(c.buf[:0])
	n, size := c.arrived, len(c.buf)
	c.b.cfg.Put(store.Record{Body: c.buf, Entries: to.entries, Source: c.id.Module}, to.durability, func(err error) {
		if err != nil {
			c.notStored(p, n, err)
			return
		}
		c.b.cfg.Stored(c.id, size)
		p.Ack()
	})
	if cap(c.buf) > keepBuffer {
		c.buf = nil
	}
}

// message makes the message that src published now.
func (b *Broker) message(src iothub.ID, bag iothub.Bag, body []byte) (message.Message, error) {
	m, err := message.FromPublish(src, bag, body, b.cfg.Now())
	if boot, uptime, untimed := b.cfg.Untimed(); untimed && err == nil {
		m = m.Untimed(boot, uptime)
	}
	return m, err
}

const (
	// keepBuffer is the largest buffer, in bytes, that a connection keeps for its next message.
	keepBuffer = 64 << 10
	// keepOutputs is for how many outputs a connection remembers the routes.
	keepOutputs = 64
)

// route remembers its answers for as long as the table is the same and no rule looks at more than source and output.
func (c *client) route(m message.Message) lanes {
	router := c.b.cfg.Router()
	if router == nil {
		return lanes{}
	}
	if router.Conditional() { // each message may differ
		return c.b.entries(router, m, false)
	}
	if router != c.router || len(c.routed) >= keepOutputs {
		c.router, c.routed = router, map[string]lanes{}
	}
	to, ok := c.routed[m.Output]
	if !ok {
		to = c.b.entries(router, m, false)
		c.routed[strings.Clone(m.Output)] = to // it is a part of a topic
	}
	return to
}

// lanes are where one message goes, and the strictest durability that one of its routes asks for.
type lanes struct {
	entries    []store.Entry
	durability route.Durability
}

// entries lists the lanes of a message and sees to it that each input lane has a pump.
func (b *Broker) entries(router *route.Router, m message.Message, twinChange bool) lanes {
	if router == nil {
		return lanes{}
	}
	var durability route.Durability
	hops := router.RouteMessage(m, twinChange)
	entries := make([]store.Entry, 0, len(hops))
	for i, hop := range hops {
		e := store.Entry{Priority: hop.Priority, TTL: hop.TTL}
		if b.cfg.MaxAge > 0 && (e.TTL == 0 || e.TTL > b.cfg.MaxAge) {
			e.TTL = b.cfg.MaxAge
		}
		if asked := hop.Terms.Durability; i == 0 || asked.Window < durability.Window {
			durability = asked
		}
		switch {
		case hop.Sink != route.Sink{}:
			e.Sink = inputLane(hop.Sink.Module, hop.Sink.Input)
			b.ensurePump(e.Sink)
		case twinChange: // the hub hears of it from $edgeHub
			e.Sink = upstreamLane(iothub.ID{Device: b.cfg.Device, Module: "$edgeHub"})
		default:
			e.Sink = upstreamLane(m.Source)
		}
		entries = append(entries, e)
	}
	return lanes{entries, durability}
}

// Publish stores a message of id as if it had come over MQTT; when the error is nil it is as safe as the promise says.
func (b *Broker) Publish(ctx context.Context, id iothub.ID, output string, bag iothub.Bag, body []byte) (route.Promise, error) {
	if output != "" { // in the bag it is checked with the rest: what is acknowledged must be readable again
		bag = bag.Set(iothub.PropOutput, output)
	}
	m, err := b.message(id, bag, body)
	if err != nil {
		return route.Promise{}, err
	}
	to := b.entries(b.cfg.Router(), m, false)
	if len(to.entries) == 0 {
		return route.Promise{}, nil
	}
	raw := m.Append(nil)
	stored := make(chan error, 1)
	got := b.cfg.Put(store.Record{Body: raw, Entries: to.entries, Source: id.Module}, to.durability, func(err error) { stored <- err })
	select {
	case err = <-stored:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		b.cfg.NotStored(err)
		return route.Promise{}, err
	}
	b.cfg.Stored(id, len(raw))
	return route.Promise{Sinks: len(to.entries), Durability: got}, nil
}

// reportedChanged routes a change of reported properties to those who asked for /twinChangeNotifications.
func (b *Broker) reportedChanged(id iothub.ID, patch json.RawMessage) {
	bag := iothub.Bag{{Key: "$.ct", Value: "application/json"}, {Key: "$.ce", Value: "utf-8"}}
	m, err := b.message(id, bag, patch)
	if err != nil {
		b.cfg.Logger.Warn("twin change not routed", "identity", id.String(), "err", err)
		return
	}
	to := b.entries(b.cfg.Router(), m, true)
	if len(to.entries) == 0 {
		return
	}
	b.cfg.Put(store.Record{Body: m.Append(nil), Entries: to.entries, Source: m.Source.Module}, to.durability, func(err error) {
		if err != nil {
			b.cfg.Logger.Warn("twin change not stored", "identity", id.String(), "err", err)
		}
	})
}

// willOf reads a CONNECT's will; one that is not telemetry of this very client is none.
func (b *Broker) willOf(id iothub.ID, w *mqtt.Will) *message.Message {
	if w == nil {
		return nil
	}
	pub, err := iothub.ParsePublish(w.Topic)
	if err != nil || pub.Kind != iothub.Telemetry || pub.ID != id {
		b.cfg.Logger.Warn("will dropped, its topic is not the client's own telemetry", "identity", id.String(), "other", pub.ID.String())
		return nil
	}
	return &message.Message{Source: id, Bag: pub.Bag.Set(iothub.PropMessageType, "Will"), Body: w.Payload}
}

// publishWill speaks for a client whose connection broke.
func (b *Broker) publishWill(w message.Message) {
	m, err := b.message(w.Source, w.Bag, w.Body)
	if err != nil {
		b.cfg.Logger.Warn("will not published", "identity", w.Source.String(), "err", err)
		return
	}
	to := b.entries(b.cfg.Router(), m, false)
	if len(to.entries) == 0 {
		return
	}
	b.cfg.Put(store.Record{Body: m.Append(nil), Entries: to.entries, Source: m.Source.Module}, to.durability, func(err error) {
		if err != nil && !errors.Is(err, store.ErrClosed) {
			b.cfg.Logger.Warn("will not stored", "identity", w.Source.String(), "err", err)
		}
	})
}
