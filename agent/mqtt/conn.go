package mqtt

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

// Reasons with which a session sees Closed, beside those of the network.
var (
	ErrClosed    = errors.New("connection closed")
	ErrReplaced  = errors.New("replaced by a newer connection of the same client")
	ErrStopped   = errors.New("server stopping")
	ErrKeepAlive = errors.New("nothing heard from the client within 1.5 times its keep-alive")
	ErrPanic     = errors.New("handler panicked")
)

// ErrBusy is returned by Conn.Send when the client does not take what it has got already.
var ErrBusy = errors.New("client takes nothing")

// Conn is one client's connection after its CONNECT was accepted. All methods but AfterReply may be called from any goroutine.
type Conn struct {
	srv     *Server
	nc      net.Conn
	hello   Hello
	session Session
	r       *bufio.Reader
	clock   *clock
	prev    *Conn // the connection this one replaced; nil = none

	done    chan struct{} // closed when the connection is to end
	written chan struct{} // closed when the writer has ended
	gone    chan struct{} // closed when the session has seen Closed
	wake    chan struct{} // to the writer; capacity 1
	room    chan struct{} // to the reader; capacity 1

	after []func() // of the reading goroutine only

	mu           sync.Mutex // guards what follows
	out          []byte     // packets on their way out
	first, last  *Publish   // not yet acknowledged, in the order they came
	unacked      int
	unackedBytes int
	flights      map[uint16]func(error) // sent with QoS 1, by packet identifier
	lastID       uint16
	idle         bool // the writer waits on wake
	blocked      bool // the reader waits on room
	closed       bool
	reason       error // why; nil after DISCONNECT
}

// ClientID of the CONNECT.
func (c *Conn) ClientID() string { return c.hello.ClientID }

// Hello is the CONNECT that opened this connection.
func (c *Conn) Hello() Hello { return c.hello }

// Done is closed when the connection is to end; a session that waits for something waits for this as well.
func (c *Conn) Done() <-chan struct{} { return c.done }

// AfterReply runs fn once the answer to the packet being handled (the SUBACK) has been queued, so that what fn sends comes after it. Only
// the session's own methods may call it, and fn runs on their goroutine.
func (c *Conn) AfterReply(fn func()) { c.after = append(c.after, fn) }

// Close ends the connection: what is queued is written for at most a second, then the session sees Closed(reason). It returns at once; nil
// stands for ErrClosed; only the first reason counts.
func (c *Conn) Close(reason error) {
	if reason == nil {
		reason = ErrClosed
	}
	c.end(reason)
}

func (c *Conn) end(reason error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed, c.reason = true, reason
	c.signalLocked()
	c.mu.Unlock()
	close(c.done)
	now := time.Now()
	_ = c.nc.SetReadDeadline(now)
	_ = c.nc.SetWriteDeadline(now.Add(closeGrace))
}

// run serves an accepted connection to its end.
func (c *Conn) run() {
	go c.writeLoop()
	c.contain("session", func() {
		c.reply(appendConnack(nil, resumed(c.session), Accepted))
		c.session.Opened(c)
		c.runAfter()
		c.end(c.readLoop())
	})
	c.finish()
}

// finish tears down in the order that handlers rely on: nothing more is written, flights fail, Closed, gone.
func (c *Conn) finish() {
	<-c.written
	_ = c.nc.Close()
	if c.prev != nil {
		<-c.prev.gone
	}
	c.mu.Lock()
	reason := c.reason
	c.mu.Unlock()
	flightReason := reason
	if flightReason == nil {
		flightReason = ErrClosed
	}
	c.abandon(flightReason)
	c.contain("closed", func() { c.session.Closed(reason) })
	c.srv.release(c)
	close(c.gone)
}

// contain keeps a panic of the handler from ending the process: it ends this connection and is logged with its stack.
func (c *Conn) contain(what string, fn func()) {
	defer func() {
		if v := recover(); v != nil {
			c.srv.cfg.Logger.Error("handler panicked", slog.String("identity", c.hello.ClientID), slog.String("call", what),
				slog.Any("err", v), slog.String("stack", string(debug.Stack())))
			c.end(fmt.Errorf("%w: %v", ErrPanic, v))
		}
	}()
	fn()
}

// readLoop returns why reading ended; nil after a DISCONNECT.
func (c *Conn) readLoop() error {
	var topic string
	for {
		select {
		case <-c.done: // closed by the session while it handled the last packet: the ones that came with it are not looked at
			return nil
		default:
		}
		h, err := readHeader(c.r, c.srv.cfg.MaxPacket)
		if err != nil {
			return c.readError(err)
		}
		switch h.kind {
		case kindPublish:
			p, err := readPublish(c.r, h, topic)
			if err != nil {
				return c.readError(err)
			}
			c.clock.heard = true
			topic = p.Topic
			if p.QoS > 0 && !c.admit(p) {
				return nil // the reason is already set
			}
			c.session.Publish(p)
		case kindDisconnect:
			return nil
		default:
			body, err := readBody(c.r, h.size)
			if err != nil {
				return c.readError(err)
			}
			c.clock.heard = true
			if err := c.control(h.kind, body); err != nil {
				return err
			}
		}
		c.runAfter()
	}
}

// control handles the packets that are neither data nor the end.
func (c *Conn) control(kind byte, body []byte) error {
	switch kind {
	case kindPuback:
		c.landed(binary.BigEndian.Uint16(body))
	case kindPingreq:
		c.reply(pingresp)
	case kindSubscribe:
		id, subs, err := parseSubscribe(body)
		if err != nil {
			return err
		}
		codes := c.session.Subscribe(subs)
		if len(codes) != len(subs) {
			return fmt.Errorf("session answered %d filters with %d codes", len(subs), len(codes))
		}
		c.reply(appendSuback(nil, id, codes))
	case kindUnsubscribe:
		id, filters, err := parseUnsubscribe(body)
		if err != nil {
			return err
		}
		c.session.Unsubscribe(filters)
		c.reply(appendUnsuback(nil, id))
	case kindConnect:
		return errors.New("second CONNECT on one connection")
	}
	return nil
}

func (c *Conn) runAfter() {
	for i := 0; i < len(c.after); i++ {
		c.after[i]()
	}
	clear(c.after)
	c.after = c.after[:0]
}

// readError says in one's own words why a read failed.
func (c *Conn) readError(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return ErrKeepAlive
	case errors.Is(err, io.EOF):
		return fmt.Errorf("read: %w without DISCONNECT", io.EOF)
	}
	return fmt.Errorf("read: %w", err)
}

// clock is a connection's read side: before it waits for the network it renews the keep-alive deadline, but only if a whole packet has
// come since, so that a client that drips single bytes does not live for ever.
type clock struct {
	nc    net.Conn
	limit time.Duration   // 1.5 times the keep-alive; 0 = the deadline that is set already
	heard bool            // a packet was completed
	done  <-chan struct{} // nil before the connection is accepted
}

// Read implements io.Reader.
func (k *clock) Read(p []byte) (int, error) {
	if k.heard && k.limit > 0 {
		k.heard = false
		if err := k.nc.SetReadDeadline(time.Now().Add(k.limit)); err != nil {
			return 0, err
		}
		select {
		case <-k.done: // end set its own deadline before ours: do not wait
			return 0, ErrClosed
		default:
		}
	}
	return k.nc.Read(p)
}
