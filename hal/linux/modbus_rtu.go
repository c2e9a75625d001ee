package linux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// modbusRTU is the master of one serial line: one request at a time, and the silence between frames is kept here,
// whichever unit is meant.
type modbusRTU struct {
	_    noCompare
	mu   sync.Mutex // held for a request and its answer
	port *tty
	gap  time.Duration // silence beyond t3.5
	last time.Time     // of the last byte in either direction
	buf  [260]byte
}

// t35 is the silence that ends a frame: 3.5 characters, 1.75 ms above 19200 baud (Modbus over serial line V1.02).
func (m *modbusRTU) t35() time.Duration {
	if m.port.mode.Baud > 19200 {
		return 1750 * time.Microsecond
	}
	return character(m.port.mode) * 7 / 2
}

// modbusAnswerTime is how long a unit may think when the caller sets no deadline of its own.
const modbusAnswerTime = time.Second

// do sends one request and waits for the answer.
func (m *modbusRTU) do(ctx context.Context, unit byte, r modbusRequest) ([]byte, error) {
	pdu, err := r.encode()
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.quiet(ctx); err != nil {
		return nil, err
	}
	frame := append(append(m.buf[:0], unit), pdu...)
	frame = binary.LittleEndian.AppendUint16(frame, crc16(frame))
	if err := m.port.discard(); err != nil {
		return nil, err
	}
	if err := m.port.write(ctx, frame); err != nil {
		return nil, err
	}
	wire := time.Duration(len(frame)) * character(m.port.mode)
	m.last = time.Now().Add(wire)
	limit := m.last.Add(modbusAnswerTime)
	if d, ok := ctx.Deadline(); ok {
		limit = d
	}
	answer, err := m.receive(unit, r, limit)
	m.last = time.Now()
	return answer, err
}

// quiet waits until the line has been silent for long enough.
func (m *modbusRTU) quiet(ctx context.Context) error {
	wait := time.Until(m.last.Add(m.t35() + m.gap))
	if wait <= 0 || m.last.IsZero() {
		return ctx.Err()
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// receive reads one frame: as long as its own head says, or up to a silence when the head makes no sense.
func (m *modbusRTU) receive(unit byte, r modbusRequest, limit time.Time) ([]byte, error) {
	n, until := 0, limit
	for n < len(m.buf) {
		got, err := m.port.readSome(m.buf[n:], until)
		n += got
		if errors.Is(err, os.ErrDeadlineExceeded) && n > 0 {
			return m.check(unit, r, m.buf[:n])
		}
		if err != nil {
			return nil, err
		}
		if n > 1 {
			if want := r.answerLength(m.buf[1:n]); want > 0 && n >= 1+want+2 {
				return m.check(unit, r, m.buf[:1+want+2])
			}
		}
		// Adapters hand bytes over in blocks (FTDI every 16 ms): a silence shorter than that ends no frame.
		if until = time.Now().Add(m.t35() + 20*time.Millisecond); until.After(limit) {
			until = limit
		}
	}
	return m.check(unit, r, m.buf[:n])
}

func (m *modbusRTU) check(unit byte, r modbusRequest, frame []byte) ([]byte, error) {
	if len(frame) < 4 {
		return nil, fmt.Errorf("frame of %d bytes: %w", len(frame), unix.EPROTO)
	}
	body, sum := frame[:len(frame)-2], binary.LittleEndian.Uint16(frame[len(frame)-2:])
	if crc16(body) != sum {
		return nil, fmt.Errorf("check sum of the answer: %w", unix.EPROTO)
	}
	if body[0] != unit {
		return nil, fmt.Errorf("unit %d for unit %d: %w", body[0], unit, unix.EPROTO)
	}
	return r.decode(body[1:])
}

func (m *modbusRTU) Close() error { return m.port.Close() }
