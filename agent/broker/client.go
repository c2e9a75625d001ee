package broker

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
	"github.com/sandpiper-edge/sandpiper/agent/route"
)

// client is one connected identity. It implements mqtt.Session; those methods run on the connection's reading goroutine.
type client struct {
	b       *Broker
	id      iothub.ID
	hello   mqtt.Hello
	stored  *session // of the identity
	session *session // stored, or one of this connection alone when it asked to start clean
	box     *mailbox // nil for who has no inputs here
	will    *message.Message

	// Of the reading goroutine only.
	opened  bool
	topic   string           // the last one published on; what it says is below
	publish iothub.Publish   // of no kind before the first
	bag     iothub.Bag       // room for a copy of its properties
	router  *route.Router    // the table that answered
	routed  map[string]lanes // by output
	buf     []byte
	arrived uint64          // telemetry on this connection
	scolded map[string]bool // what was logged once for this connection

	held held // what the disk did not take

	mu      sync.Mutex // guards what follows
	conn    *mqtt.Conn // nil before Opened
	shown   int64      // desired version sent on this connection, or given before
	doubts  []doubt    // what was sent at quality 0 not long ago
	calls   bool       // the subscription to methods has been answered: calls may come
	desired bool       // the same for desired properties
	refused bool       // it was logged that a publish cannot be stored
}

// Resumed tells whether a stored session goes on.
func (c *client) Resumed() bool { return !c.hello.Clean && len(c.stored.get().Filters) > 0 }

// Opened takes this connection as the identity's own and goes on where its session stopped. The older connection has seen Closed.
func (c *client) Opened(conn *mqtt.Conn) {
	c.opened = true
	if c.hello.Clean {
		if err := c.stored.change(context.Background(), func(record) record { return record{} }); err != nil {
			c.b.cfg.Logger.Error("session not discarded, connection closed", "identity", c.id.String(), "err", err)
			conn.Close(err)
			return
		}
	}
	rec := c.session.get()
	_, inbox := rec.qos(iothub.FeatureInputs)
	c.mu.Lock()
	c.conn, c.shown = conn, rec.Desired
	_, c.calls = rec.qos(iothub.FeatureMethods)
	_, c.desired = rec.qos(iothub.FeatureDesired)
	c.mu.Unlock()
	if !c.b.enter(c) {
		conn.Close(errGone)
		return
	}
	if inbox && c.box != nil {
		c.box.attach(c)
	}
	c.showDesired()
}

// Closed gives up what the connection held. A connection that broke before it was accepted held nothing, and has no will.
func (c *client) Closed(err error) {
	if !c.opened {
		return
	}
	c.b.leave(c)
	c.held.end()
	if c.box != nil {
		c.box.detach(c)
	}
	if err != nil {
		c.doubtShown()
	}
	if err != nil && c.will != nil && !errors.Is(err, mqtt.ErrReplaced) {
		c.b.publishWill(*c.will)
	}
	if err != nil {
		c.b.cfg.Logger.Info("client gone", "identity", c.id.String(), "err", err)
	}
}

// connection returns the connection, nil before Opened.
func (c *client) connection() *mqtt.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn
}

// close ends the connection.
func (c *client) close(reason error) {
	if conn := c.connection(); conn != nil {
		conn.Close(reason)
	}
}

// send queues a message to the client.
func (c *client) send(topic string, payload []byte, qos byte, acked func(error)) error {
	conn := c.connection()
	if conn == nil {
		return mqtt.ErrClosed
	}
	return conn.Send(topic, payload, qos, acked)
}

// once logs a complaint about this connection the first time it comes up.
func (c *client) once(complaint string, args ...any) {
	if c.scolded == nil {
		c.scolded = map[string]bool{}
	}
	if c.scolded[complaint] {
		return
	}
	c.scolded[complaint] = true
	c.b.cfg.Logger.Warn("client refused", append([]any{"identity", c.id.String(), "why", complaint}, args...)...)
}

// Subscribe grants every filter and delivers only on those of the known shapes that name this client: SDKs do not look at the
// codes (protocol quirk), so a refusal would only be a lie told later. What is granted is on disk before the SUBACK.
func (c *client) Subscribe(filters []mqtt.Subscription) []byte {
	codes := make([]byte, len(filters))
	var fresh []subscription
	for i, f := range filters {
		codes[i] = min(f.QoS, 1)
		parsed, err := iothub.ParseFilter(f.Filter)
		if err != nil {
			c.once("subscription of no known shape delivers nothing", "filter", f.Filter)
			continue
		}
		named := parsed.Feature == iothub.FeatureInputs || parsed.Feature == iothub.FeatureCloudToDevice
		if named && parsed.ID != c.id {
			c.once("subscription to another identity delivers nothing", "other", parsed.ID.String())
			continue
		}
		fresh = append(fresh, subscription{Filter: f.Filter, QoS: codes[i], feature: parsed.Feature})
	}
	if len(fresh) == 0 {
		return codes
	}
	now := c.b.cfg.Twins.Snapshot(c.id).DesiredVersion
	err := c.session.change(context.Background(), func(rec record) record {
		for _, sub := range fresh {
			rec = rec.with(sub)
		}
		if _, listens := rec.qos(iothub.FeatureDesired); listens && rec.Desired == 0 { // it will ask for the whole: what is newer concerns it
			rec.Desired = now
		}
		return rec
	})
	if err != nil {
		c.b.cfg.Logger.Error("subscription not stored, connection closed", "identity", c.id.String(), "err", err)
		c.close(err)
		return codes
	}
	desired := c.session.get().Desired
	c.mu.Lock()
	if c.shown == 0 {
		c.shown = desired
	}
	conn := c.conn
	c.mu.Unlock()
	if conn != nil {
		conn.AfterReply(func() { c.listen(fresh) })
	}
	return codes
}

// listen switches on what was just granted.
func (c *client) listen(fresh []subscription) {
	for _, sub := range fresh {
		switch sub.feature {
		case iothub.FeatureMethods:
			c.mu.Lock()
			c.calls = true
			c.mu.Unlock()
			c.b.announce()
		case iothub.FeatureInputs:
			if c.box != nil {
				c.box.attach(c)
			}
		case iothub.FeatureDesired:
			c.mu.Lock()
			c.desired = true
			c.mu.Unlock()
			c.showDesired()
		default: // results go to whoever asked; cloud-to-device messages come with downstream devices
		}
	}
}

// Unsubscribe drops filters from the session.
func (c *client) Unsubscribe(filters []string) {
	if err := c.session.change(context.Background(), func(rec record) record { return rec.without(filters) }); err != nil {
		c.b.cfg.Logger.Error("session not stored, connection closed", "identity", c.id.String(), "err", err)
		c.close(err)
		return
	}
	rec := c.session.get()
	c.mu.Lock()
	_, methods := rec.qos(iothub.FeatureMethods)
	_, desired := rec.qos(iothub.FeatureDesired)
	c.calls, c.desired = c.calls && methods, c.desired && desired
	c.mu.Unlock()
	if _, inbox := rec.qos(iothub.FeatureInputs); !inbox && c.box != nil {
		c.box.detach(c)
	}
}

// Publish takes one message of any kind.
func (c *client) Publish(p *mqtt.Publish) {
	if c.publish.Kind == 0 || p.Topic != c.topic {
		parsed, err := iothub.ParsePublish(p.Topic)
		if err != nil {
			c.unknownTopic(p, err)
			return
		}
		c.topic, c.publish = p.Topic, parsed
	}
	pub := c.publish
	switch pub.Kind {
	case iothub.Telemetry:
		c.telemetry(p, pub)
	case iothub.TwinGet:
		c.twinGet(pub.RequestID)
		p.Ack()
	case iothub.TwinPatch:
		c.twinPatch(pub.RequestID, p.Payload)
		p.Ack()
	case iothub.MethodResponse:
		c.b.answered(c.id, pub, p.Payload)
		p.Ack()
	}
}

// unknownTopic follows edgeHub: what looks like a twin request and is none ends the connection, anything else is acknowledged,
// logged and dropped.
func (c *client) unknownTopic(p *mqtt.Publish, err error) {
	c.once("publish on a topic of no known shape", "err", err)
	if strings.HasPrefix(p.Topic, "$iothub/twin/") {
		c.close(err)
		return
	}
	p.Ack()
}
