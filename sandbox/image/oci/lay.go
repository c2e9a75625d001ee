package oci

import (
	"encoding/binary"
	"fmt"
	"io"
	"sort"
	"strings"
)

// The EROFS format as the kernel documents it (Documentation/filesystems/erofs.rst, fs/erofs/erofs_fs.h): block 0 holds the superblock,
// then come the inodes in the tree's order, each with its attributes and what fits of its end, then blocks of directories and files.
const (
	erofsMagic  = 0xe0f5e1e2
	superAt     = 1024
	metaBlock   = 1  // where inodes begin
	slot        = 32 // bytes of a unit that inodes are numbered in
	inodeSize   = 64 // bytes, of the extended form
	direntSize  = 12
	flatPlain   = 0
	flatInline  = 2
	userIndex   = 1       // of attributes whose names begin with user.
	tailAllowed = 2 << 10 // bytes of an end that may cost the rest of a block of inodes
)

// Modes of the kernel, and types of directory entries.
const (
	modeDir, modeFile, modeLink = 0o040000, 0o100000, 0o120000
	typeFile, typeDir, typeLink = 1, 2, 7
)

// spot is where a node's inode is, and where its content goes.
type spot struct {
	nid    uint32 // of the inode; shared by hard links
	links  uint32
	block  uint32 // of what is not in the inode's end
	inline bool   // the end follows the inode
}

// sheet is a tree with a place for everything.
type sheet struct {
	tree   *tree
	spots  []spot
	first  []int32 // by source, the node whose inode it is
	order  []int32 // nodes in the order of their inodes
	meta   int64   // bytes of inodes
	blocks uint32  // of everything
}

// plan gives every inode and every content a place.
func (t *tree) plan() *sheet {
	s := &sheet{tree: t, spots: make([]spot, t.nodes.length), first: make([]int32, len(t.sources))}
	for i := range s.first {
		s.first[i] = none
	}
	s.visit(0)
	var at int64
	for _, i := range s.order {
		n, sp := t.nodes.at(i), &s.spots[i]
		size := t.sizeOf(i)
		tail := size % blockSize
		head := int64(inodeSize + xattrBytes(n.xattrs()))
		free := blockSize - at%blockSize
		sp.inline = tail > 0 && head+tail <= blockSize && (head+tail <= free || tail <= tailAllowed)
		need := head
		if sp.inline {
			need += tail
		}
		if need > free {
			at += free
		}
		sp.nid = uint32(at / slot)
		at += (need + slot - 1) / slot * slot
	}
	s.meta = at
	s.blocks = metaBlock + uint32((at+blockSize-1)/blockSize)
	for _, i := range s.order {
		if n := s.extent(i); n > 0 {
			s.spots[i].block = s.blocks
			s.blocks += uint32(n)
		}
	}
	return s
}

// extent is how many blocks a node's content takes outside of its inode.
func (s *sheet) extent(i int32) int64 {
	size := s.tree.sizeOf(i)
	if s.spots[i].inline {
		return size / blockSize
	}
	return (size + blockSize - 1) / blockSize
}

// visit lists inodes, parents before children, and counts their links.
func (s *sheet) visit(i int32) {
	n := s.tree.nodes.at(i)
	if n.kind == file {
		if f := s.first[n.source]; f != none {
			s.spots[f].links++
			return
		}
		s.first[n.source] = i
	}
	s.spots[i].links++
	s.order = append(s.order, i)
	if n.kind != dir {
		return
	}
	s.spots[i].links++
	for c := n.first; c != none; c = s.tree.nodes.at(c).next {
		if s.tree.nodes.at(c).kind == dir {
			s.spots[i].links++
		}
		s.visit(c)
	}

}

// spot of a name: that of its inode.
func (s *sheet) spot(i int32) spot {
	if n := s.tree.nodes.at(i); n.kind == file {
		return s.spots[s.first[n.source]]
	}
	return s.spots[i]
}

// sizeOf is the length of a node's content.
func (t *tree) sizeOf(i int32) int64 {
	switch n := t.nodes.at(i); n.kind {
	case dir:
		return t.direntBytes(i)
	case symlink:
		return int64(len(n.target()))
	case file:
		return n.size
	case ghost:
	}
	return 0
}

func xattrBytes(xattrs map[string]string) int {
	if len(xattrs) == 0 {
		return 0
	}
	sum := 12
	for name, value := range xattrs {
		sum += (4 + len(name) - len("user.") + len(value) + 3) &^ 3
	}
	return sum
}

// listed calls each with a directory's entries as they stand on the disk: sorted, with . and .. among them.
func (t *tree) listed(i int32, each func(name string, at int32)) {
	own := [...]struct {
		name string
		at   int32
	}{{".", i}, {"..", max(t.nodes.at(i).parent, 0)}}
	k := 0
	for c := t.nodes.at(i).first; c != none; c = t.nodes.at(c).next {
		for ; k < len(own) && own[k].name < t.nodes.at(c).name; k++ {
			each(own[k].name, own[k].at)
		}
		each(t.nodes.at(c).name, c)
	}
	for ; k < len(own); k++ {
		each(own[k].name, own[k].at)
	}
}

// direntBytes is the length of a directory: full blocks, and what the last one holds.
func (t *tree) direntBytes(i int32) int64 {
	var full, used int64
	t.listed(i, func(name string, _ int32) {
		need := int64(direntSize + len(name))
		if used+need > blockSize {
			full, used = full+blockSize, 0
		}
		used += need
	})
	return full + used
}

// sortNames orders every directory by name.
func (t *tree) sortNames() {
	var list []int32
	for i := range t.nodes.length {
		list = list[:0]
		for c := t.nodes.at(i).first; c != none; c = t.nodes.at(c).next {
			list = append(list, c)
		}
		sort.Slice(list, func(a, b int) bool { return t.nodes.at(list[a]).name > t.nodes.at(list[b]).name })
		t.nodes.at(i).first = none
		for _, c := range list {
			t.nodes.at(c).next, t.nodes.at(i).first = t.nodes.at(i).first, c
		}
	}
}

// writer gathers what is written one after the other.
type writer struct {
	out io.WriterAt
	at  int64
	buf []byte
	err error
}

func (w *writer) put(p []byte) {
	w.buf = append(w.buf, p...)
	if len(w.buf) >= 64<<10 {
		w.flush()
	}
}

func (w *writer) flush() {
	if w.err == nil && len(w.buf) > 0 {
		_, w.err = w.out.WriteAt(w.buf, w.at)
	}
	w.at += int64(len(w.buf))
	w.buf = w.buf[:0]
}

// seek goes on at another position, behind or not.
func (w *writer) seek(at int64) {
	if at != w.at+int64(len(w.buf)) {
		w.flush()
		w.at = at
	}
}

// write lays the image out: everything but the contents of files, whose places stay holes. It returns the image's size.
func (s *sheet) write(out io.WriterAt) (size int64, err error) {
	w := &writer{out: out, buf: make([]byte, 0, 65<<10)}
	for _, i := range s.order {
		s.inode(w, i)
	}
	for _, i := range s.order {
		if n := s.tree.nodes.at(i); n.kind != file && s.extent(i) > 0 {
			w.seek(int64(s.spots[i].block) * blockSize)
			w.put(s.content(i)[:min(s.extent(i)*blockSize, s.tree.sizeOf(i))])
		}
	}
	w.flush()
	super := make([]byte, superAt+128)
	b := super[superAt:]
	binary.LittleEndian.PutUint32(b, erofsMagic)
	b[12] = 12 // log2 of a block
	binary.LittleEndian.PutUint64(b[16:], uint64(len(s.order)))
	binary.LittleEndian.PutUint32(b[36:], s.blocks)
	binary.LittleEndian.PutUint32(b[40:], metaBlock)
	w.seek(0)
	w.put(super)
	w.flush()
	size = int64(s.blocks) * blockSize
	if w.err == nil { // the file ends with its last block, even if that is a hole
		_, w.err = out.WriteAt([]byte{0}, size-1)
	}
	if w.err != nil {
		return 0, fmt.Errorf("write image: %w", w.err)
	}
	return size, nil
}

// inode writes a node's inode, its attributes and its end.
func (s *sheet) inode(w *writer, i int32) {
	n, sp := s.tree.nodes.at(i), s.spots[i]
	w.seek(metaBlock*blockSize + int64(sp.nid)*slot)
	size := s.tree.sizeOf(i)
	var b [inodeSize]byte
	format := uint16(1 | flatPlain<<1)
	if sp.inline {
		format = 1 | flatInline<<1
	}
	le := binary.LittleEndian
	le.PutUint16(b[0:], format)
	if x := xattrBytes(n.xattrs()); x > 0 {
		le.PutUint16(b[2:], uint16((x-12)/4+1))
	}
	le.PutUint16(b[4:], n.mode|[...]uint16{ghost: 0, dir: modeDir, file: modeFile, symlink: modeLink}[n.kind])
	le.PutUint64(b[8:], uint64(size))
	le.PutUint32(b[16:], sp.block)
	le.PutUint32(b[20:], sp.nid+1) // a number for programs that want one
	le.PutUint32(b[24:], n.uid)
	le.PutUint32(b[28:], n.gid)
	le.PutUint64(b[32:], uint64(n.sec))
	le.PutUint32(b[40:], n.nsec)
	le.PutUint32(b[44:], sp.links)
	w.put(b[:])
	putXattrs(w, n.xattrs())
	if sp.inline && n.kind != file {
		c := s.content(i)
		w.put(c[len(c)-len(c)%blockSize:])
	}
}

func putXattrs(w *writer, xattrs map[string]string) {
	if len(xattrs) == 0 {
		return
	}
	names := make([]string, 0, len(xattrs))
	for name := range xattrs {
		names = append(names, name)
	}
	sort.Strings(names)
	var head [12]byte
	w.put(head[:])
	for _, name := range names {
		value := xattrs[name]
		suffix := strings.TrimPrefix(name, "user.")
		e := []byte{byte(len(suffix)), userIndex, byte(len(value)), byte(len(value) >> 8)}
		e = append(append(e, suffix...), value...)
		w.put(append(e, make([]byte, -len(e)&3)...))
	}
}

// content is what a directory or a symbolic link holds.
func (s *sheet) content(i int32) []byte {
	if n := s.tree.nodes.at(i); n.kind == symlink {
		return []byte(n.target())
	}
	var out, heads, names []byte
	used := 0
	flush := func() {
		for k := 0; k < len(heads); k += direntSize { // offsets of names count from the block's start
			off := binary.LittleEndian.Uint16(heads[k+8:])
			binary.LittleEndian.PutUint16(heads[k+8:], off+uint16(len(heads)))
		}
		out = append(append(out, heads...), names...)
		heads, names, used = heads[:0], names[:0], 0
	}
	s.tree.listed(i, func(name string, at int32) {
		if used+direntSize+len(name) > blockSize {
			flush()
			out = append(out, make([]byte, -len(out)&(blockSize-1))...)
		}
		var e [direntSize]byte
		binary.LittleEndian.PutUint64(e[:], uint64(s.spot(at).nid))
		binary.LittleEndian.PutUint16(e[8:], uint16(len(names)))
		e[10] = [...]byte{ghost: 0, dir: typeDir, file: typeFile, symlink: typeLink}[s.tree.nodes.at(at).kind]
		heads, names = append(heads, e[:]...), append(names, name...)
		used += direntSize + len(name)
	})
	flush()
	return out
}
