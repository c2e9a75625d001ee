package upstream

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

const (
	// maxOutbox bounds what waits to be written: the window's bytes, answers to methods, a twin patch, with room to spare. More means that
	// something here does not keep to its bounds.
	maxOutbox = 4 << 20
	// chunk is how much is written at a time, so that progress on a slow link is seen; it is also what a TLS record holds.
	chunk = 16 << 10
	// lingerTime is how long a closing connection may take to write what waits.
	lingerTime = time.Second
)

// errClosedHere is what reading gives after this side has closed the connection. The client library does not notice the
// standard library's own error for that.
var errClosedHere = errors.New("connection ended by this side")

var errOutbox = errors.New("too much waits to be written to the hub")

// wire is a connection whose Write does not wait for the network: what is written goes out behind the caller's back, as much as
// there is at a time. The client library makes one write of each packet; this makes one of many, and lets a publish return at
// once, so that the one goroutine of a session is never stuck behind a slow link.
type wire struct {
	net.Conn
	wrote atomic.Int64 // unix nanoseconds when the network last took something other than a ping
	wake  chan struct{}
	ended chan struct{} // closed when the writing goroutine is over
	comes packetLengths // the reader's alone

	mu      sync.Mutex
	out     []byte // to be written
	spare   []byte // to be out when out has been taken
	err     error  // of the first write that failed
	closing bool
}

func newWire(conn net.Conn) *wire {
	w := &wire{Conn: conn, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	w.wrote.Store(time.Now().UnixNano())
	go w.flush()
	return w
}

// Write takes p and returns.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.err != nil:
		return 0, w.err
	case w.closing:
		return 0, errClosedHere
	case len(w.out)+len(p) > maxOutbox:
		return 0, errOutbox
	}
	w.out = append(w.out, p...)
	signal(w.wake)
	return len(p), nil
}

// Read reads from the network; after Close it gives errClosedHere, after a write that failed that write's error, and for a packet that is too long
// what that would be.
func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if long := w.comes.pass(p[:n]); long != nil {
		return 0, long // the library has not seen the length
	}
	if err == nil {
		return n, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closing:
		return n, errClosedHere
	case w.err != nil:
		return n, w.err
	}
	return n, err
}

// Close writes what waits, if the network takes it within a second, and closes the connection. It does not wait for that.
func (w *wire) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closing {
		return nil
	}
	w.closing = true
	signal(w.wake)
	return w.Conn.SetWriteDeadline(time.Now().Add(lingerTime))
}

// SetWriteDeadline does nothing: a write here does not wait.
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline bounds reading, which is what a handshake waits for.
func (w *wire) SetDeadline(t time.Time) error { return w.SetReadDeadline(t) }

// progress is when the network last took something of what is written. A ping alone is none: it goes out at its own pace, whatever the hub does.
func (w *wire) progress() time.Time { return time.Unix(0, w.wrote.Load()) }

// flush is the writing goroutine.
func (w *wire) flush() {
	defer close(w.ended)
	defer w.Conn.Close()
	for {
		out, closing := w.take()
		if len(out) == 0 {
			if closing {
				return
			}
			<-w.wake
			continue
		}
		for rest := out; len(rest) > 0; {
			n, err := w.Conn.Write(rest[:min(len(rest), chunk)])
			if err != nil {
				w.mu.Lock()
				w.err = err
				w.mu.Unlock()
				return
			}
			if out[0] != packets.Pingreq<<4 || len(out) > 2 {
				w.wrote.Store(time.Now().UnixNano())
			}
			rest = rest[n:]
		}
		w.give(out)
	}
}

func (w *wire) take() (out []byte, closing bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out, w.out, w.spare = w.out, w.spare, nil
	return out, w.closing
}

// give hands a buffer back for reuse, unless it has grown large.
func (w *wire) give(out []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if cap(out) <= 4*chunk {
		w.spare = out[:0]
	}
}
