package upstream

import (
	"errors"
	"fmt"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/store"
)

const (
	// maxFlight is how many bytes of messages may be in flight; a single message may be more. It bounds how long a ping waits on a slow link.
	maxFlight = 256 << 10
	// stallTime is how long the hub may acknowledge nothing while the network takes nothing either. A hub that changes its leader needs
	// some ten seconds.
	stallTime = time.Minute
	// peekAgain is when a lane that could not be read is tried again.
	peekAgain = 5 * time.Second
)

// flight is one message that the hub has not acknowledged.
type flight struct {
	item  store.Item
	size  int
	since time.Time
	token paho.Token
}

// pump drains the identity's lane into one connection, in order. It belongs to the session's goroutine. A new connection has a new
// pump, which begins at the first message that is not acknowledged.
type pump struct {
	s      *session
	ready  <-chan struct{}
	cursor store.Cursor
	more   bool // the lane may have something
	out    []flight
	bytes  int // in out
	stall  alarm
	hold   alarm // the lane is to be tried again
}

func (p *pump) begin(s *session) {
	p.s, p.more = s, true
	p.ready = s.cfg.Queue.Ready(s.lane)
}

func (p *pump) empty() bool { return len(p.out) == 0 }

// age is how long the oldest message has been in flight.
func (p *pump) age() time.Duration {
	if len(p.out) == 0 {
		return 0
	}
	return time.Since(p.out[0].since)
}

// fill publishes until the window is full or the lane is empty.
func (p *pump) fill() error {
	for p.more && p.s.draining == nil && len(p.out) < p.s.cfg.Window && p.bytes < maxFlight {
		items, cursor, err := p.s.cfg.Queue.Peek(p.s.lane, p.cursor, p.s.cfg.Window-len(p.out), maxFlight-p.bytes)
		if err != nil {
			p.s.log.Warn("queue could not be read", "queue", p.s.lane, "err", err)
			p.more = false
			p.hold.set(peekAgain)
			return nil
		}
		if len(items) == 0 {
			p.more = false
			return nil
		}
		p.cursor = cursor
		for _, item := range items {
			if err := p.send(item); err != nil {
				return err
			}
		}
	}
	return nil
}

// send publishes one item, or drops it when no hub can take it.
func (p *pump) send(item store.Item) error {
	topic, body, err := p.packet(item)
	switch {
	case errors.Is(err, message.ErrVersion):
		return p.keep(item, err)
	case err != nil:
		p.s.log.Error("message can never be sent and was dropped", "queue", p.s.lane, "seq", item.Seq, "err", err)
		p.s.status.change(func(s *LinkStatus) { s.Dropped++ })
		return p.ack(item)
	}
	if err := p.s.kept.pass(p); err != nil {
		return err
	}
	if len(p.out) == 0 {
		p.stall.set(stallTime)
	}
	token := p.s.client.Publish(topic, 1, false, body)
	p.out = append(p.out, flight{item: item, size: len(item.Body), since: time.Now(), token: token})
	p.bytes += len(item.Body)
	return nil
}

// keepPast is how many messages may overtake one that is kept. The queue remembers every acknowledgement behind a gap, up to 4096 of them,
// and would hand out nothing more then.
const keepPast = 2048

// kept are messages of a newer agent, from before it was rolled back. They stay in the queue for the day that it returns, as long as
// they do not hold up the rest.
type kept struct {
	items  []store.Item
	passed int // messages that have overtaken the first
}

func (p *pump) keep(item store.Item, why error) error {
	for _, have := range p.s.kept.items {
		if have.Seq == item.Seq {
			return nil // met again on a new connection
		}
	}
	p.s.log.Warn("message of a newer agent is left in the queue", "queue", p.s.lane, "seq", item.Seq, "err", why)
	item.Body = nil
	p.s.kept.items = append(p.s.kept.items, item)
	return p.s.kept.pass(p)
}

// pass counts a message that overtakes what is kept, and gives that up when it is one too many.
func (k *kept) pass(p *pump) error {
	if len(k.items) == 0 {
		return nil
	}
	if k.passed++; k.passed <= keepPast {
		return nil
	}
	items := k.items
	*k = kept{}
	p.s.log.Error("messages of a newer agent hold up the queue and were dropped", "queue", p.s.lane, "messages", len(items))
	p.s.status.change(func(s *LinkStatus) { s.Dropped += uint64(len(items)) })
	return p.ack(items...)
}

// packet makes topic and body of a stored message. The topic names the identity of this link: a device that was given another name
// sends what it has under that.
func (p *pump) packet(item store.Item) (topic string, body []byte, err error) {
	m, err := message.Decode(item.Body)
	if err != nil {
		return "", nil, err
	}
	if m.Size() > iothub.MaxMessage {
		return "", nil, fmt.Errorf("%w: %d bytes", message.ErrTooLarge, m.Size())
	}
	m = p.timed(m)
	topic = iothub.Publish{Kind: iothub.Telemetry, ID: p.s.id, Bag: m.Upstream()}.Topic()
	if len(topic) > iothub.MaxTopic {
		return "", nil, fmt.Errorf("%w: properties of %d bytes when they are encoded, at most %d", message.ErrTooLarge, len(topic), iothub.MaxTopic)
	}
	return topic, m.Body, nil
}

// late is how long a message may have waited before it says when it was made; for one that did not wait the hub's own time does.
const late = time.Minute

// timed gives a message that waited the time when it was made.
func (p *pump) timed(m message.Message) message.Message {
	at, within := m.Accepted, time.Duration(0)
	if at.IsZero() {
		var ok bool
		if at, within, ok = p.s.cfg.Made(m.Boot, m.Uptime); !ok {
			return m
		}
	} else if p.s.cfg.Now().Sub(at) < late {
		return m
	}
	return m.Timed(at, within)
}

// acked receives when the oldest message in flight is acknowledged. The hub acknowledges in order.
func (p *pump) acked() <-chan struct{} {
	if len(p.out) == 0 {
		return nil
	}
	return p.out[0].token.Done()
}

// collect takes all acknowledgements that are there.
func (p *pump) collect() error {
	n := 0
	items := make([]store.Item, 0, len(p.out))
	for ; n < len(p.out) && done(p.out[n].token); n++ {
		if err := p.out[n].token.Error(); err != nil {
			return errors.Join(p.ack(items...), fmt.Errorf("publish: %w", err))
		}
		items = append(items, store.Item{Seq: p.out[n].item.Seq, Sink: p.out[n].item.Sink, Priority: p.out[n].item.Priority})
		p.bytes -= p.out[n].size
	}
	p.out = append(p.out[:0], p.out[n:]...)
	p.stall.stop()
	if len(p.out) > 0 {
		p.stall.set(stallTime)
	}
	p.s.status.change(func(s *LinkStatus) { s.Sent += uint64(n); s.InFlight = len(p.out) })
	return p.ack(items...)
}

func (p *pump) ack(items ...store.Item) error {
	if err := p.s.cfg.Queue.Ack(p.s.lane, items...); err != nil {
		return fmt.Errorf("acknowledge in queue %s: %w", p.s.lane, err)
	}
	return nil
}

// moving says whether the network has taken something of what is in flight within the last stallTime, and sets the alarm for the next look.
func (p *pump) moving() bool {
	idle := time.Since(p.s.wire.progress())
	if idle >= stallTime {
		return false
	}
	p.stall.set(stallTime - idle)
	return true
}

func done(t paho.Token) bool {
	select {
	case <-t.Done():
		return true
	default:
		return false
	}
}
