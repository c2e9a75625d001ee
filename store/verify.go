package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// maxDepth bounds the walk: a tree of 4 KiB pages in a file of 64 MiB is four
// levels deep, plus the bucket above it.
const maxDepth = 16

// verify walks the whole tree of a bbolt file and returns a *damage if bbolt
// could stumble over it: a page that is missing, of another kind, reached
// twice, out of bounds or out of order, or a list of free pages that names one
// in use. What the values mean is not its concern: they carry checksums. metas is
// how many of the two meta pages must be whole: with one, bbolt goes back by one
// transaction.
func verify(path string, metas int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	m, whole, err := readMeta(f)
	if err != nil {
		return err
	}
	if whole < metas {
		return damaged(0, "a meta page is not whole")
	}
	if size := uint64(info.Size()); m.high > size/pageSize {
		return damaged(0, "the file has %d pages of %d", size/pageSize, m.high)
	}
	w := &walker{r: f, high: m.high, seen: make([]uint64, m.high/64+1)}
	if err := w.mark(0, 1); err != nil {
		return err
	}
	if err := w.tree(m.root, nil, nil, 0); err != nil {
		return err
	}
	if m.freelist != noFreelist {
		return w.freelist(m.freelist)
	}
	return nil
}

// walker holds one page for each level, and a bit for each page it has met.
type walker struct {
	r      io.ReaderAt
	high   uint64
	seen   []uint64
	depth  [maxDepth]page
	inside int // buckets around the place: 0 or 1
}

// mark notes that the pages [id, id+overflow] were met, for the first time.
func (w *walker) mark(id uint64, overflow uint32) error {
	if id >= w.high || uint64(overflow) >= w.high-id {
		return damaged(id, "beyond the %d pages in use", w.high)
	}
	for p := id; p <= id+uint64(overflow); p++ {
		if w.seen[p/64]&(1<<(p%64)) != 0 {
			return damaged(p, "in use twice")
		}
		w.seen[p/64] |= 1 << (p % 64)
	}
	return nil
}

// read returns page id with its overflow, in the buffer of this level.
func (w *walker) read(id uint64, level int) (page, error) {
	if level >= maxDepth {
		return nil, damaged(id, "deeper than %d levels", maxDepth)
	}
	if id < 2 || id >= w.high {
		return nil, damaged(id, "outside the %d pages in use", w.high)
	}
	p, err := readPage(w.r, id, w.high, w.depth[level])
	if err != nil {
		return nil, err
	}
	w.depth[level] = p
	return p, w.mark(id, p.overflow())
}

// readPage reads page id and its overflow into buf, which grows if it must.
func readPage(r io.ReaderAt, id, high uint64, buf page) (page, error) {
	if cap(buf) < pageSize {
		buf = make(page, pageSize)
	}
	p := buf[:pageSize]
	if err := readAt(r, p, id); err != nil {
		return nil, err
	}
	if p.id() != id {
		return nil, damaged(id, "calls itself page %d", p.id())
	}
	if p.overflow() == 0 {
		return p, nil
	}
	if uint64(p.overflow()) >= high-id {
		return nil, damaged(id, "claims %d further pages", p.overflow())
	}
	size := (int(p.overflow()) + 1) * pageSize
	if cap(buf) < size {
		p = append(make(page, 0, size), p...)
	}
	p = p[:size]
	return p, readAt(r, p[pageSize:], id+1)
}

// readAt reads whole pages; a file that ends early and a sector that cannot be
// read are damage.
func readAt(r io.ReaderAt, b []byte, id uint64) error {
	switch _, err := r.ReadAt(b, int64(id)*pageSize); {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
		return damaged(id, "the file ends before it")
	case errors.Is(err, syscall.EIO):
		return damaged(id, "cannot be read from the disk")
	default:
		return fmt.Errorf("read page %d: %w", id, err)
	}
}

// tree walks the pages under id, whose keys must be at least low and below high
// (nil = no bound).
func (w *walker) tree(id uint64, low, high []byte, level int) error {
	p, err := w.read(id, level)
	if err != nil {
		return err
	}
	switch {
	case !p.fits():
		return damaged(id, "has no room for its %d elements", p.count())
	case p.flags() == flagLeaf:
		return w.leaf(p, id, low, high, level)
	case p.flags() != flagBranch:
		return damaged(id, "is no tree page (flags %#x)", p.flags())
	case p.count() == 0:
		return damaged(id, "is an empty branch")
	}
	for i := range p.count() {
		key, child, ok := p.branch(i)
		if !ok {
			return damaged(id, "element %d is out of bounds", i)
		}
		if outside(key, low, high) {
			return damaged(id, "element %d is out of order", i)
		}
		next := high
		if i+1 < p.count() {
			if next, _, ok = p.branch(i + 1); !ok {
				return damaged(id, "element %d is out of bounds", i+1)
			}
		}
		if err := w.tree(child, key, next, level+1); err != nil {
			return err
		}
		low = append(bytes.Clone(key), 0) // the next key must be greater
	}
	return nil
}

// leaf checks the elements of a leaf page and walks the buckets in it.
func (w *walker) leaf(p page, id uint64, low, high []byte, level int) error {
	for i := range p.count() {
		flags, key, val, ok := p.leaf(i)
		if !ok {
			return damaged(id, "element %d is out of bounds", i)
		}
		if outside(key, low, high) || i > 0 && bytes.Equal(key, low) {
			return damaged(id, "element %d is out of order", i)
		}
		low = key
		switch {
		case flags&flagBucket == 0 && w.inside == 0:
			return damaged(id, "element %d is no bucket", i)
		case flags&flagBucket == 0:
			continue
		case w.inside > 0:
			return damaged(id, "element %d is a bucket", i) // ours are not nested
		case len(val) < 16:
			return damaged(id, "bucket %q has no header", key)
		}
		w.inside++
		if err := w.bucket(val, id, level+1); err != nil {
			return err
		}
		w.inside--
	}
	return nil
}

// bucket walks a bucket: its tree, or the leaf that stands in its value.
func (w *walker) bucket(val []byte, id uint64, level int) error {
	if root := binary.NativeEndian.Uint64(val); root != 0 {
		return w.tree(root, nil, nil, level)
	}
	inline := page(val[16:])
	if len(inline) < headerSize || inline.flags() != flagLeaf || !inline.fits() {
		return damaged(id, "has a bucket with a broken inline page")
	}
	if level >= maxDepth {
		return damaged(id, "deeper than %d levels", maxDepth)
	}
	return w.leaf(inline, id, nil, nil, level)
}

func outside(key, low, high []byte) bool {
	return bytes.Compare(key, low) < 0 || high != nil && bytes.Compare(key, high) >= 0
}

// freelist checks the list of free pages: bbolt would write over whatever it
// names.
func (w *walker) freelist(id uint64) error {
	p, err := w.read(id, 0)
	if err != nil {
		return err
	}
	if p.flags() != flagFreelist {
		return damaged(id, "is no list of free pages (flags %#x)", p.flags())
	}
	count, ids := uint64(p.count()), p[headerSize:]
	if count == 0xFFFF { // too many for the header: the first number counts them
		count, ids = binary.NativeEndian.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids))/8 {
		return damaged(id, "has no room for %d free pages", count)
	}
	for i := range count {
		free := binary.NativeEndian.Uint64(ids[i*8:])
		if free < 2 {
			return damaged(id, "names meta page %d as free", free)
		}
		if err := w.mark(free, 0); err != nil {
			return err
		}
	}
	return nil
}
