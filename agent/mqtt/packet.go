package mqtt

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Upper bounds of a packet's body in bytes, checked before anything is allocated for it. PUBLISH has Config.MaxPacket.
const (
	maxConnect   = 72 << 10 // a will of 64 KiB, names and a token
	maxSubscribe = 8 << 10  // the dialect has six filters; mochi's decoder spends 88 bytes on a filter of three
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
	kind  byte // packets.Connect ... packets.Disconnect
	flags byte // the low four bits
	size  int  // of the body, bytes
}

// readHeader reads the next fixed header. Own code instead of mochi's DecodeLength, which follows an endless row of 0x80 for ever.
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
	case packets.Publish:
		least, most, flags = 2, maxPublish, h.flags
		if qos := h.flags >> 1 & 3; qos > 1 {
			return fmt.Errorf("PUBLISH with QoS %d: this endpoint takes 0 and 1", qos)
		}
	case packets.Puback:
		least, most = 2, 2
	case packets.Subscribe, packets.Unsubscribe:
		least, most, flags = 2, maxSubscribe, 2
	case packets.Connect:
		least, most = len(protocolName), maxConnect
	case packets.Pingreq, packets.Disconnect:
	default:
		return fmt.Errorf("unexpected packet type %d", h.kind)
	}
	switch {
	case h.flags != flags:
		return errFlags
	case h.size > most:
		return fmt.Errorf("%w: %d bytes, type %d, limit %d", errTooLarge, h.size, h.kind, most)
	case h.size < least && h.kind != packets.Connect:
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

// readPublish reads the body of a PUBLISH. By hand, not through mochi's PublishDecode, whose topic shares the packet's memory: here the
// payload is the only thing allocated, and a topic equal to last (a client repeats itself) is not copied again.
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

func parseSubscribe(body []byte) (uint16, []Subscription, error) {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, ProtocolVersion: 4}
	if err := pk.SubscribeDecode(body); err != nil {
		return 0, nil, fmt.Errorf("parse SUBSCRIBE: %w", err)
	}
	if pk.PacketID == 0 {
		return 0, nil, errID
	}
	if len(pk.Filters) == 0 {
		return 0, nil, errors.New("parse SUBSCRIBE: no filter")
	}
	subs := make([]Subscription, len(pk.Filters))
	for i, f := range pk.Filters {
		subs[i] = Subscription{Filter: f.Filter, QoS: f.Qos}
	}
	return pk.PacketID, subs, nil
}

func parseUnsubscribe(body []byte) (uint16, []string, error) {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, ProtocolVersion: 4}
	if err := pk.UnsubscribeDecode(body); err != nil {
		return 0, nil, fmt.Errorf("parse UNSUBSCRIBE: %w", err)
	}
	if pk.PacketID == 0 {
		return 0, nil, errID
	}
	if len(pk.Filters) == 0 {
		return 0, nil, errors.New("parse UNSUBSCRIBE: no filter")
	}
	filters := make([]string, len(pk.Filters))
	for i, f := range pk.Filters {
		filters[i] = f.Filter
	}
	return pk.PacketID, filters, nil
}

// appendPublish appends a PUBLISH. id is ignored with QoS 0.
func appendPublish(dst []byte, topic string, payload []byte, qos byte, id uint16) []byte {
	dst = append(dst, packets.Publish<<4|qos<<1)
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
	return append(dst, packets.Connack<<4, 2, flag, byte(code))
}

func appendPuback(dst []byte, id uint16) []byte {
	return append(dst, packets.Puback<<4, 2, byte(id>>8), byte(id))
}

func appendSuback(dst []byte, id uint16, codes []byte) []byte {
	dst = append(dst, packets.Suback<<4)
	dst = appendLength(dst, 2+len(codes))
	dst = binary.BigEndian.AppendUint16(dst, id)
	return append(dst, codes...)
}

func appendUnsuback(dst []byte, id uint16) []byte {
	return append(dst, packets.Unsuback<<4, 2, byte(id>>8), byte(id))
}

// unexpected turns an end inside a packet into what it is.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
