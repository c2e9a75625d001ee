package message

import (
	"encoding/binary"
	"math/bits"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Version is the version of the durable form that [Message.Append] writes. It goes up only when a reader of the older form
// would misunderstand the newer one; members that may be ignored are added under new keys without it, because after
// a rolled-back update an older agent reads what a newer one stored.
//
// The durable form is a CBOR map in core deterministic encoding (RFC 8949 §4.2.1):
//
//	key  member                      type
//	0    version                     unsigned, 1
//	1    device of the source        text
//	2    module of the source        text, absent = the device itself
//	3    output                      text, absent = none
//	4    properties                  array of text: key, value, key, value…; absent = none
//	5    body                        bytes, absent = empty
//	6    accepted                    integer, microseconds since 1970 UTC; absent = unknown
//	7    id                          text, absent = none
//	8    boot                        text, absent = none; see [Message.Boot]
//	9    uptime                      unsigned, microseconds; absent = 0
const Version = 1

// Keys of the durable form.
const (
	keyVersion = iota
	keyDevice
	keyModule
	keyOutput
	keyBag
	keyBody
	keyAccepted
	keyID
	keyBoot
	keyUptime
)

// Major types of CBOR, in place.
const (
	majorUint  = 0 << 5
	majorInt   = 1 << 5
	majorBytes = 2 << 5
	majorText  = 3 << 5
	majorArray = 4 << 5
	majorMap   = 5 << 5
)

// Append appends the durable form of m to dst and returns the longer slice, like append. It is on the path of
// every message, so the map is written by hand: it does not allocate when dst has room. [Message.EncodedSize]
// bounds the room.
func (m Message) Append(dst []byte) []byte {
	pairs := uint64(2)
	for _, there := range [...]bool{
		m.Source.Module != "", m.Output != "", len(m.Bag) > 0, len(m.Body) > 0, !m.Accepted.IsZero(), m.ID != "", m.Boot != "", m.Uptime > 0,
	} {
		if there {
			pairs++
		}
	}
	dst = appendHead(dst, majorMap, pairs)
	dst = append(dst, keyVersion, Version)
	dst = appendText(append(dst, keyDevice), m.Source.Device)
	if m.Source.Module != "" {
		dst = appendText(append(dst, keyModule), m.Source.Module)
	}
	if m.Output != "" {
		dst = appendText(append(dst, keyOutput), m.Output)
	}
	if len(m.Bag) > 0 {
		dst = appendHead(append(dst, keyBag), majorArray, uint64(len(m.Bag))*2)
		for _, p := range m.Bag {
			dst = appendText(appendText(dst, p.Key), p.Value)
		}
	}
	if len(m.Body) > 0 {
		dst = append(appendHead(append(dst, keyBody), majorBytes, uint64(len(m.Body))), m.Body...)
	}
	if !m.Accepted.IsZero() {
		dst = appendTime(append(dst, keyAccepted), m.Accepted)
	}
	if m.ID != "" {
		dst = appendText(append(dst, keyID), m.ID)
	}
	if m.Boot != "" {
		dst = appendText(append(dst, keyBoot), m.Boot)
	}
	if m.Uptime > 0 {
		dst = appendHead(append(dst, keyUptime), majorUint, uint64(m.Uptime.Microseconds()))
	}
	return dst
}

// EncodedSize is at least as many bytes as [Message.Append] appends, and few more.
func (m Message) EncodedSize() int {
	const head = 9 // the longest head of a CBOR item
	n := 10*(head+1) + len(m.Boot) + len(m.Source.Device) + len(m.Source.Module) + len(m.Output) + len(m.Body) + len(m.ID)
	for _, p := range m.Bag {
		n += headSize(len(p.Key)) + len(p.Key) + headSize(len(p.Value)) + len(p.Value)
	}
	return n
}

func appendText(dst []byte, s string) []byte {
	return append(appendHead(dst, majorText, uint64(len(s))), s...)
}

func appendTime(dst []byte, t time.Time) []byte {
	if us := t.UnixMicro(); us < 0 {
		return appendHead(dst, majorInt, uint64(-(us + 1)))
	}
	return appendHead(dst, majorUint, uint64(t.UnixMicro()))
}

// appendHead writes the head of an item in its shortest form.
func appendHead(dst []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(dst, major|byte(n))
	case n <= 0xff:
		return append(dst, major|24, byte(n))
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16(append(dst, major|25), uint16(n))
	case n <= 0xffffffff:
		return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, major|27), n)
}

func headSize(n int) int {
	switch {
	case n < 24:
		return 1
	case n <= 0xff:
		return 2
	case n <= 0xffff:
		return 3
	}
	return 1 + (bits.Len(uint(n))+31)/32*4
}

// maxEncoded bounds what Decode looks at: the largest message plus the heads of as many properties as a bag holds,
// ids and the rest of the envelope.
const maxEncoded = iothub.MaxMessage + 8*iothub.MaxProperties + 4096
