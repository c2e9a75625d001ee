package mqtt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"unicode/utf8"
)

// Control packet types (MQTT 3.1.1 table 2.1), without those of QoS 2.
const (
	kindConnect     = 1
	kindConnack     = 2
	kindPublish     = 3
	kindPuback      = 4
	kindSubscribe   = 8
	kindSuback      = 9
	kindUnsubscribe = 10
	kindUnsuback    = 11
	kindPingreq     = 12
	kindPingresp    = 13
	kindDisconnect  = 14
)

var (
	errShort = errors.New("a field is longer than the packet")
	errText  = errors.New("a field is not UTF-8 text")
	errRest  = errors.New("bytes after the last field")
)

// fields takes the fields of a packet's body one after the other (MQTT 3.1.1 section 1.5). The first mistake stays in err, and
// everything after it is zero.
type fields struct {
	rest []byte
	err  error
}

func (f *fields) take(n int) []byte {
	if f.err == nil && n > len(f.rest) {
		f.err = errShort
	}
	if f.err != nil {
		return nil
	}
	taken := f.rest[:n]
	f.rest = f.rest[n:]
	return taken
}

func (f *fields) byte() byte {
	if b := f.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) uint16() uint16 {
	if b := f.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// binary takes a length and as many bytes, which stay the packet's.
func (f *fields) binary() []byte { return f.take(int(f.uint16())) }

// text takes a UTF-8 string, which may not hold U+0000 (MQTT-1.5.3-1 and -2).
func (f *fields) text() string {
	b := f.binary()
	if f.err == nil && (!utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0) {
		f.err = errText
	}
	if f.err != nil {
		return ""
	}
	return string(b)
}

// id takes a packet identifier.
func (f *fields) id() uint16 {
	id := f.uint16()
	if f.err == nil && id == 0 {
		f.err = errID
	}
	return id
}

// end is the first mistake, which bytes that are left over are too.
func (f *fields) end() error {
	if f.err == nil && len(f.rest) > 0 {
		f.err = errRest
	}
	return f.err
}
