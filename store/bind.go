package store

import (
	"encoding/binary"
	"hash/crc32"
	"hash/fnv"
)

// leafBytes is how much of keys and values a leaf holds, in bytes: larger ones
// waste less at their ends, smaller ones are lost with less when a sector is.
const leafBytes = 20 << 10

// binder writes a sealed segment: a bbolt file of one bucket, in one go and in
// order, with full pages and no list of free ones. bbolt could do that itself,
// from a tree of its own in memory several times as large, and through a file
// that nothing can be put in front of. What bbolt and [verify] say of it is
// tested.
type binder struct {
	file   []byte
	free   func() // gives file back
	keys   []byte // of the leaf that is being filled
	elems  []element
	size   int
	leaves []leafRef
}

// element is one key with its value, in a leaf that is being filled.
type element struct {
	from, to int // of the key, in binder.keys
	val      []byte
}

// leafRef is a leaf that was written, by its first key.
type leafRef struct {
	key  []byte
	page uint64
}

// bind returns the file of a segment, with those records of a content that keep
// wants, in size bytes or a little more. The slice is good until the next call,
// or release. Its error is a *damage.
func (b *binder) bind(c content, h header, size int, keep func(lane uint16, seq uint64) bool) ([]byte, error) {
	if most := size + size/4 + 16*pageSize; cap(b.file) < most {
		b.release()
		b.file, b.free = apart(most) // grown by halves it would leave twice as much behind
	}
	b.file = append(b.file[:0], make([]byte, 2*pageSize)...) // the meta pages, at the end
	b.leaves, b.elems, b.keys, b.size = b.leaves[:0], b.elems[:0], b.keys[:0], 0
	b.add(headerKey(), h.encode())
	var ids []uint16
	err := c.lanes(func(id uint16) error {
		if name, ok := c.lane(id); ok {
			b.add(laneKey(id), name.encode(h.number, id))
			ids = append(ids, id)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		c.each(id, 0, ^uint64(0), func(seq uint64, val []byte) bool {
			if keep(id, seq) {
				var key [6]byte
				b.add(sealedKey(key[:0], id, uint32(seq)), val)
			}
			return true
		})
	}
	b.leaf()
	root := b.leaves[0].page
	if len(b.leaves) > 1 {
		root = b.branch()
	}
	b.add(bucketSealed, binary.NativeEndian.AppendUint64(nil, root)) // and behind the page a sequence of its own, 0
	b.elems[0].val = append(b.elems[0].val, make([]byte, 8)...)
	top := b.page(flagLeaf, 1, elemSize+len(bucketSealed)+16)
	b.element(top, 0, flagBucket, b.elems[0], headerSize+elemSize)
	b.elems, b.keys, b.size = b.elems[:0], b.keys[:0], 0
	for i := range uint64(2) {
		b.meta(i, uint64(len(b.file)-len(top))/pageSize)
	}
	return b.file, nil
}

// release gives the memory of the last file back.
func (b *binder) release() {
	if b.free != nil {
		b.free()
	}
	b.file, b.free = nil, nil
}

// add adds an element behind all others.
func (b *binder) add(key, val []byte) {
	n := elemSize + len(key) + len(val)
	if len(b.elems) > 0 && headerSize+b.size+n > leafBytes {
		b.leaf()
	}
	from := len(b.keys)
	b.keys = append(b.keys, key...)
	b.elems = append(b.elems, element{from: from, to: len(b.keys), val: val})
	b.size += n
}

// leaf writes the leaf that is being filled.
func (b *binder) leaf() {
	p := b.page(flagLeaf, len(b.elems), b.size)
	at := headerSize + len(b.elems)*elemSize
	for i, e := range b.elems {
		at = b.element(p, i, 0, e, at)
	}
	first := append([]byte{}, b.keys[b.elems[0].from:b.elems[0].to]...)
	b.leaves = append(b.leaves, leafRef{key: first, page: binary.NativeEndian.Uint64(p)})
	b.elems, b.keys, b.size = b.elems[:0], b.keys[:0], 0
}

// page appends a page with room for size bytes behind its header.
func (b *binder) page(flags uint16, count, size int) []byte {
	pages := (headerSize + size + pageSize - 1) / pageSize
	id := len(b.file) / pageSize
	b.file = append(b.file, make([]byte, pages*pageSize)...)
	p := b.file[id*pageSize:]
	binary.NativeEndian.PutUint64(p, uint64(id))
	binary.NativeEndian.PutUint16(p[8:], flags)
	binary.NativeEndian.PutUint16(p[10:], uint16(count))
	binary.NativeEndian.PutUint32(p[12:], uint32(pages-1))
	return p
}

// element writes the i-th element of a leaf with its key and value at at, and
// returns where they end.
func (b *binder) element(p []byte, i int, flags uint32, e element, at int) int {
	el := page(p).element(i)
	binary.NativeEndian.PutUint32(el, flags)
	binary.NativeEndian.PutUint32(el[4:], uint32(at-headerSize-i*elemSize))
	binary.NativeEndian.PutUint32(el[8:], uint32(e.to-e.from))
	binary.NativeEndian.PutUint32(el[12:], uint32(len(e.val)))
	at += copy(p[at:], b.keys[e.from:e.to])
	return at + copy(p[at:], e.val)
}

// branch writes the one branch page above the leaves.
func (b *binder) branch() uint64 {
	size := 0
	for _, l := range b.leaves {
		size += elemSize + len(l.key)
	}
	p := b.page(flagBranch, len(b.leaves), size)
	at := headerSize + len(b.leaves)*elemSize
	for i, l := range b.leaves {
		el := page(p).element(i)
		binary.NativeEndian.PutUint32(el, uint32(at-headerSize-i*elemSize))
		binary.NativeEndian.PutUint32(el[4:], uint32(len(l.key)))
		binary.NativeEndian.PutUint64(el[8:], l.page)
		at += copy(p[at:], l.key)
	}
	return binary.NativeEndian.Uint64(p)
}

// meta writes meta page i, which is also the number of its transaction.
func (b *binder) meta(i, root uint64) {
	p := b.file[i*pageSize:]
	binary.NativeEndian.PutUint64(p, i)
	binary.NativeEndian.PutUint16(p[8:], flagMeta)
	m := p[headerSize:]
	binary.NativeEndian.PutUint32(m, metaMagic)
	binary.NativeEndian.PutUint32(m[4:], metaVersion)
	binary.NativeEndian.PutUint32(m[8:], pageSize)
	binary.NativeEndian.PutUint64(m[16:], root)
	binary.NativeEndian.PutUint64(m[32:], noFreelist)
	binary.NativeEndian.PutUint64(m[40:], uint64(len(b.file))/pageSize)
	binary.NativeEndian.PutUint64(m[48:], i)
	sum := fnv.New64a()
	sum.Write(m[:metaSize-8])
	binary.NativeEndian.PutUint64(m[metaSize-8:], sum.Sum64())
}

// digest is what a sealed segment's name says of its bytes.
func digest(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// wanted returns what a file of a content must have: what is behind each lane's
// cursor, and every body that another lane still points to.
func wanted(c content, cursor func(laneName) uint64) (keep func(lane uint16, seq uint64) bool, err error) {
	type record struct {
		lane uint16
		seq  uint64
	}
	done, bodies := map[uint16]uint64{}, map[record]bool{}
	err = c.lanes(func(id uint16) error {
		if name, ok := c.lane(id); ok {
			done[id] = cursor(name)
		}
		return nil
	})
	for id, seq := range done {
		c.each(id, seq+1, ^uint64(0), func(seq uint64, val []byte) bool {
			if len(val) > checksumSize+2 && val[0] == kindReference {
				lane := binary.BigEndian.Uint16(val[len(val)-checksumSize-2:])
				if seq <= done[lane] {
					bodies[record{lane, seq}] = true
				}
			}
			return true
		})
	}
	return func(lane uint16, seq uint64) bool { return seq > done[lane] || bodies[record{lane, seq}] }, err
}
