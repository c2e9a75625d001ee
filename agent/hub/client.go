package hub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/hub/state"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
)

// client is one connected identity. It implements mqtt.Session; those methods run on the connection's reading goroutine.
type client struct {
	h          *Hub
	id         iothub.ID
	generation string
	auth       string
	expires    time.Time // of its token; zero with a certificate
	appender   *state.Appender
	will       *mqtt.Will
	resumed    bool
	revision   uint64          // of the session document
	done       context.Context //nolint:containedctx // the connection's: what its packets wait for ends with it

	mu      sync.Mutex // guards what follows
	conn    *mqtt.Conn
	filters map[string]uint8
	shown   int64 // desired version the client knows, or will learn by asking
	calls   bool  // it answers methods
}

// maxFilters is how many subscriptions the service allows a client.
const maxFilters = 5

// Resumed tells whether a stored session goes on.
func (c *client) Resumed() bool { return c.resumed }

// Opened makes this the identity's connection. Presence first and then the twin: whatever changes in between, one of the two sees it.
func (c *client) Opened(conn *mqtt.Conn) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-conn.Done(); cancel() }()
	c.done = ctx
	c.mu.Lock()
	c.conn = conn
	_, c.calls = c.qos(iothub.FeatureMethods)
	c.mu.Unlock()
	c.h.enter(c)
	service, err := load[serviceTwin](ctx, c.h.docs, c.id, state.KindService)
	if err != nil {
		conn.Close(fmt.Errorf("read twin: %w", err))
		return
	}
	c.mu.Lock()
	c.shown = max(c.shown, service.doc.Version)
	c.mu.Unlock()
}

// Closed gives up the connection.
func (c *client) Closed(err error) {
	c.h.leave(c)
	if err == nil || c.will == nil || errors.Is(err, mqtt.ErrReplaced) {
		return
	}
	if pub, perr := iothub.ParsePublish(c.will.Topic); perr == nil && pub.Kind == iothub.Telemetry && pub.ID == c.id {
		bag := pub.Bag.Set("iothub-MessageType", "Will")
		event := state.Event{Device: c.id.Device, Module: c.id.Module, Kind: state.EventWill, Properties: bag.String(), Generation: c.generation, Auth: c.auth, Body: c.will.Payload}
		if aerr := c.h.state.Log().Appender().Append(context.Background(), event, func(error) {}); aerr != nil {
			c.h.cfg.Logger.Warn("will not stored", "identity", c.id.String(), "err", aerr)
		}
	}
}

// qos tells at which quality the client listens to a feature.
func (c *client) qos(feature iothub.Feature) (byte, bool) {
	for text, qos := range c.filters {
		if f, err := iothub.ParseFilter(text); err == nil && f.Feature == feature {
			return qos, true
		}
	}
	return 0, false
}

// Subscribe grants filters of the known shapes that name this client; others get 0x80, as the service answers.
func (c *client) Subscribe(filters []mqtt.Subscription) []byte {
	codes := make([]byte, len(filters))
	changed, calls := false, false
	c.mu.Lock()
	for i, f := range filters {
		parsed, err := iothub.ParseFilter(f.Filter)
		foreign := !parsed.ID.IsZero() && parsed.ID != c.id
		have, known := c.filters[f.Filter]
		if err != nil || foreign || !known && len(c.filters) >= maxFilters {
			codes[i] = 0x80
			c.h.cfg.Logger.Warn("subscription refused", "identity", c.id.String(), "filter", f.Filter)
			continue
		}
		codes[i] = min(f.QoS, 1)
		changed = changed || !known || have != codes[i]
		c.filters[f.Filter] = codes[i]
		calls = calls || parsed.Feature == iothub.FeatureMethods
	}
	conn := c.conn
	c.mu.Unlock()
	if changed {
		if err := c.save(c.done); err != nil {
			conn.Close(fmt.Errorf("store session: %w", err))
			return codes
		}
	}
	if calls {
		conn.AfterReply(func() {
			c.mu.Lock()
			c.calls = true
			c.mu.Unlock()
			c.h.announce()
		})
	}
	return codes
}

// Unsubscribe drops filters.
func (c *client) Unsubscribe(filters []string) {
	c.mu.Lock()
	for _, f := range filters {
		delete(c.filters, f)
	}
	_, c.calls = c.qos(iothub.FeatureMethods)
	conn := c.conn
	c.mu.Unlock()
	if err := c.save(c.done); err != nil {
		conn.Close(fmt.Errorf("store session: %w", err))
	}
}

// Publish takes one message of any kind. What is wrong ends the connection: MQTT 3.1.1 has no other way to say no.
func (c *client) Publish(p *mqtt.Publish) {
	pub, err := iothub.ParsePublish(p.Topic)
	if err != nil {
		c.refuse(err)
		return
	}
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
		c.h.answered(c.id, pub, p.Payload)
		p.Ack()
	}
}

func (c *client) refuse(err error) {
	c.h.cfg.Logger.Warn("client refused, connection closed", "identity", c.id.String(), "err", err)
	c.close(err)
}

func (c *client) close(err error) {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn != nil {
		conn.Close(err)
	}
}

// telemetry appends one event; its PUBACK leaves when the log has it on disk.
func (c *client) telemetry(p *mqtt.Publish, pub iothub.Publish) {
	if pub.ID != c.id {
		c.refuse(fmt.Errorf("publish as %s", pub.ID))
		return
	}
	if size := pub.Bag.Size() + len(p.Payload); size > iothub.MaxMessage {
		c.refuse(fmt.Errorf("message of %d bytes, %d are allowed", size, iothub.MaxMessage))
		return
	}
	bag := pub.Bag
	if p.Retain {
		bag = bag.Set("mqtt-retain", "true")
	}
	event := state.Event{
		Device: c.id.Device, Module: c.id.Module, Kind: state.EventTelemetry, Properties: bag.String(), Generation: c.generation, Auth: c.auth, Body: p.Payload,
	}
	if err := c.appender.Append(c.done, event, func(err error) {
		if err != nil {
			c.close(fmt.Errorf("store event: %w", err))
			return
		}
		p.Ack()
	}); err != nil {
		c.close(fmt.Errorf("store event: %w", err))
	}
}

// twinGet answers with the twin as a client sees it.
func (c *client) twinGet(rid string) {
	whole, err := c.h.twins.get(c.done, c.id)
	var body []byte
	if err == nil {
		body, err = clientTwin(whole.service, whole.reported)
	}
	if err != nil {
		c.fail(rid, err)
		return
	}
	c.result(iothub.Delivery{Kind: iothub.TwinResult, Status: 200, RequestID: rid}, body)
}

// twinPatch merges into the reported section; its answer leaves when that is durable.
func (c *client) twinPatch(rid string, body []byte) {
	version, err := c.patchReported(body)
	if rid == "" {
		return
	}
	if err != nil {
		c.fail(rid, err)
		return
	}
	c.result(iothub.Delivery{Kind: iothub.TwinResult, Status: 204, RequestID: rid, Version: version}, nil)
}

func (c *client) patchReported(body []byte) (version int64, err error) {
	patch, err := twin.ParsePatch(body)
	if err == nil {
		err = twin.Validate(twin.Reported, patch)
	}
	if err != nil {
		return 0, asInvalid(err, c.h.docs)
	}
	err = retry(c.done, func() error {
		have, err := load[reportedTwin](c.done, c.h.docs, c.id, state.KindReported)
		if err != nil {
			return err
		}
		if !have.ok {
			return c.h.docs.notFound(c.id)
		}
		next, err := have.doc.patchReported(patch, c.h.cfg.Now())
		if err != nil {
			return asInvalid(err, c.h.docs)
		}
		p, err := put(c.id, state.KindReported, have.revision, next)
		if err != nil {
			return err
		}
		version = next.Version
		_, err = c.h.state.Docs().Change(c.done, p)
		return err
	})
	if err == nil {
		c.h.events.note(c.done, state.EventTwin, c.id, c.generation, "updateTwin", object{"properties": map[string]any{"reported": patch}})
	}
	return version, err
}

func (c *client) fail(rid string, err error) {
	no, definite := errors.AsType[*iothub.Error](err)
	if !definite {
		no = iothub.NewError(iothub.CodeInternal, err.Error(), c.h.cfg.Now())
	}
	c.result(iothub.Delivery{Kind: iothub.TwinResult, Status: no.Status(), RequestID: rid}, no.Body())
}

func (c *client) result(d iothub.Delivery, body []byte) {
	c.mu.Lock()
	qos, _ := c.qos(iothub.FeatureTwinResults)
	conn := c.conn
	c.mu.Unlock()
	if err := conn.Send(d.Topic(), body, qos, nil); err != nil {
		conn.Close(err)
	}
}

// showDesired sends every patch after the last one shown; where the ring does not reach back, one that says the whole section.
func (c *client) showDesired(now serviceTwin) {
	c.mu.Lock()
	defer c.mu.Unlock()
	qos, listens := c.qos(iothub.FeatureDesired)
	if c.conn == nil || now.Version <= c.shown {
		return
	}
	if !listens {
		return // it will ask before it listens
	}
	patches, whole := now.since(c.shown)
	if !whole {
		patches = []ringPatch{{Version: now.Version, Patch: now.Desired}}
	}
	for _, p := range patches {
		body, err := p.body()
		if err == nil {
			err = c.conn.Send(iothub.Delivery{Kind: iothub.DesiredPatch, Version: p.Version}.Topic(), body, qos, nil)
		}
		if err != nil {
			c.conn.Close(err)
			return
		}
		c.shown = p.Version
	}
}
