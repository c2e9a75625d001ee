package sandboxtest

import (
	"context"
	"net"
	"sync"
	"syscall"
)

// listener hands one end of a net.Pipe to each of Accept and dial.
type listener struct {
	network, addr string
	conns         chan net.Conn
	closed        chan struct{}
	once          sync.Once
	onClose       func()
}

func newListener(network, addr string, onClose func()) *listener {
	return &listener{
		network: network, addr: addr, onClose: onClose,
		conns: make(chan net.Conn), closed: make(chan struct{}),
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: l.network, Addr: l.Addr(), Err: net.ErrClosed}
	}
}

func (l *listener) dial(ctx context.Context) (net.Conn, error) {
	inside, outside := net.Pipe()
	select {
	case l.conns <- outside:
		return inside, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "dial", Net: l.network, Addr: l.Addr(), Err: syscall.ECONNREFUSED}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.onClose()
	})
	return nil
}

func (l *listener) Addr() net.Addr { return pipeAddr{l.network, l.addr} }

type pipeAddr struct{ network, addr string }

func (a pipeAddr) Network() string { return a.network }
func (a pipeAddr) String() string  { return a.addr }
