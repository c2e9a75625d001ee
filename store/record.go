package store

import (
	"encoding/binary"
	"hash/crc32"
)

// A record lies in a segment under the key {lane, sequence}. Its body is stored
// once, in the lane of the first entry; every other lane holds a reference. The
// value is
//
//	kind | uvarint stored ms | uvarint ttl ms | [uvarint clock ms, if ttl > 0] | rest | crc32c
//
// where rest is the body, or for a reference the number of the lane that has
// it. The checksum also covers the sink, the priority and the sequence, so that
// a record that turns up in another lane, or twice, is known as damaged.
const (
	kindBody      = 1
	kindReference = 2
	checksumSize  = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// value is a record as one lane sees it.
type value struct {
	kind   byte
	stored int64  // wall clock, ms since 1970: an annotation, never compared
	ttl    int64  // ms, 0 = for ever
	clock  int64  // ms of powered-on time when it was stored, only if ttl > 0
	body   []byte // of a kindBody
	lane   uint16 // that has the body, of a kindReference
}

// expired says whether the record has outlived its time at now (ms of
// powered-on time).
func (v value) expired(now int64) bool {
	return v.ttl > 0 && now-v.clock >= v.ttl
}

// deadline returns the powered-on time in ms when the record expires, 0 = never.
func (v value) deadline() int64 {
	if v.ttl == 0 {
		return 0
	}
	return v.clock + v.ttl
}

// append encodes v behind dst with its checksum.
func (v value) append(dst []byte, seed uint32, seq uint64) []byte {
	start := len(dst)
	dst = append(dst, v.kind)
	dst = binary.AppendUvarint(dst, uint64(v.stored))
	dst = binary.AppendUvarint(dst, uint64(v.ttl))
	if v.ttl > 0 {
		dst = binary.AppendUvarint(dst, uint64(v.clock))
	}
	if v.kind == kindReference {
		dst = binary.BigEndian.AppendUint16(dst, v.lane)
	} else {
		dst = append(dst, v.body...)
	}
	return binary.LittleEndian.AppendUint32(dst, checksum(seed, seq, dst[start:]))
}

// parseValue reads what append wrote; ok is false when the bytes are not a
// record of this lane and sequence. body points into b.
func parseValue(b []byte, seed uint32, seq uint64) (v value, ok bool) {
	if len(b) < 1+1+1+checksumSize {
		return value{}, false
	}
	content := b[:len(b)-checksumSize]
	if binary.LittleEndian.Uint32(b[len(content):]) != checksum(seed, seq, content) {
		return value{}, false
	}
	v.kind = content[0]
	rest := content[1:]
	for _, field := range []*int64{&v.stored, &v.ttl, &v.clock} {
		if field == &v.clock && v.ttl == 0 {
			break
		}
		n, size := binary.Uvarint(rest)
		if size <= 0 || int64(n) < 0 {
			return value{}, false
		}
		*field, rest = int64(n), rest[size:]
	}
	switch {
	case v.kind == kindBody:
		v.body = rest
	case v.kind == kindReference && len(rest) == 2:
		v.lane = binary.BigEndian.Uint16(rest)
	default:
		return value{}, false
	}
	return v, true
}

// laneSeed starts the checksum of every record of a lane.
func laneSeed(sink string, priority uint8) uint32 {
	return crc32.Update(crc32.Checksum([]byte(sink), castagnoli), castagnoli, []byte{priority})
}

func checksum(seed uint32, seq uint64, content []byte) uint32 {
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], seq)
	return crc32.Update(crc32.Update(seed, castagnoli, number[:]), castagnoli, content)
}

// sealed appends to content a checksum over key and content; opened takes it
// off. Everything in state.db that is not a record is kept this way.
func sealed(key, content []byte) []byte {
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, content)
	out := make([]byte, 0, len(content)+checksumSize)
	return binary.LittleEndian.AppendUint32(append(out, content...), sum)
}

func opened(key, b []byte) (content []byte, ok bool) {
	if len(b) < checksumSize {
		return nil, false
	}
	content = b[:len(b)-checksumSize]
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, content)
	return content, binary.LittleEndian.Uint32(b[len(content):]) == sum
}
