package bundle

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/bits"
)

// The EROFS format as the kernel documents it (Documentation/filesystems/erofs.rst, fs/erofs/erofs_fs.h), laid out so that a small
// change of the tree is a small change of the image: block 0 with the superblock, then inodes in the tree's order, then blocks of
// directories, then those of files. A small file stands behind its inode in a place of 64, 128 ... 2048 bytes, and so moves nothing
// when a line is added to it; what has more begins a block of its own.
const (
	erofsMagic   = 0xe0f5e1e2
	superOffset  = 1024
	superSize    = 128
	slotSize     = 32 // bytes of a unit that inodes are numbered in
	compactInode = 32 // bytes
	longInode    = 64 // bytes, for files of 4 GiB and directories of 65 536
	direntSize   = 12
	mostInline   = 2 << 10 // bytes of an inode with what follows it
	plainData    = 0
	inlineData   = 2
	longForm     = 1
)

// Modes of the kernel, and types of directory entries.
const (
	modeDirectory, modeRegular, modeSymlink = 0o040000, 0o100000, 0o120000
	direntFile, direntDir, direntSymlink    = 1, 2, 7
)

// spot is where a node stands in the image.
type spot struct {
	nid    uint64
	size   int64 // of the content
	links  int
	head   int    // bytes of the inode
	inline bool   // the content follows the inode
	block  uint32 // of the content otherwise
}

// plan is a tree with a place for everything.
type plan struct {
	tree   *Tree
	order  []*node
	spots  map[*node]*spot
	parent map[*node]*node
	meta   int64 // bytes of inodes
	blocks int64 // of everything
}

// WriteImage writes the tree as a plain EROFS image of 4096-byte blocks. The same tree gives the same bytes.
func (t *Tree) WriteImage(out io.Writer) error {
	p := &plan{tree: t, spots: make(map[*node]*spot), parent: make(map[*node]*node)}
	p.place(t.nodes["."], t.nodes["."])
	p.settle()
	if p.blocks > math.MaxUint32 {
		return fmt.Errorf("write image: %d blocks are more than an image may have", p.blocks)
	}
	file := bufio.NewWriterSize(out, 64<<10)
	w := &imageWriter{out: file}
	w.pad(superOffset)
	w.put(p.super())
	w.pad(dataAlign)
	for _, n := range p.order {
		p.inode(w, n)
	}
	for _, n := range p.order {
		if s := p.spots[n]; n.IsDir() && !s.inline {
			w.pad(int64(s.block) * dataAlign)
			w.put(p.dirents(n))
		}
	}
	for _, n := range p.order {
		if s := p.spots[n]; !n.IsDir() && !s.inline && s.size > 0 {
			w.pad(int64(s.block) * dataAlign)
			w.content(n)
		}
	}
	w.pad(p.blocks * dataAlign)
	if w.err == nil {
		w.err = file.Flush()
	}
	if w.err != nil {
		return fmt.Errorf("write image: %w", w.err)
	}
	return nil
}

// place lists the nodes, parents before children, and how long their contents are.
func (p *plan) place(n, parent *node) {
	s := &spot{size: n.size, links: 1, head: compactInode}
	p.order, p.spots[n], p.parent[n] = append(p.order, n), s, parent
	if n.IsDir() {
		s.links = 2
		s.size = 0
		used := int64(0)
		p.each(n, func(name string, _ *node) {
			need := int64(direntSize + len(name))
			if used+need > dataAlign {
				s.size, used = s.size+dataAlign, 0
			}
			used += need
		})
		s.size += used
	}
	for _, c := range n.children {
		if c.IsDir() {
			s.links++
		}
		p.place(c, n)
	}
	if s.size > math.MaxUint32 || s.links > math.MaxUint16 {
		s.head = longInode
	}
}

// settle gives every inode and every content a place.
func (p *plan) settle() {
	var at int64
	for _, n := range p.order {
		s := p.spots[n]
		need := int64(s.head)
		if whole := need + s.size; s.size > 0 && whole <= mostInline {
			s.inline, need = true, whole
			if n.mode.IsRegular() {
				need = 1 << bits.Len64(uint64(whole-1))
			}
		}
		if free := dataAlign - at%dataAlign; need > free {
			at += free
		}
		s.nid = uint64(at / slotSize)
		at = align(at+need, slotSize)
	}
	p.meta = at
	p.blocks = 1 + align(at, dataAlign)/dataAlign
	for _, dirs := range []bool{true, false} {
		for _, n := range p.order {
			if s := p.spots[n]; !s.inline && s.size > 0 && n.IsDir() == dirs {
				s.block = uint32(min(p.blocks, math.MaxUint32))
				p.blocks += align(s.size, dataAlign) / dataAlign
			}
		}
	}
}

// each calls f with a directory's entries as they stand on the disk: sorted, with . and .. among them.
func (p *plan) each(n *node, f func(name string, to *node)) {
	own := []struct {
		name string
		to   *node
	}{{".", n}, {"..", p.parent[n]}}
	for _, c := range n.children {
		for len(own) > 0 && own[0].name < c.Name() {
			f(own[0].name, own[0].to)
			own = own[1:]
		}
		f(c.Name(), c)
	}
	for _, o := range own {
		f(o.name, o.to)
	}
}

func (p *plan) super() []byte {
	b := make([]byte, superSize)
	le := binary.LittleEndian
	le.PutUint32(b, erofsMagic)
	b[12] = uint8(bits.TrailingZeros(dataAlign))
	le.PutUint16(b[14:], uint16(p.spots[p.order[0]].nid))
	le.PutUint64(b[16:], uint64(len(p.order)))
	le.PutUint64(b[24:], uint64(p.tree.epoch.Unix()))
	le.PutUint32(b[36:], uint32(p.blocks))
	le.PutUint32(b[40:], 1) // where inodes begin
	return b
}

// inode writes a node's inode, and its content if that follows. Owner and group are 0.
func (p *plan) inode(w *imageWriter, n *node) {
	s := p.spots[n]
	w.pad(dataAlign + int64(s.nid)*slotSize)
	b := make([]byte, s.head)
	le := binary.LittleEndian
	format := uint16(plainData << 1)
	if s.inline {
		format = inlineData << 1
	}
	kind := modeRegular
	switch {
	case n.IsDir():
		kind = modeDirectory
	case n.link():
		kind = modeSymlink
	}
	le.PutUint16(b[4:], uint16(kind)|uint16(n.mode.Perm()))
	le.PutUint32(b[16:], s.block)
	le.PutUint32(b[20:], uint32(s.nid)+1) // a number for programs that want one
	if s.head == longInode {
		format |= longForm
		le.PutUint64(b[8:], uint64(s.size))
		le.PutUint64(b[32:], uint64(p.tree.epoch.Unix()))
		le.PutUint32(b[44:], uint32(s.links))
	} else {
		le.PutUint16(b[6:], uint16(s.links))
		le.PutUint32(b[8:], uint32(s.size))
	}
	le.PutUint16(b, format)
	w.put(b)
	switch {
	case !s.inline:
	case n.IsDir():
		w.put(p.dirents(n))
	default:
		w.content(n)
	}
}

func (n *node) link() bool { return n.mode.Type() == fs.ModeSymlink }

// dirents is the content of a directory: blocks of entries with their names behind them.
func (p *plan) dirents(n *node) []byte {
	var out, entries, names []byte
	flush := func() {
		for i := 0; i < len(entries); i += direntSize { // names are found from the block's start
			at := binary.LittleEndian.Uint16(entries[i+8:])
			binary.LittleEndian.PutUint16(entries[i+8:], at+uint16(len(entries)))
		}
		out = append(append(out, entries...), names...)
		entries, names = entries[:0], names[:0]
	}
	p.each(n, func(name string, to *node) {
		if len(entries)+len(names)+direntSize+len(name) > dataAlign {
			flush()
			out = append(out, make([]byte, align(int64(len(out)), dataAlign)-int64(len(out)))...)
		}
		kind := byte(direntFile)
		switch {
		case to.IsDir():
			kind = direntDir
		case to.link():
			kind = direntSymlink
		}
		entries = binary.LittleEndian.AppendUint64(entries, p.spots[to].nid)
		entries = binary.LittleEndian.AppendUint16(entries, uint16(len(names)))
		entries = append(entries, kind, 0)
		names = append(names, name...)
	})
	flush()
	return out
}

// imageWriter writes one thing after the other.
type imageWriter struct {
	out io.Writer
	at  int64
	buf []byte
	err error
}

func (w *imageWriter) put(b []byte) {
	if w.err == nil {
		_, w.err = w.out.Write(b)
	}
	w.at += int64(len(b))
}

// pad writes zeros up to an offset.
func (w *imageWriter) pad(to int64) {
	zeros := make([]byte, min(to-w.at, 64<<10))
	for w.at < to {
		w.put(zeros[:min(int64(len(zeros)), to-w.at)])
	}
}

// content writes a link's target, or a file, which has the length that the scan counted or is an error.
func (w *imageWriter) content(n *node) {
	if n.link() {
		w.put([]byte(n.target))
		return
	}
	if w.buf == nil {
		w.buf = make([]byte, 128<<10)
	}
	f := &lazyFile{node: n}
	for w.err == nil {
		k, err := f.Read(w.buf)
		w.put(w.buf[:k])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && w.err == nil {
			w.err = err
		}
	}
	if err := f.Close(); w.err == nil {
		w.err = err
	}
}
