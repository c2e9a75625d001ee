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
	clean      bool            // its session ends with the connection and is not stored
	revision   uint64          // of the session document
	done       context.Context //nolint:containedctx // the connection's: what its packets wait for ends with it

	mu      sync.Mutex // guards what follows
	conn    *mqtt.Conn
	filters map[string]uint8
	shown   int64  // desired version the client knows, or will learn by asking
	base    object // the desired section at that version
	moved   bool   // shown is newer than in the session document
	ready   bool   // shown is known
	calls   bool   // it answers methods
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
	if !c.expires.IsZero() {
		left := c.expires.Add(iothub.SkewTolerance).Sub(c.h.cfg.Now())
		expired := time.AfterFunc(left, func() { conn.Close(errExpired) })
		context.AfterFunc(ctx, func() { expired.Stop() })
	}
	c.h.enter(c)
	c.catchUp()
}

// errExpired ends a connection whose token ran out without a newer one.
var errExpired = errors.New("token expired")

// catchUp reads the twin and sends what the client missed. From then on the watch shows every change.
func (c *client) catchUp() {
	service, err := load[serviceTwin](c.done, c.h.docs, c.id, state.KindService)
	if err != nil {
		c.close(fmt.Errorf("read twin: %w", err))
		return
	}
	c.mu.Lock()
	c.ready = true
	if c.shown == 0 || c.shown > service.doc.Version { // nothing is known of what it knows: it will ask
		c.knowsLocked(service.doc)
	}
	c.mu.Unlock()
	c.showDesired(service.doc)
}

// knowsLocked records that the client knows this desired section.
func (c *client) knowsLocked(now serviceTwin) {
	c.shown, c.base, c.moved = now.Version, now.Desired, true
}

// closeTimeout bounds what is written for a connection that has ended.
const closeTimeout = 5 * time.Second

// Closed gives up the connection, and remembers what the client knows.
func (c *client) Closed(err error) {
	c.h.leave(c)
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	c.mu.Lock()
	moved := c.moved && len(c.filters) > 0
	c.mu.Unlock()
	if moved {
		if err := c.save(ctx); err != nil {
			c.h.cfg.Logger.Warn("session not stored", "identity", c.id.String(), "err", err)
		}
	}
	if err != nil && c.will != nil && !errors.Is(err, mqtt.ErrReplaced) {
		c.publishWill(ctx)
	}
}

// publishWill speaks for a client that vanished, on its own telemetry topic only.
func (c *client) publishWill(ctx context.Context) {
	pub, err := iothub.ParsePublish(c.will.Topic)
	if err != nil || pub.Kind != iothub.Telemetry || pub.ID != c.id || pub.Bag.Size()+len(c.will.Payload) > iothub.MaxMessage {
		c.h.cfg.Logger.Warn("will refused", "identity", c.id.String(), "err", err)
		return
	}
	event := c.event(state.EventWill, pub.Bag.Set(iothub.PropMessageType, "Will"), c.will.Payload)
	stored := make(chan error, 1)
	err = c.h.state.Log().Appender().Append(ctx, event, func(err error) { stored <- err })
	if err == nil {
		err = <-stored
	}
	if err != nil {
		c.h.cfg.Logger.Warn("will not stored", "identity", c.id.String(), "err", err)
	}
}

// event is what the client says, under the name it proved.
func (c *client) event(kind state.EventKind, bag iothub.Bag, body []byte) state.Event {
	return state.Event{
		Device: c.id.Device, Module: c.id.Module, Kind: kind,
		Properties: bag.Without(iothub.PropSourceDevice, iothub.PropSourceModule).String(),
		Generation: c.generation, Auth: c.auth, Body: body,
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
	changed, calls, desired := false, false, false
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
		desired = desired || parsed.Feature == iothub.FeatureDesired
	}
	conn := c.conn
	c.mu.Unlock()
	if changed {
		if err := c.save(c.done); err != nil {
			conn.Close(fmt.Errorf("store session: %w", err))
			return codes
		}
	}
	if desired {
		conn.AfterReply(c.catchUp)
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
		bag = bag.Set(iothub.PropRetain, "true")
	}
	if err := c.appender.Append(c.done, c.event(state.EventTelemetry, bag, p.Payload), func(err error) {
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
	c.mu.Lock()
	if _, listens := c.qos(iothub.FeatureDesired); !listens && whole.service.Version > c.shown {
		c.knowsLocked(whole.service) // one that listens is sent the patch as well: it may act on nothing else
	}
	c.mu.Unlock()
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

// showDesired sends every patch after the last one shown; where the ring does not reach back, one difference.
func (c *client) showDesired(now serviceTwin) {
	c.mu.Lock()
	defer c.mu.Unlock()
	qos, listens := c.qos(iothub.FeatureDesired)
	if !c.ready || !listens || now.Version <= c.shown {
		return // one that does not listen asks, or is told when it begins to
	}
	patches, reaches := now.since(c.shown)
	if !reaches {
		patches = []ringPatch{{Version: now.Version, Patch: twin.Diff(c.base, now.Desired)}}
	}
	for _, p := range patches {
		body, err := p.body()
		if err == nil {
			err = c.conn.Send(iothub.Delivery{Kind: iothub.DesiredPatch, Version: p.Version}.Topic(), body, qos, nil)
		}
		if err != nil {
			c.conn.Close(fmt.Errorf("send desired version %d: %w", p.Version, err)) // told again when it is back
			return
		}
	}
	c.knowsLocked(now)
}
