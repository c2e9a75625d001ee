package linux

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// Modbus application protocol V1.1b3: requests and answers as bytes, without the frame of the line.

type modbusFn byte

const (
	readCoils      modbusFn = 1
	readDiscrete   modbusFn = 2
	readHolding    modbusFn = 3
	readInput      modbusFn = 4
	writeCoil      modbusFn = 5
	writeRegister  modbusFn = 6
	writeCoils     modbusFn = 15
	writeRegisters modbusFn = 16
)

const maxPDU = 253

// modbusRequest is one function on a range. Registers are big-endian pairs of bytes, coils one byte each, 0 or 1.
type modbusRequest struct {
	fn    modbusFn
	addr  uint16
	count int    // reads
	data  []byte // writes
}

// refusals are the exceptions that a unit answers with, by their codes.
var refusals = [...]string{1: "illegal function", 2: "illegal address", 3: "illegal value", 4: "device failure", 5: "acknowledged, not done", 6: "busy", 8: "memory parity", 10: "gateway has no path", 11: "gateway target does not answer"}

// errRefused is the refusal of a unit.
var errRefused = errors.New("the unit refuses")

// modbusFns are the functions by their names, with how many coils or registers one call moves at most.
var modbusFns = [...]struct {
	name      hal.Function
	one, many modbusFn
	width     int // bytes of one in data; 0 = a read
	most      int
}{
	{hal.ReadCoils, readCoils, readCoils, 0, 2000},
	{hal.ReadDiscrete, readDiscrete, readDiscrete, 0, 2000},
	{hal.ReadHolding, readHolding, readHolding, 0, 125},
	{hal.ReadInput, readInput, readInput, 0, 125},
	{hal.WriteCoils, writeCoil, writeCoils, 1, 1968},
	{hal.WriteHoldings, writeRegister, writeRegisters, 2, 123},
}

// modbusCall begins the request of a function that writes so many bytes.
func modbusCall(name hal.Function, size int) (modbusRequest, error) {
	for _, f := range modbusFns {
		switch {
		case f.name != name:
		case f.width == size:
			return modbusRequest{fn: f.one}, nil
		default:
			return modbusRequest{fn: f.many}, nil
		}
	}
	return modbusRequest{}, fmt.Errorf("modbus function %q: %w", clip(string(name)), errors.ErrUnsupported)
}

// encode is the request's PDU; ranges that wrap or do not fit are refused before anything is sent.
func (r modbusRequest) encode() ([]byte, error) {
	count, most := r.count, 0
	for _, f := range modbusFns {
		if f.one != r.fn && f.many != r.fn {
			continue
		}
		if most = f.most; f.width > 0 {
			count = len(r.data) / f.width
		}
		if f.one != f.many && f.one == r.fn {
			most = 1
		}
		if f.width*count != len(r.data) {
			most = 0
		}
	}
	if count < 1 || count > most || int(r.addr)+count > 1<<16 {
		return nil, fmt.Errorf("function %d of %d from %d with %d bytes, at most %d: %w", r.fn, count, r.addr, len(r.data), most, unix.ERANGE)
	}
	b := binary.BigEndian.AppendUint16([]byte{byte(r.fn)}, r.addr)
	switch r.fn {
	case writeCoil:
		v := uint16(0)
		if r.data[0] != 0 {
			v = 0xff00
		}
		b = binary.BigEndian.AppendUint16(b, v)
	case writeRegister:
		b = append(b, r.data...)
	case writeCoils:
		b = binary.BigEndian.AppendUint16(b, uint16(count))
		b = append(b, byte((count+7)/8))
		at := len(b)
		b = append(b, make([]byte, (count+7)/8)...)
		for i, v := range r.data {
			if v != 0 {
				b[at+i/8] |= 1 << (i % 8)
			}
		}
	case writeRegisters:
		b = binary.BigEndian.AppendUint16(b, uint16(count))
		b = append(append(b, byte(len(r.data))), r.data...)
	default:
		b = binary.BigEndian.AppendUint16(b, uint16(count))
	}
	return b, nil
}

// decode checks that a PDU answers the request and returns what was read: registers as they came, coils as bytes.
func (r modbusRequest) decode(pdu []byte) ([]byte, error) {
	if len(pdu) < 2 {
		return nil, fmt.Errorf("%d bytes: %w", len(pdu), unix.EPROTO)
	}
	if pdu[0] == byte(r.fn)|0x80 {
		text := ""
		if int(pdu[1]) < len(refusals) {
			text = refusals[pdu[1]]
		}
		return nil, fmt.Errorf("function %d: exception %d %s: %w", r.fn, pdu[1], text, errRefused)
	}
	if pdu[0] != byte(r.fn) {
		return nil, fmt.Errorf("function %d for %d: %w", pdu[0], r.fn, unix.EPROTO)
	}
	if r.fn <= readInput {
		bits, want := r.fn <= readDiscrete, 2*r.count
		if bits {
			want = (r.count + 7) / 8
		}
		if int(pdu[1]) != want || len(pdu) != 2+want {
			return nil, fmt.Errorf("byte count %d in %d bytes for %d of function %d: %w", pdu[1], len(pdu), r.count, r.fn, unix.EPROTO)
		}
		if !bits {
			return bytes.Clone(pdu[2:]), nil
		}
		out := make([]byte, r.count)
		for i := range out {
			out[i] = pdu[2+i/8] >> (i % 8) & 1
		}
		return out, nil
	}
	sent, err := r.encode()
	if err != nil {
		return nil, err
	}
	if len(pdu) != 5 || string(pdu) != string(sent[:5]) {
		return nil, fmt.Errorf("echo differs from the write: %w", unix.EPROTO)
	}
	return nil, nil
}

// answerLength is the length of the PDU that begins with head, 0 while too little of it is there to know. It is
// what ends a frame early: silence alone would cost the longest answer's time at each request.
func (r modbusRequest) answerLength(head []byte) int {
	switch {
	case len(head) == 0:
		return 0
	case head[0]&0x80 != 0:
		return 2
	case r.fn >= writeCoil:
		return 5
	case len(head) < 2:
		return 0
	}
	return min(2+int(head[1]), maxPDU)
}

// crc16 is the check of an RTU frame, low byte first on the line.
func crc16(b []byte) uint16 {
	c := uint16(0xffff)
	for _, x := range b {
		c ^= uint16(x)
		for range 8 {
			if c&1 != 0 {
				c = c>>1 ^ 0xa001
			} else {
				c >>= 1
			}
		}
	}
	return c
}
