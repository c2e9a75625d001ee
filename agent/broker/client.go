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
	"github.com/sandpiper-edge/sandpiper/store"
)

// client is one connected identity. It implements mqtt.Session; those methods run on the connection's reading goroutine.
type client struct {
	b       *Broker
	id      iothub.ID
	hello   mqtt.Hello
	resumed bool
	will    *message.Message

	// Of the reading goroutine only.
	topic   string         // the last one published on, parsed below
	publish iothub.Publish // what topic says
	output  string         // the last output routed, with its answer below
	router  *route.Router
	entries []store.Entry
	buf     []byte
	scolded map[string]bool // what was logged once for this connection

	mu      sync.Mutex // guards what follows
	conn    *mqtt.Conn // nil before Opened
	rec     session
	shown   int64 // desired version sent on this connection, or stored as sent; at least rec.Desired
	calls   bool  // the subscription to methods has been answered: calls may come
	inbox   bool  // the same for inputs
	refused bool  // the connection is being closed because a publish cannot be stored
}

// Resumed tells whether a stored session goes on.
func (c *client) Resumed() bool { return c.resumed }

// Opened takes this connection as the identity's own and goes on where its session stopped.
func (c *client) Opened(conn *mqtt.Conn) {
	c.mu.Lock()
	c.conn, c.shown = conn, c.rec.Desired
	_, c.calls = c.rec.qos(iothub.FeatureMethods)
	_, c.inbox = c.rec.qos(iothub.FeatureInputs)
	inbox := c.inbox
	c.mu.Unlock()
	c.b.enter(c)
	if inbox {
		c.b.box(c.id.Module).attach(c)
	}
	c.showDesired()
}

// Closed gives up what the connection held.
func (c *client) Closed(err error) {
	c.b.leave(c)
	c.b.box(c.id.Module).detach(c)
	if err != nil && c.will != nil && !errors.Is(err, mqtt.ErrReplaced) {
		c.b.publishWill(*c.will)
	}
	if err != nil {
		c.b.cfg.Logger.Info("client gone", "identity", c.id.String(), "err", err)
	}
}

// close ends the connection.
func (c *client) close(reason error) {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn != nil {
		conn.Close(reason)
	}
}

// send queues a message to the client.
func (c *client) send(topic string, payload []byte, qos byte, acked func(error)) error {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
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
	c.mu.Lock()
	rec := c.rec
	c.mu.Unlock()
	changed := false
	var fresh []iothub.Feature
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
		next, differs := rec.with(subscription{Filter: f.Filter, QoS: codes[i], feature: parsed.Feature})
		rec, changed = next, changed || differs
		fresh = append(fresh, parsed.Feature)
	}
	if changed {
		c.mu.Lock()
		if _, had := c.rec.qos(iothub.FeatureDesired); !had { // it will ask for the whole first, and then wants what is newer
			rec.Desired = max(rec.Desired, c.b.cfg.Twins.Snapshot(c.id).DesiredVersion)
			c.shown = max(c.shown, rec.Desired)
		}
		c.mu.Unlock()
		if err := c.b.saveSession(context.Background(), c.id, rec); err != nil {
			c.b.cfg.Logger.Error("subscription not stored, connection closed", "identity", c.id.String(), "err", err)
			c.close(err)
			return codes
		}
		c.mu.Lock()
		c.rec = rec
		c.mu.Unlock()
	}
	c.conn.AfterReply(func() { c.listen(fresh) })
	return codes
}

// listen switches on what was just granted.
func (c *client) listen(features []iothub.Feature) {
	for _, f := range features {
		switch f {
		case iothub.FeatureMethods:
			c.mu.Lock()
			c.calls = true
			c.mu.Unlock()
			c.b.announce()
		case iothub.FeatureInputs:
			c.mu.Lock()
			c.inbox = true
			c.mu.Unlock()
			c.b.box(c.id.Module).attach(c)
		case iothub.FeatureDesired:
			c.showDesired()
		default: // results go to whoever asked; cloud-to-device messages come with downstream devices
		}
	}
}

// Unsubscribe drops filters from the session.
func (c *client) Unsubscribe(filters []string) {
	c.mu.Lock()
	for _, f := range filters {
		c.rec = c.rec.without(f)
	}
	rec := c.rec
	_, c.calls = rec.qos(iothub.FeatureMethods)
	_, c.inbox = rec.qos(iothub.FeatureInputs)
	inbox := c.inbox
	c.mu.Unlock()
	if !inbox {
		c.b.box(c.id.Module).detach(c)
	}
	if err := c.b.saveSession(context.Background(), c.id, rec); err != nil {
		c.b.cfg.Logger.Error("session not stored, connection closed", "identity", c.id.String(), "err", err)
		c.close(err)
	}
}

// Publish takes one message of any kind.
func (c *client) Publish(p *mqtt.Publish) {
	if p.Topic != c.topic || c.publish.Kind == 0 {
		parsed, err := iothub.ParsePublish(p.Topic)
		if err != nil {
			c.unknownTopic(p, err)
			return
		}
		c.topic, c.publish = p.Topic, parsed
		if len(parsed.Bag) > 0 { // the message takes the bag over
			c.topic = ""
		}
	}
	switch pub := c.publish; pub.Kind {
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
