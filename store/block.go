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
//	crc32c of the payload u32 | before u64 | crc32c of the header u32
//
// and a payload of items. The epoch is the number of the segment that the blocks
// will be, and no two have the same; commits count from 1; before is the highest
// sequence stored by the block before it, in whatever file that was. So a block
// says of itself whose it is, and which one is missing in front of it. Items are
//
//	0 | uvarint lane | uvarint length | name | behind u64     what a lane stands for, see [laneName]
//	uvarint lane | uvarint sequence - before | uvarint length | value
const (
	blockHeader = 36
	// itemHeader is the most that an item takes beside its value.
	itemHeader = 3 * binary.MaxVarintLen32
)

// blockMagic starts every block: "SPJ" and the format of the journal, 2.
var blockMagic = []byte{'S', 'P', 'J', 2}

// block is the header of a block.
type block struct {
	epoch  uint64
	commit uint32
	before uint64
	length int // of the payload, in bytes
	sum    uint32
}

// seal writes the header of b in front of its payload; both are b's.
func (h block) seal(b []byte) {
	payload := b[blockHeader:]
	copy(b, blockMagic)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(payload)))
	binary.LittleEndian.PutUint64(b[8:], h.epoch)
	binary.LittleEndian.PutUint32(b[16:], h.commit)
	binary.LittleEndian.PutUint32(b[20:], crc32.Checksum(payload, castagnoli))
	binary.LittleEndian.PutUint64(b[24:], h.before)
	binary.LittleEndian.PutUint32(b[32:], crc32.Checksum(b[:32], castagnoli))
}

// parseBlock reads the header at the start of b; ok is false if none is there.
func parseBlock(b []byte) (h block, ok bool) {
	if len(b) < blockHeader || !bytes.HasPrefix(b, blockMagic) ||
		binary.LittleEndian.Uint32(b[32:]) != crc32.Checksum(b[:32], castagnoli) {
		return block{}, false
	}
	length := binary.LittleEndian.Uint32(b[4:])
	h = block{
		epoch: binary.LittleEndian.Uint64(b[8:]), commit: binary.LittleEndian.Uint32(b[16:]),
		before: binary.LittleEndian.Uint64(b[24:]), length: int(length), sum: binary.LittleEndian.Uint32(b[20:]),
	}
	return h, uint64(length) <= uint64(len(b)-blockHeader) && h.epoch > 0 && h.commit > 0
}

// whole says whether the payload behind the header at the start of b is what was
// written.
func (h block) whole(b []byte) bool {
	return crc32.Checksum(b[blockHeader:blockHeader+h.length], castagnoli) == h.sum
}

// next is where the block behind b begins.
func (h block) next() int { return blockHeader + h.length }

// findBlock returns where behind from the first whole block that fits begins, or
// -1.
func findBlock(b []byte, from int, fits func(block) bool) int {
	for at := from; at < len(b); at++ {
		i := bytes.Index(b[at:], blockMagic)
		if i < 0 {
			return -1
		}
		at += i
		if h, ok := parseBlock(b[at:]); ok && fits(h) && h.whole(b[at:]) {
			return at
		}
	}
	return -1
}

// appendName appends a lane's name as an item. behind is the highest sequence
// that the lane had in older segments.
func appendName(dst []byte, number uint64, id uint16, name laneName, behind uint64) []byte {
	b := binary.LittleEndian.AppendUint64(name.encode(number, id), behind)
	dst = binary.AppendUvarint(append(dst, 0), uint64(id))
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// appendItem appends a record of a lane as an item.
func appendItem(dst []byte, id uint16, ahead uint64, val []byte) []byte {
	dst = binary.AppendUvarint(binary.AppendUvarint(dst, uint64(id)), ahead)
	return append(binary.AppendUvarint(dst, uint64(len(val))), val...)
}

// item is one item of a payload.
type item struct {
	name bool // of a lane
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
		it = item{name: true, id: uint16(fields[1]), from: at}
		fields[0] = fields[1]
	}
	if fields[0] == 0 || fields[0] > maxLane || fields[2] > uint64(len(b)-at) {
		return item{}, 0, false
	}
	it.to = at + int(fields[2])
	return it, it.to, true
}
