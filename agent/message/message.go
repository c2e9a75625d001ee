package message

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Errors of [FromPublish]. Both are final: the same publish will never be a message.
var (
	ErrTooLarge = errors.New("message too large") // beyond iothub.MaxMessage or iothub.MaxProperties
	ErrInvalid  = errors.New("message invalid")   // text that is not UTF-8, a source that is nobody
)

// Message is one telemetry message. The zero value is empty and valid.
type Message struct {
	Source   iothub.ID  // who published it, by the authenticated connection, never by the payload
	Output   string     // the module's output ($.on), "" = none
	Bag      iothub.Bag // properties, system ones by their $.-keys, without $.on, $.cdid, $.cmid
	Body     []byte
	Accepted time.Time // when the agent took it, whole microseconds, UTC; zero = the time was not known
	ID       string    // ours, unique for each accepted message; may be empty; not sent upstream

	// Boot and Uptime say when the agent took it where the time was not known: in which boot of the device, and how long after its
	// start, in whole microseconds. The time is found when it is known, before the message leaves.
	Boot   string
	Uptime time.Duration
}

// Untimed returns the message of a device that does not know the time.
func (m Message) Untimed(boot string, uptime time.Duration) Message {
	m.Accepted, m.Boot, m.Uptime = time.Time{}, boot, max(0, uptime.Truncate(time.Microsecond))
	return m
}

// Timed returns the message with the property that says when it was made, unless its sender said so itself, or it would be too large
// then. within is how far the time may be off, zero = it is known.
func (m Message) Timed(at time.Time, within time.Duration) Message {
	if _, said := m.Bag.Get(iothub.PropCreated); said {
		return m
	}
	more := iothub.Bag{{Key: iothub.PropCreated, Value: at.UTC().Format("2006-01-02T15:04:05.000000Z")}}
	if within > 0 {
		more = append(more, iothub.Property{Key: PropUncertain, Value: strconv.FormatInt(int64(within.Seconds()+1), 10)})
	}
	if m.Size()+more.Size() > iothub.MaxMessage || len(m.Bag)+len(more) > iothub.MaxProperties {
		return m
	}
	m.Bag = append(slices.Clip(m.Bag), more...)
	return m
}

// PropUncertain is the property that says by how many seconds the creation time may be too late, where the device found it out
// afterwards.
const PropUncertain = "sandpiper-time-uncertainty"

// FromPublish makes the message that src published at now. It takes over bag and body. $.on becomes Output, and
// $.cdid and $.cmid, which only a server may set, are dropped. A message whose properties and body together exceed
// [iothub.MaxMessage] wraps [ErrTooLarge]; what could not be stored and read back wraps [ErrInvalid].
func FromPublish(src iothub.ID, bag iothub.Bag, body []byte, now time.Time) (Message, error) {
	if size := bag.Size() + len(body); size > iothub.MaxMessage {
		return Message{}, fmt.Errorf("%w: %d bytes of body and properties, at most %d", ErrTooLarge, size, iothub.MaxMessage)
	}
	if len(bag) > iothub.MaxProperties {
		return Message{}, fmt.Errorf("%w: %d properties, at most %d", ErrTooLarge, len(bag), iothub.MaxProperties)
	}
	if _, err := iothub.NewID(src.Device, src.Module); err != nil {
		return Message{}, fmt.Errorf("%w: source: %w", ErrInvalid, err)
	}
	m := Message{Source: src, Body: body, Accepted: now.UTC().Truncate(time.Microsecond)}
	for _, p := range bag {
		if !utf8.ValidString(p.Key) || !utf8.ValidString(p.Value) {
			return Message{}, fmt.Errorf("%w: property %q is not UTF-8", ErrInvalid, p.Key[:min(len(p.Key), 64)])
		}
	}
	kept := bag[:0] // in place: the bag is ours now
	for _, p := range bag {
		switch p.Key {
		case iothub.PropOutput:
			if m.Output == "" {
				m.Output = p.Value
			}
		case iothub.PropSourceDevice, iothub.PropSourceModule:
		default:
			kept = append(kept, p)
		}
	}
	if len(kept) > 0 {
		m.Bag = kept
	}
	return m, nil
}

// Size is the bytes of body and properties as the service counts them: decoded keys and values.
func (m Message) Size() int {
	n := m.Bag.Size() + len(m.Body)
	if m.Output != "" {
		n += len(iothub.PropOutput) + len(m.Output)
	}
	return n
}

// Upstream returns the properties for the topic to the hub: all of them, $.on back in front.
func (m Message) Upstream() iothub.Bag {
	if m.Output == "" {
		return m.Bag
	}
	bag := make(iothub.Bag, 0, len(m.Bag)+1)
	bag = append(bag, iothub.Property{Key: iothub.PropOutput, Value: m.Output})
	return append(bag, m.Bag...)
}

// Input returns the properties for delivery to a module's input: who sent it ($.cdid, and $.cmid when that is a
// module), the system properties that edgeHub passes on, all application properties. $.on, $.ifid and the
// diagnostic pair stay behind.
func (m Message) Input() iothub.Bag {
	bag := make(iothub.Bag, 0, len(m.Bag)+2)
	bag = append(bag, iothub.Property{Key: iothub.PropSourceDevice, Value: m.Source.Device})
	if m.Source.IsModule() {
		bag = append(bag, iothub.Property{Key: iothub.PropSourceModule, Value: m.Source.Module})
	}
	for _, p := range m.Bag {
		switch p.Key {
		case iothub.PropOutput, iothub.PropInterface, iothub.PropDiagnosticID, iothub.PropDiagnostics,
			iothub.PropSourceDevice, iothub.PropSourceModule:
		default:
			bag = append(bag, p)
		}
	}
	return bag
}
