package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// What follows reads bbolt's pages without bbolt: with plain reads, bounds
// checked, no mapping. bbolt trusts its file; on a damaged one it may panic in a
// goroutine of its own, never come back, or take all memory. So no file that we
// did not just write ourselves is given to it before [verify] has walked it.
//
// The layout has not changed since 2013: pages of a fixed size, each with a
// header {id u64, flags u16, count u16, overflow u32}, numbers in the byte order
// of the machine. A leaf has elements {flags, pos, key size, value size u32}, a
// branch has {pos, key size u32, child u64}; pos counts from the element.
const (
	pageSize   = 4096 // of every file of ours, whatever the kernel's page is
	headerSize = 16
	elemSize   = 16

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10

	flagBucket = 0x01 // of a leaf element: the value is a bucket

	metaMagic   = 0xED0CDAED
	metaVersion = 2
	metaSize    = 64

	noFreelist = ^uint64(0)
)

// damage says that a file does not hold what was written to it. It is not an
// error of the machine (no memory, no permission), which is returned as it is.
type damage struct {
	page uint64
	what string
}

func (d *damage) Error() string { return fmt.Sprintf("damaged at page %d: %s", d.page, d.what) }

func damaged(page uint64, format string, args ...any) error {
	return &damage{page: page, what: fmt.Sprintf(format, args...)}
}

func isDamage(err error) bool {
	var d *damage
	return errors.As(err, &d)
}

// page is one page with its overflow pages, header included.
type page []byte

func (p page) id() uint64       { return binary.NativeEndian.Uint64(p) }
func (p page) flags() uint16    { return binary.NativeEndian.Uint16(p[8:]) }
func (p page) count() int       { return int(binary.NativeEndian.Uint16(p[10:])) }
func (p page) overflow() uint32 { return binary.NativeEndian.Uint32(p[12:]) }

// fits says whether the elements that the header counts are inside the page.
func (p page) fits() bool { return headerSize+p.count()*elemSize <= len(p) }

// element returns the i-th element and everything behind its start, which is
// what its pos counts from.
func (p page) element(i int) []byte { return p[headerSize+i*elemSize:] }

// leaf returns the i-th element of a leaf that fits.
func (p page) leaf(i int) (flags uint32, key, val []byte, ok bool) {
	e := p.element(i)
	pos, ksize, vsize := u32(e[4:]), u32(e[8:]), u32(e[12:])
	if ksize == 0 || pos < elemSize || pos+ksize+vsize > uint64(len(e)) {
		return 0, nil, nil, false
	}
	return uint32(u32(e)), e[pos : pos+ksize : pos+ksize], e[pos+ksize : pos+ksize+vsize : pos+ksize+vsize], true
}

// branch returns the i-th element of a branch that fits.
func (p page) branch(i int) (key []byte, child uint64, ok bool) {
	e := p.element(i)
	pos, ksize := u32(e), u32(e[4:])
	if ksize == 0 || pos < elemSize || pos+ksize > uint64(len(e)) {
		return nil, 0, false
	}
	return e[pos : pos+ksize : pos+ksize], binary.NativeEndian.Uint64(e[8:]), true
}

func u32(b []byte) uint64 { return uint64(binary.NativeEndian.Uint32(b)) }

// meta is what a meta page says.
type meta struct {
	root     uint64 // page of the root bucket
	freelist uint64 // page of the list of free pages, or noFreelist
	high     uint64 // pages in use: every page id is below
	txid     uint64
}

// readMeta returns the meta page that bbolt would choose, the newer one that is
// whole, and how many are whole.
func readMeta(r io.ReaderAt) (best meta, whole int, err error) {
	buf := make([]byte, headerSize+metaSize)
	for i := range int64(2) {
		if _, err := r.ReadAt(buf, i*pageSize); errors.Is(err, io.EOF) {
			continue
		} else if err != nil {
			return meta{}, 0, fmt.Errorf("read meta page: %w", err)
		}
		if m, ok := parseMeta(buf[headerSize:]); ok {
			if whole == 0 || m.txid > best.txid {
				best = m
			}
			whole++
		}
	}
	if whole == 0 {
		return meta{}, 0, damaged(0, "no meta page is whole")
	}
	return best, whole, nil
}

func parseMeta(b []byte) (meta, bool) {
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	if u32(b) != metaMagic || u32(b[4:]) != metaVersion || u32(b[8:]) != pageSize ||
		binary.NativeEndian.Uint64(b[metaSize-8:]) != sum.Sum64() {
		return meta{}, false
	}
	return meta{
		root:     binary.NativeEndian.Uint64(b[16:]),
		freelist: binary.NativeEndian.Uint64(b[32:]),
		high:     binary.NativeEndian.Uint64(b[40:]),
		txid:     binary.NativeEndian.Uint64(b[48:]),
	}, true
}
