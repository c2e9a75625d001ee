package main

import (
	"io"
	"net"
	"sync"
)

// link is the wire between the device and the hub: a TCP relay that can be cut and restored.
type link struct {
	addr   string // where the device connects
	target string
	mu     sync.Mutex
	l      net.Listener
	conns  map[net.Conn]bool
}

// newLink opens a relay to target on a loopback port.
func newLink(target string) (*link, error) {
	k := &link{target: target, conns: map[net.Conn]bool{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	k.addr = l.Addr().String()
	k.serve(l)
	return k, nil
}

func (k *link) serve(l net.Listener) {
	k.mu.Lock()
	k.l = l
	k.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go k.relay(c)
		}
	}()
}

func (k *link) relay(down net.Conn) {
	up, err := net.Dial("tcp", k.target)
	if err != nil {
		down.Close()
		return
	}
	k.mu.Lock()
	if k.l == nil { // cut between accept and here
		k.mu.Unlock()
		down.Close()
		up.Close()
		return
	}
	k.conns[down], k.conns[up] = true, true
	k.mu.Unlock()
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{down, up}, {up, down}} {
		wg.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // an error is the end of the connection, which is what follows anyway
			way[0].Close()
			way[1].Close()
		})
	}
	wg.Wait()
	k.mu.Lock()
	delete(k.conns, down)
	delete(k.conns, up)
	k.mu.Unlock()
}

// cut ends every connection and refuses new ones.
func (k *link) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.l != nil {
		k.l.Close()
		k.l = nil
	}
	for c := range k.conns {
		c.Close()
	}
}

// restore opens the relay at its old address again.
func (k *link) restore() error {
	l, err := net.Listen("tcp", k.addr)
	if err != nil {
		return err
	}
	k.serve(l)
	return nil
}
