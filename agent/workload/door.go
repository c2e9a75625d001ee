package workload

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// door is a listener that lets in only processes with a user id of its module, and at most maxConns of them at a time: when
// that many are inside, others wait at the socket.
type door struct {
	net.Listener
	socket *socket
	places chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newDoor(l net.Listener, k *socket) *door {
	return &door{Listener: l, socket: k, places: make(chan struct{}, maxConns), closed: make(chan struct{})}
}

// Accept returns the next connection of the module itself.
func (d *door) Accept() (net.Conn, error) {
	select {
	case d.places <- struct{}{}:
	default:
		d.socket.bound(d.socket.cfg.Crowded)
		select {
		case d.places <- struct{}{}:
		case <-d.closed:
			return nil, net.ErrClosed
		}
	}
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			<-d.places
			return nil, err
		}
		why := d.judge(conn)
		if why == nil {
			return &guest{Conn: conn, leave: sync.OnceFunc(func() { <-d.places })}, nil
		}
		if k := d.socket; k.warned.first(why.Error()) {
			k.log.Warn("connection to a module's socket refused", "identity", k.caller.ID.String(), "err", why)
		}
		_ = conn.Close()
	}
}

// Close ends Accept, also one that waits for a place.
func (d *door) Close() error {
	d.once.Do(func() { close(d.closed) })
	return d.Listener.Close()
}

// judge compares the peer's user id, as the kernel saw it at connect, with the module's range.
func (d *door) judge(conn net.Conn) error {
	peer, ok := conn.(*net.UnixConn)
	if !ok {
		return errors.New("not a unix socket, so nobody knows who is there")
	}
	raw, err := peer.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return credErr
	}
	c := d.socket.caller
	if cred.Uid < c.UIDBase || cred.Uid-c.UIDBase >= c.UIDCount {
		return fmt.Errorf("a process of uid %d is not one of this module's (%d, %d of them)", cred.Uid, c.UIDBase, c.UIDCount)
	}
	return nil
}

// guest is a connection that gives its place back when it is closed.
type guest struct {
	net.Conn
	leave func()
}

// Close closes the connection and frees its place.
func (g *guest) Close() error {
	g.leave()
	return g.Conn.Close()
}
