package store

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// A journal is a row of blocks, one for each commit, from the start of the file.
// What is behind the last one is left from an older life of the file. A block is
// a header, little endian,
//
//	magic u32 | length of the payload u32 | epoch u64 | commit u32 |
//	crc32c of the payload u32 | before u64 | stored u64 | crc32c of key and header u32
//
// and a payload of items. The epoch is the number of the segment that the blocks
// will be, and no two have the same; commits count from 1. before is the highest
// sequence, and stored the number of records, once for each lane, that were
// stored by all blocks before it, in whatever file: so each block vouches for
// everything that there was, see [balance]. A block of epoch 0 and commit 0 says
// that and no more: one stands at the end of each journal. The key is from the file's name:
// who makes messages does not know it, and so no message can pass for a block
// when damage makes us look for the next one. In format 2 a header had no stored,
// and the key was 0. Items are
//
//	0 | uvarint lane | uvarint length | 1 | name          what a lane stands for, see [laneName]
//	0 | uvarint lane | uvarint length | 2 | position      how far it is drained, see [position]
//	uvarint lane | uvarint sequence - before | uvarint length | value
const (
	blockHeader    = 44
	oldBlockHeader = 36 // of format 2
	// itemHeader is the most that an item takes beside its value.
	itemHeader = 3 * binary.MaxVarintLen32
)

// What an item that is no record tells of a lane. In format 2 it had its name and
// 8 bytes that do not matter any more, and no such byte.
const (
	itemName     = 1
	itemPosition = 2
)

// blockMagic starts every block: "SPJ" and the format of the journal.
var blockMagic = []byte{'S', 'P', 'J', formatVersion}

// block is the header of a block.
type block struct {
	epoch  uint64
	commit uint32
	before uint64
	stored uint64
	size   int // of the header, in bytes
	length int // of the payload, in bytes
	sum    uint32
}

// seal writes the header of b in front of its payload; both are b's.
func (h block) seal(b []byte, key uint32) {
	payload := b[blockHeader:]
	copy(b, blockMagic)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(payload)))
	binary.LittleEndian.PutUint64(b[8:], h.epoch)
	binary.LittleEndian.PutUint32(b[16:], h.commit)
	binary.LittleEndian.PutUint32(b[20:], crc32.Checksum(payload, castagnoli))
	binary.LittleEndian.PutUint64(b[24:], h.before)
	binary.LittleEndian.PutUint64(b[32:], h.stored)
	binary.LittleEndian.PutUint32(b[40:], crc32.Update(key, castagnoli, b[:40]))
}

// parseBlock reads the header at the start of b; ok is false if none is there.
func parseBlock(b []byte, key uint32) (h block, ok bool) {
	if len(b) < oldBlockHeader || !bytes.HasPrefix(b, blockMagic[:3]) {
		return block{}, false
	}
	switch {
	case b[3] == 2:
		h.size = oldBlockHeader
	case b[3] == formatVersion && len(b) >= blockHeader:
		h.size, h.stored = blockHeader, binary.LittleEndian.Uint64(b[32:])
	default:
		return block{}, false
	}
	if end := h.size - checksumSize; binary.LittleEndian.Uint32(b[end:]) != crc32.Update(key, castagnoli, b[:end]) {
		return block{}, false
	}
	length := binary.LittleEndian.Uint32(b[4:])
	h.epoch, h.commit = binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint32(b[16:])
	h.sum, h.before, h.length = binary.LittleEndian.Uint32(b[20:]), binary.LittleEndian.Uint64(b[24:]), int(length)
	return h, uint64(length) <= uint64(len(b)-h.size) && (h.epoch > 0) == (h.commit > 0)
}

// payload returns what is behind the header at the start of b.
func (h block) payload(b []byte) []byte { return b[h.size : h.size+h.length] }

// whole says whether the payload behind the header at the start of b is what was
// written.
func (h block) whole(b []byte) bool { return crc32.Checksum(h.payload(b), castagnoli) == h.sum }

// next is where the block behind b begins.
func (h block) next() int { return h.size + h.length }

// nextBlock returns where behind from something begins as a block does, or -1.
func nextBlock(b []byte, from int) int {
	if from >= len(b) {
		return -1
	}
	i := bytes.Index(b[from:], blockMagic[:3])
	if i < 0 {
		return -1
	}
	return from + i
}

// findBlock returns where behind from the first whole block that fits begins, or
// -1.
func findBlock(b []byte, key uint32, from int, fits func(block) bool) int {
	at := nextBlock(b, from)
	for ; at >= 0; at = nextBlock(b, at+1) {
		if h, ok := parseBlock(b[at:], key); ok && fits(h) && h.whole(b[at:]) {
			return at
		}
	}
	return at
}

// appendNote appends what is told of a lane as an item.
func appendNote(dst []byte, id uint16, kind byte, b []byte) []byte {
	dst = binary.AppendUvarint(append(dst, 0), uint64(id))
	dst = append(binary.AppendUvarint(dst, uint64(len(b)+1)), kind)
	return append(dst, b...)
}

// appendItem appends a record of a lane as an item.
func appendItem(dst []byte, id uint16, ahead uint64, val []byte) []byte {
	dst = binary.AppendUvarint(binary.AppendUvarint(dst, uint64(id)), ahead)
	return append(binary.AppendUvarint(dst, uint64(len(val))), val...)
}

// item is one item of a payload.
type item struct {
	note bool // of a lane
	id   uint16
	seq  uint64 // less what stands before the block
	from int    // of the value, in the payload
	to   int
}

// parseItem reads the item at the offset at of a payload; ok is false if there
// is none.
func parseItem(b []byte, at int) (it item, next int, ok bool) {
	fields := [3]uint64{}
	for i := range fields {
		n, size := binary.Uvarint(b[at:])
		if size <= 0 {
			return item{}, 0, false
		}
		fields[i], at = n, at+size
	}
	it = item{id: uint16(fields[0]), seq: fields[1], from: at}
	if fields[0] == 0 {
		it = item{note: true, id: uint16(fields[1]), from: at}
		fields[0] = fields[1]
	}
	if fields[0] == 0 || fields[0] > maxLane || fields[2] > uint64(len(b)-at) {
		return item{}, 0, false
	}
	it.to = at + int(fields[2])
	return it, it.to, true
}
