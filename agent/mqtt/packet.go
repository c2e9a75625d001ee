package mqtt

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// Upper bounds of a packet's body in bytes, checked before anything is allocated for it. PUBLISH has Config.MaxPacket.
const (
	maxConnect   = 72 << 10 // a will of 64 KiB, names and a token
	maxSubscribe = 8 << 10  // the dialect has six filters; 24 bytes of memory for a filter of three
)

// readBuffer is a connection's read buffer: 25 publishes of 256 bytes at a time, and small enough for a thousand connections.
const readBuffer = 8 << 10

var (
	errTooLarge = errors.New("packet too large")
	errFlags    = errors.New("reserved header flags")
	errID       = errors.New("packet identifier 0")
)

// header is a fixed header whose length has been checked.
type header struct {
	kind  byte // kindConnect ... kindDisconnect
	flags byte // the low four bits
	size  int  // of the body, bytes
}

// readHeader reads the next fixed header; its length has four bytes at most (MQTT 3.1.1 section 2.2.3).
func readHeader(r *bufio.Reader, maxPublish int) (header, error) {
	b, err := r.ReadByte()
	if err != nil {
		return header{}, err
	}
	h := header{kind: b >> 4, flags: b & 15}
	for shift := 0; ; shift += 7 {
		if shift > 21 {
			return header{}, errors.New("length of more than four bytes")
		}
		b, err := r.ReadByte()
		if err != nil {
			return header{}, unexpected(err)
		}
		h.size |= int(b&127) << shift
		if b < 128 {
			break
		}
	}
	return h, h.check(maxPublish)
}

// check refuses kinds that no client of ours may send, wrong flags and wrong sizes.
func (h header) check(maxPublish int) error {
	var least, most int
	var flags byte
	switch h.kind {
	case kindPublish:
		least, most, flags = 2, maxPublish, h.flags
		if qos := h.flags >> 1 & 3; qos > 1 {
			return fmt.Errorf("PUBLISH with QoS %d: this endpoint takes 0 and 1", qos)
		}
	case kindPuback:
		least, most = 2, 2
	case kindSubscribe, kindUnsubscribe:
		least, most, flags = 2, maxSubscribe, 2
	case kindConnect:
		least, most = len(protocolName), maxConnect
	case kindPingreq, kindDisconnect:
	default:
		return fmt.Errorf("unexpected packet type %d", h.kind)
	}
	switch {
	case h.flags != flags:
		return errFlags
	case h.size > most:
		return fmt.Errorf("%w: %d bytes, type %d, limit %d", errTooLarge, h.size, h.kind, most)
	case h.size < least && h.kind != kindConnect:
		return fmt.Errorf("packet too short: %d bytes, type %d", h.size, h.kind)
	}
	return nil
}

// readBody reads a whole body into memory of its own.
func readBody(r *bufio.Reader, size int) ([]byte, error) {
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, unexpected(err)
	}
	return body, nil
}

// readPublish reads the body of a PUBLISH. The payload is the only thing allocated, and a topic equal to last (a client repeats itself) is not copied again.
func readPublish(r *bufio.Reader, h header, last string) (*Publish, error) {
	p := &Publish{QoS: h.flags >> 1 & 3, Retain: h.flags&1 != 0, Dup: h.flags&8 != 0}
	if h.size > r.Size() {
		body, err := readBody(r, h.size)
		if err != nil {
			return nil, err
		}
		p.Payload, err = p.parse(body, last)
		return p, err
	}
	body, err := r.Peek(h.size)
	if err != nil {
		return nil, unexpected(err)
	}
	payload, err := p.parse(body, last)
	if err != nil {
		return nil, err
	}
	p.Payload = bytes.Clone(payload)
	_, err = r.Discard(h.size)
	return p, err
}

// parse takes topic and packet identifier from a body and returns the rest of it.
func (p *Publish) parse(body []byte, last string) ([]byte, error) {
	n := int(binary.BigEndian.Uint16(body))
	rest := body[2:]
	if n > len(rest) {
		return nil, errors.New("parse PUBLISH: topic longer than the packet")
	}
	topic := rest[:n]
	rest = rest[n:]
	p.Topic = last
	if string(topic) != last {
		if !utf8.Valid(topic) || bytes.IndexByte(topic, 0) >= 0 {
			return nil, errors.New("parse PUBLISH: topic is not UTF-8 text")
		}
		p.Topic = string(topic)
	}
	if p.QoS == 0 {
		return rest, nil
	}
	if len(rest) < 2 {
		return nil, errors.New("parse PUBLISH: no packet identifier")
	}
	p.id = binary.BigEndian.Uint16(rest)
	if p.id == 0 {
		return nil, errID
	}
	return rest[2:], nil
}

func parseSubscribe(body []byte) (id uint16, subs []Subscription, err error) {
	f := fields{rest: body}
	id = f.id()
	for f.err == nil && len(f.rest) > 0 {
		sub := Subscription{Filter: f.text(), QoS: f.byte()}
		if f.err == nil && sub.QoS > 2 {
			f.err = fmt.Errorf("QoS %d", sub.QoS)
		}
		subs = append(subs, sub)
	}
	return id, subs, f.filters("SUBSCRIBE", len(subs))
}

func parseUnsubscribe(body []byte) (id uint16, filters []string, err error) {
	f := fields{rest: body}
	id = f.id()
	for f.err == nil && len(f.rest) > 0 {
		filters = append(filters, f.text())
	}
	return id, filters, f.filters("UNSUBSCRIBE", len(filters))
}

// filters ends a packet of n filters.
func (f *fields) filters(packet string, n int) error {
	if err := f.end(); err != nil {
		return fmt.Errorf("parse %s: %w", packet, err)
	}
	if n == 0 {
		return fmt.Errorf("parse %s: no filter", packet)
	}
	return nil
}

// appendPublish appends a PUBLISH. id is ignored with QoS 0.
func appendPublish(dst []byte, topic string, payload []byte, qos byte, id uint16) []byte {
	dst = append(dst, kindPublish<<4|qos<<1)
	dst = appendLength(dst, publishSize(topic, payload, qos))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(topic)))
	dst = append(dst, topic...)
	if qos > 0 {
		dst = binary.BigEndian.AppendUint16(dst, id)
	}
	return append(dst, payload...)
}

func publishSize(topic string, payload []byte, qos byte) int {
	size := 2 + len(topic) + len(payload)
	if qos > 0 {
		size += 2
	}
	return size
}

func appendLength(dst []byte, n int) []byte {
	for n >= 128 {
		dst = append(dst, byte(n)|128)
		n >>= 7
	}
	return append(dst, byte(n))
}

func appendConnack(dst []byte, present bool, code Code) []byte {
	var flag byte
	if present {
		flag = 1
	}
	return append(dst, kindConnack<<4, 2, flag, byte(code))
}

func appendPuback(dst []byte, id uint16) []byte {
	return append(dst, kindPuback<<4, 2, byte(id>>8), byte(id))
}

func appendSuback(dst []byte, id uint16, codes []byte) []byte {
	dst = append(dst, kindSuback<<4)
	dst = appendLength(dst, 2+len(codes))
	dst = binary.BigEndian.AppendUint16(dst, id)
	return append(dst, codes...)
}

func appendUnsuback(dst []byte, id uint16) []byte {
	return append(dst, kindUnsuback<<4, 2, byte(id>>8), byte(id))
}

// unexpected turns an end inside a packet into what it is.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
