package main

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// load is a publisher that keeps a window of QoS 1 publishes in flight: the same for every broker it is pointed at.
type load struct {
	addr     string
	tls      *tls.Config // nil = in the clear
	clients  int
	window   int
	messages int // of all clients together
	size     int // bytes of body
	login    func(client int) (id, user, password string)
	topic    func(client int) string
}

// run publishes everything and returns acknowledged publishes per second.
func (l load) run() (float64, error) {
	conns := make([]*publisher, l.clients)
	for i := range conns {
		p, err := l.connect(i)
		if err != nil {
			return 0, err
		}
		defer p.nc.Close()
		conns[i] = p
	}
	each := l.messages / l.clients
	start := time.Now()
	errs := make([]error, l.clients)
	var wg sync.WaitGroup
	for i, p := range conns {
		wg.Go(func() { errs[i] = p.publish(each, l.window) })
	}
	wg.Wait()
	took := time.Since(start)
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	return float64(each*l.clients) / took.Seconds(), nil
}

type publisher struct {
	nc    net.Conn
	r     *bufio.Reader
	frame []byte // a whole PUBLISH; only the packet id changes
	idAt  int
}

func (l load) connect(i int) (*publisher, error) {
	dial := net.Dial
	if l.tls != nil {
		dial = (&tls.Dialer{Config: l.tls}).Dial
	}
	nc, err := dial("tcp", l.addr)
	if err != nil {
		return nil, err
	}
	id, user, password := l.login(i)
	var body []byte
	text := func(s string) { body = append(binary.BigEndian.AppendUint16(body, uint16(len(s))), s...) }
	text("MQTT")
	flags := byte(2) // clean session
	if user != "" {
		flags |= 0xc0
	}
	body = append(body, 4, flags, 0, 60)
	text(id)
	if user != "" {
		text(user)
		text(password)
	}
	if _, err := nc.Write(append(appendLength([]byte{0x10}, len(body)), body...)); err != nil {
		return nil, err
	}
	p := &publisher{nc: nc, r: bufio.NewReaderSize(nc, 16<<10)}
	var connack [4]byte
	if _, err := io.ReadFull(p.r, connack[:]); err != nil {
		return nil, fmt.Errorf("connack: %w", err)
	}
	if connack[0] != 0x20 || connack[3] != 0 {
		return nil, fmt.Errorf("connack: got % x, want accepted", connack)
	}
	topic, payload := l.topic(i), make([]byte, l.size)
	for j := range payload {
		payload[j] = 'x'
	}
	p.frame = appendLength([]byte{0x32}, 2+len(topic)+2+len(payload))
	p.frame = append(binary.BigEndian.AppendUint16(p.frame, uint16(len(topic))), topic...)
	p.idAt = len(p.frame)
	p.frame = append(append(p.frame, 0, 0), payload...)
	return p, nil
}

func appendLength(b []byte, n int) []byte {
	for ; n >= 128; n >>= 7 {
		b = append(b, byte(n)|128)
	}
	return append(b, byte(n))
}

// publish sends n messages with at most window of them unacknowledged.
func (p *publisher) publish(n, window int) error {
	slots := make(chan struct{}, window)
	acked := make(chan error, 1)
	go func() {
		var ack [4]byte
		for i := range n {
			if _, err := io.ReadFull(p.r, ack[:]); err != nil {
				acked <- err
				return
			}
			if got := binary.BigEndian.Uint16(ack[2:]); ack[0] != 0x40 || got != uint16(i%65535+1) {
				acked <- fmt.Errorf("got % x, want the PUBACK of %d", ack, i%65535+1)
				return
			}
			<-slots
		}
		acked <- nil
	}()
	w := bufio.NewWriterSize(p.nc, 16<<10)
	for i := range n {
		select {
		case slots <- struct{}{}:
		default:
			if err := w.Flush(); err != nil {
				return err
			}
			select {
			case slots <- struct{}{}:
			case err := <-acked:
				return err
			}
		}
		binary.BigEndian.PutUint16(p.frame[p.idAt:], uint16(i%65535+1))
		if _, err := w.Write(p.frame); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return <-acked
}
