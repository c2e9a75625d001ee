package hubtest

import (
	"context"
	"net"
	"sync"
)

// gate is a listener that can be shut with all that came through it, and opened again at its address. To its owner it is one
// listener all the time.
type gate struct {
	mu      sync.Mutex // guards all
	address net.Addr
	inner   net.Listener // nil while shut
	conns   map[net.Conn]struct{}
	changed chan struct{} // closed and replaced when inner changes
	closed  bool
}

func (g *gate) open(ctx context.Context, network, address string) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, network, address)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.address, g.inner, g.conns, g.changed = l.Addr(), l, map[net.Conn]struct{}{}, make(chan struct{})
	return nil
}

// cut shuts the gate.
func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inner == nil {
		return
	}
	_ = g.inner.Close() // nothing to be done about a door that does not shut
	g.inner = nil
	for c := range g.conns {
		_ = c.Close()
	}
	g.wakeLocked()
}

func (g *gate) wakeLocked() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// restore opens a gate that was cut.
func (g *gate) restore(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inner != nil || g.closed {
		return nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, g.address.Network(), g.address.String())
	if err != nil {
		return err
	}
	g.inner = l
	g.wakeLocked()
	return nil
}

// Accept implements net.Listener. It waits while the gate is shut.
func (g *gate) Accept() (net.Conn, error) {
	for {
		g.mu.Lock()
		l, changed, closed := g.inner, g.changed, g.closed
		g.mu.Unlock()
		if closed {
			return nil, net.ErrClosed
		}
		if l == nil {
			<-changed
			continue
		}
		c, err := l.Accept()
		if err == nil {
			return g.admit(l, c)
		}
		g.mu.Lock()
		mine := g.inner == l && !g.closed
		g.mu.Unlock()
		if mine {
			return nil, err
		}
	}
}

// admit remembers a connection, unless the gate was shut meanwhile: then its next read fails.
func (g *gate) admit(l net.Listener, c net.Conn) (net.Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inner != l {
		_ = c.Close()
		return c, nil
	}
	g.conns[c] = struct{}{}
	return passage{c, g}, nil
}

// Close implements net.Listener.
func (g *gate) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	defer g.wakeLocked()
	if g.inner == nil {
		return nil
	}
	return g.inner.Close()
}

// Addr implements net.Listener.
func (g *gate) Addr() net.Addr { return g.address }

// passage is a connection through a gate.
type passage struct {
	net.Conn
	gate *gate
}

// Close implements net.Conn.
func (p passage) Close() error {
	p.gate.mu.Lock()
	delete(p.gate.conns, p.Conn)
	p.gate.mu.Unlock()
	return p.Conn.Close()
}
