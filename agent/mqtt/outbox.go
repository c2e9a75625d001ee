package mqtt

import (
	"fmt"
	"math"
	"time"
)

const (
	// maxFlights is how many QoS 1 messages may wait for the client's PUBACK: far more than the dialect ever has under way, far fewer than identifiers.
	maxFlights = 1024
	// writeTimeout ends a connection whose client has not taken a byte for so long.
	writeTimeout = 60 * time.Second
	// closeGrace is how long the end of a connection may take to get its last bytes out.
	closeGrace = time.Second
	// keepBuffer is the largest write buffer, in bytes, that an idle connection keeps.
	keepBuffer = 16 << 10
	// maxRemaining is the largest body that MQTT can express, bytes.
	maxRemaining = 1<<28 - 1
)

// Send queues a message to the client and returns at once; payload is copied. With QoS 1 acked (which may be nil) is called exactly once
// if Send returned nil: with nil on the client's PUBACK, with the reason when the connection ends first. It runs on the
// connection's reading goroutine and must not block. With QoS 0 it is never called.
// ErrBusy: the client does not take what it has got already. ErrClosed: the connection has ended.
func (c *Conn) Send(topic string, payload []byte, qos byte, acked func(error)) error {
	if len(topic) > math.MaxUint16 || publishSize(topic, payload, qos) > maxRemaining || qos > 1 {
		return fmt.Errorf("send PUBLISH: topic of %d bytes, payload of %d, QoS %d: not sendable", len(topic), len(payload), qos)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	if n := len(c.out); n > 0 && n+len(payload) > c.srv.cfg.Outbox || qos > 0 && len(c.flights) >= maxFlights {
		return ErrBusy
	}
	var id uint16
	if qos > 0 {
		id = c.flightLocked(acked)
	}
	c.out = appendPublish(c.out, topic, payload, qos, id)
	c.signalLocked()
	return nil
}

// flightLocked enters acked under the next free identifier.
func (c *Conn) flightLocked(acked func(error)) uint16 {
	if c.flights == nil {
		c.flights = map[uint16]func(error){}
	}
	for {
		c.lastID++
		if _, used := c.flights[c.lastID]; !used && c.lastID != 0 {
			c.flights[c.lastID] = acked
			return c.lastID
		}
	}
}

// landed handles the client's PUBACK. An unknown identifier means nothing to anybody and is ignored.
func (c *Conn) landed(id uint16) {
	c.mu.Lock()
	acked := c.flights[id]
	delete(c.flights, id)
	c.mu.Unlock()
	if acked != nil {
		acked(nil)
	}
}

// reply queues a control packet, after waiting until the client has taken what it asked for before. False: the connection has ended.
func (c *Conn) reply(packet []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.waitLocked(func() bool { return len(c.out) < c.srv.cfg.Outbox }) {
		return false
	}
	c.out = append(c.out, packet...)
	c.signalLocked()
	return true
}

// waitLocked makes the reading goroutine wait until ready. False: the connection has ended. The lock is not held meanwhile.
func (c *Conn) waitLocked(ready func() bool) bool {
	for !c.closed && !ready() {
		c.blocked = true
		c.mu.Unlock()
		select {
		case <-c.room:
		case <-c.done:
		}
		c.mu.Lock()
	}
	return !c.closed
}

// signalLocked wakes whoever may go on after a change: the writer when there is something to write, the reader when it waits for room.
func (c *Conn) signalLocked() {
	if c.idle && (len(c.out) > 0 || c.closed) {
		c.idle = false
		c.wake <- struct{}{} // never blocks: capacity 1, and idle says it is empty
	}
	if c.blocked {
		c.blocked = false
		select {
		case c.room <- struct{}{}: // capacity 1: a signal already there says the same
		default:
		}
	}
}

// writeLoop is the second goroutine of a connection: it writes all that is there, then waits. It returns when the connection has ended
// and its last bytes are out, or cannot get out.
func (c *Conn) writeLoop() {
	defer close(c.written)
	var buf []byte
	for {
		var closed bool
		if buf, closed = c.take(buf); closed && len(buf) == 0 {
			return
		}
		_ = c.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
		select {
		case <-c.done: // end may have set its deadline before ours
			_ = c.nc.SetWriteDeadline(time.Now().Add(closeGrace))
		default:
		}
		if _, err := c.nc.Write(buf); err != nil {
			c.Close(fmt.Errorf("write: %w", err))
			return
		}
		if cap(buf) > keepBuffer {
			buf = nil
		}
	}
}

// take swaps the outbox for an empty buffer, waiting until it holds something or the connection has ended.
func (c *Conn) take(empty []byte) (full []byte, closed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) == 0 && !c.closed {
		c.idle = true
		c.mu.Unlock()
		<-c.wake
		c.mu.Lock()
	}
	full, c.out = c.out, empty[:0]
	c.signalLocked()
	return full, c.closed
}

// abandon ends the flights and the window: nobody will be told of an acknowledgement any more.
func (c *Conn) abandon(reason error) {
	c.mu.Lock()
	flights := c.flights
	c.flights, c.first, c.last = nil, nil, nil
	c.mu.Unlock()
	for _, acked := range flights {
		if acked != nil {
			c.contain("acked", func() { acked(reason) })
		}
	}
}

// pingresp is what a PINGREQ gets.
var pingresp = []byte{kindPingresp << 4, 0}
