package broker

import (
	"net"
	"sync"

	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
)

// connections is how many an HTTPS door takes at a time, idle ones included; more wait in the kernel's backlog. A module that opens
// thousands keeps itself out, and the agent's descriptors are not its to use up.
func connections(origin mqtt.Origin) int {
	if origin.ID.IsZero() {
		return maxRequests
	}
	return 32
}

// limited is a listener that has so many connections open at a time.
type limited struct {
	net.Listener
	slots  chan struct{}
	full   func() // told when there is no slot left
	closed chan struct{}
	once   sync.Once
}

func limit(l net.Listener, n int, full func()) net.Listener {
	return &limited{Listener: l, full: full, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

// Accept implements net.Listener; it waits until one of the connections is closed.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	default:
		l.full()
		select {
		case l.slots <- struct{}{}:
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
	nc, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &counted{Conn: nc, free: sync.OnceFunc(func() { <-l.slots })}, nil
}

// Close implements net.Listener.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type counted struct {
	net.Conn
	free func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	defer c.free()
	return c.Conn.Close()
}
