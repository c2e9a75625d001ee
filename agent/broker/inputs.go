package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
	"github.com/sandpiper-edge/sandpiper/store"
)

// inputLane is where messages to one input of a module wait.
func inputLane(module, input string) string { return "modules/" + module + "/inputs/" + input }

func parseInputLane(lane string) (module, input string, ok bool) {
	rest, ok := strings.CutPrefix(lane, "modules/")
	if !ok {
		return "", "", false
	}
	module, rest, ok = strings.Cut(rest, "/")
	input, found := strings.CutPrefix(rest, "inputs/")
	return module, input, ok && found
}

// receiver takes messages for a module: its MQTT connection, or a stream of its HTTP socket.
type receiver interface {
	// deliver returns nil when the module has acknowledged the message.
	deliver(ctx context.Context, input string, m message.Message) error
}

// mailbox is where the pumps of one module's lanes meet its receiver. One message is under way at a time over all lanes.
type mailbox struct {
	turn chan struct{} // capacity 1: the right to deliver

	mu        sync.Mutex    // guards what follows
	receivers []receiver    // the last one is served; when it goes, the one before
	changed   chan struct{} // closed and replaced when another one is served
}

func (b *Broker) box(module string) *mailbox {
	b.mu.Lock()
	defer b.mu.Unlock()
	box := b.boxes[module]
	if box == nil {
		box = &mailbox{turn: make(chan struct{}, 1), changed: make(chan struct{})}
		b.boxes[module] = box
	}
	return box
}

// attach makes r the receiver: the newest wins.
func (m *mailbox) attach(r receiver) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Contains(m.receivers, r) {
		m.receivers = append(m.receivers, r)
		m.turnLocked()
	}
}

// detach removes r.
func (m *mailbox) detach(r receiver) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := slices.Index(m.receivers, r); i >= 0 {
		m.receivers = slices.Delete(m.receivers, i, i+1)
		m.turnLocked()
	}
}

func (m *mailbox) turnLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// peek returns the receiver, which may be nil, and a channel that closes when there is another.
func (m *mailbox) peek() (receiver, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.receivers) == 0 {
		return nil, m.changed
	}
	return m.receivers[len(m.receivers)-1], m.changed
}

// ensurePump sees to it that a lane is drained to its module. Nearly always it is already, and no lock is taken.
func (b *Broker) ensurePump(lane string) {
	if _, ok := b.lanes.Load(lane); ok {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.lanes.LoadOrStore(lane, struct{}{}); !ok && b.life != nil {
		b.startPumpLocked(lane)
	}
}

// startPumpLocked starts a pump unless Run is waiting for the last of them.
func (b *Broker) startPumpLocked(lane string) {
	ctx := b.life
	if !b.stopped {
		b.pumps.Go(func() { b.pump(ctx, lane) })
	}
}

// retryPause is how long a pump waits after a delivery or a read that did not work, unless something changes before.
const retryPause = time.Second

// pump delivers one lane in order, a message at a time, for as long as ctx lasts. A message leaves the queue when the module has
// acknowledged it.
func (b *Broker) pump(ctx context.Context, lane string) {
	module, input, _ := parseInputLane(lane)
	box, ready := b.box(module), b.cfg.Queue.Ready(lane)
	for ctx.Err() == nil {
		r, changed := box.peek()
		if r == nil {
			wait(ctx, changed, nil)
			continue
		}
		items, _, err := b.cfg.Queue.Peek(lane, store.Cursor{}, 1, store.MaxBody)
		if err != nil {
			if !errors.Is(err, store.ErrClosed) {
				b.cfg.Logger.Error("input lane not read, trying again", "queue", lane, "err", err)
			}
			pause(ctx, changed)
			continue
		}
		if len(items) == 0 {
			wait(ctx, changed, ready)
			continue
		}
		m, err := message.Decode(items[0].Body)
		if errors.Is(err, message.ErrVersion) {
			b.cfg.Logger.Error("message of a newer agent waits in the lane, update the agent", "queue", lane, "err", err)
			pause(ctx, changed)
			continue
		}
		if err != nil { // it will never decode: the head moves on
			b.cfg.Logger.Error("message skipped, it cannot be read", "queue", lane, "err", err)
		} else if err := b.hand(ctx, box, r, input, m); errors.Is(err, errUndeliverable) {
			b.cfg.Logger.Error("message skipped, it can never be delivered", "queue", lane, "err", err)
		} else if err != nil {
			if ctx.Err() == nil {
				b.cfg.Logger.Debug("message not taken, it stays", "queue", lane, "err", err)
			}
			if !errors.Is(err, errNoAck) { // that took its time already
				pause(ctx, changed)
			}
			continue
		}
		if err := b.cfg.Queue.Ack(lane, items[0]); err != nil && !errors.Is(err, store.ErrClosed) {
			b.cfg.Logger.Error("delivery not noted, the message will be delivered again", "queue", lane, "err", err)
			pause(ctx, changed)
		}
	}
}

// hand delivers when it is this lane's turn.
func (b *Broker) hand(ctx context.Context, box *mailbox, r receiver, input string, m message.Message) error {
	select {
	case box.turn <- struct{}{}:
		defer func() { <-box.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return r.deliver(ctx, input, m)
}

func wait(ctx context.Context, changed, ready <-chan struct{}) {
	select {
	case <-changed:
	case <-ready:
	case <-ctx.Done():
	}
}

func pause(ctx context.Context, changed <-chan struct{}) {
	t := time.NewTimer(retryPause)
	defer t.Stop()
	select {
	case <-changed:
	case <-t.C:
	case <-ctx.Done():
	}
}

// errNoAck is what a delivery ends with when the module does not acknowledge in time; it is delivered again.
var errNoAck = errors.New("no PUBACK in time")

// errUndeliverable is what a delivery ends with that can never succeed.
var errUndeliverable = errors.New("does not fit an MQTT topic")

// deliver sends a message to an input and waits for the PUBACK.
func (c *client) deliver(ctx context.Context, input string, m message.Message) error {
	qos, listens := c.session.qos(iothub.FeatureInputs)
	if !listens {
		return errors.New("module does not listen to inputs")
	}
	topic := iothub.Delivery{Kind: iothub.Input, ID: c.id, Name: input, Bag: m.Input()}.Topic()
	if len(topic) > iothub.MaxTopic {
		return fmt.Errorf("properties of %d bytes: %w", len(topic), errUndeliverable)
	}
	acked := make(chan error, 1) // one answer, also when nobody waits any more
	err := c.send(topic, m.Body, qos, func(err error) { acked <- err })
	if errors.Is(err, mqtt.ErrBusy) && qos > 0 { // it has left a thousand messages without an answer
		c.close(err)
	}
	if err != nil || qos == 0 { // at quality 0 there is no acknowledgement to wait for
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.b.cfg.AckTimeout, errNoAck)
	defer cancel()
	select {
	case err := <-acked:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stream is the receiver behind Inputs.
type stream struct {
	fn func(input string, m message.Message) error

	mu    sync.Mutex // held while fn runs
	ended bool
}

func (s *stream) deliver(_ context.Context, input string, m message.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended { // the pump met it on its way out
		return errors.New("stream has ended")
	}
	return s.fn(input, m)
}

// Inputs calls fn with each message to an input of id, one at a time over all inputs, until ctx ends; a nil error of fn
// acknowledges the message, any other brings it again. While it lasts it takes the place of an MQTT subscription of the same module.
// A call of fn under way ends before Inputs returns.
func (b *Broker) Inputs(ctx context.Context, id iothub.ID, fn func(input string, m message.Message) error) error {
	box, s := b.box(id.Module), &stream{fn: fn}
	box.attach(s)
	<-ctx.Done()
	box.detach(s)
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	return ctx.Err()
}
