package linux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// modbusTCP is the one connection to an address: many devices take only one. It is dialled at the first request
// and again after an error.
type modbusTCP struct {
	_       noCompare
	mu      sync.Mutex // held for a request and its answer
	address string
	conn    net.Conn
	id      uint16
	buf     [7 + maxPDU]byte
}

// do sends one request and waits for its answer; answers to requests that were given up are read over.
func (m *modbusTCP) do(ctx context.Context, unit byte, r modbusRequest) ([]byte, error) {
	pdu, err := r.encode()
	if err != nil {
		return nil, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, modbusAnswerTime)
		defer cancel()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn == nil {
		var d net.Dialer
		if m.conn, err = d.DialContext(ctx, "tcp", m.address); err != nil {
			m.conn = nil
			return nil, err
		}
	}
	answer, err := m.exchange(ctx, unit, r, pdu)
	if err != nil && !errors.Is(err, errRefused) {
		m.conn.Close()
		m.conn = nil
	}
	return answer, err
}

func (m *modbusTCP) exchange(ctx context.Context, unit byte, r modbusRequest, pdu []byte) ([]byte, error) {
	if err := m.conn.SetDeadline(deadlineOf(ctx)); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = m.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	m.id++
	if _, err := m.conn.Write(appendMBAP(m.buf[:0], m.id, unit, pdu)); err != nil {
		return nil, err
	}
	for range 16 {
		id, from, got, err := readMBAP(m.conn, m.buf[:])
		if err != nil {
			return nil, err
		}
		if id != m.id {
			continue
		}
		if from != unit {
			return nil, fmt.Errorf("unit %d for unit %d: %w", from, unit, unix.EPROTO)
		}
		return r.decode(got)
	}
	return nil, fmt.Errorf("answers to other requests only: %w", unix.EPROTO)
}

func appendMBAP(b []byte, id uint16, unit byte, pdu []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, id)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(1+len(pdu)))
	return append(append(b, unit), pdu...)
}

// readMBAP reads one frame into buf, which holds the longest there is.
func readMBAP(r io.Reader, buf []byte) (id uint16, unit byte, pdu []byte, err error) {
	if _, err := io.ReadFull(r, buf[:7]); err != nil {
		return 0, 0, nil, err
	}
	length := int(binary.BigEndian.Uint16(buf[4:]))
	if binary.BigEndian.Uint16(buf[2:]) != 0 || length < 2 || length > 1+maxPDU {
		return 0, 0, nil, fmt.Errorf("header %x: %w", buf[:7], unix.EPROTO)
	}
	id, unit = binary.BigEndian.Uint16(buf), buf[6]
	pdu = buf[7 : 6+length]
	if _, err := io.ReadFull(r, pdu); err != nil {
		return 0, 0, nil, err
	}
	return id, unit, pdu, nil
}

func (m *modbusTCP) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn == nil {
		return nil
	}
	return m.conn.Close()
}
