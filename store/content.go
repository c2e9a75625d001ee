package store

import (
	"bytes"
	"encoding/binary"
	"math"

	"go.etcd.io/bbolt"
)

// content is where the records of a segment lie: a draft, or a file. What it returns is good until the view of the segment ends.
type content interface {
	// each calls fn for the records of a lane with sequences in [from, to], in
	// order, until fn returns false.
	each(lane uint16, from, to uint64, fn func(seq uint64, val []byte) bool)
	// get returns one record, or nil.
	get(lane uint16, seq uint64) []byte
	// lane returns what the number of a lane stands for.
	lane(id uint16) (laneName, bool)
	// lanes calls fn for the number of every lane, until it returns an error. Its
	// own error is a *damage.
	lanes(fn func(id uint16) error) error
}

// filed is the content of a file. The two formats differ in the bucket's name
// and the length of a sequence in a key: from format 2 on it has only the lower
// half, and the header has the upper.
type filed struct {
	bucket *bbolt.Bucket
	number uint64
	base   uint64
	stored uint64
	short  bool
}

// openContent finds out of which format a file is. Its error is ErrNewer or a
// *damage.
func openContent(tx *bbolt.Tx, number uint64) (*filed, error) {
	f := &filed{bucket: tx.Bucket(bucketRecords), number: number}
	if f.bucket == nil {
		f.bucket, f.short = tx.Bucket(bucketSealed), true
	}
	if f.bucket == nil {
		return nil, damaged(0, "the segment has no records bucket")
	}
	h, err := parseHeader(f.bucket.Get(headerKey()))
	if err == nil && h.number != number {
		err = damaged(0, "the file is segment %d under another name", h.number)
	}
	f.base, f.stored = h.base, h.stored
	return f, err
}

func (f *filed) key(dst []byte, lane uint16, seq uint64) []byte {
	if !f.short {
		return recordKey(dst, lane, seq)
	}
	low := uint32(seq)
	switch half := f.base >> 32; {
	case seq>>32 < half:
		low = 0
	case seq>>32 > half:
		low = math.MaxUint32
	}
	return sealedKey(dst, lane, low)
}

func (f *filed) each(lane uint16, from, to uint64, fn func(seq uint64, val []byte) bool) {
	c := f.bucket.Cursor()
	for k, v := c.Seek(f.key(nil, lane, from)); k != nil; k, v = c.Next() {
		id, seq, ok := parseKey(k, f.base)
		if !ok || id != lane || seq > to {
			return
		}
		if seq >= from && !fn(seq, v) {
			return
		}
	}
}

func (f *filed) get(lane uint16, seq uint64) []byte {
	if f.short && seq>>32 != f.base>>32 {
		return nil
	}
	return f.bucket.Get(f.key(nil, lane, seq))
}

func (f *filed) lane(id uint16) (laneName, bool) {
	return parseLaneName(f.number, id, f.bucket.Get(laneKey(id)))
}

func (f *filed) lanes(fn func(id uint16) error) error {
	c := f.bucket.Cursor()
	for k, _ := c.Seek(laneKey(1)); k != nil && bytes.HasPrefix(k, headerKey()); k, _ = c.Next() {
		id, ok := parseLaneKey(k)
		if !ok {
			return damaged(0, "unknown key %x", k)
		}
		if err := fn(id); err != nil {
			return err
		}
	}
	return nil
}

// sealedKey appends the key of a record in a file of format 2 to dst.
func sealedKey(dst []byte, lane uint16, low uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(dst, lane), low)
}

// parseKey reads a record's key of either format; ok is false for other keys.
// base is from the file's header.
func parseKey(k []byte, base uint64) (lane uint16, seq uint64, ok bool) {
	if len(k) != 6 || k[0] == 0 && k[1] == 0 {
		return parseRecordKey(k)
	}
	return binary.BigEndian.Uint16(k), base&^math.MaxUint32 | uint64(binary.BigEndian.Uint32(k[2:])), true
}
