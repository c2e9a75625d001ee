package store

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// recorder is a medium that notes every write, flush and change of a folder in
// its order, and what bbolt did to state.db between two of them. From that it
// makes what a power cut at any moment may have left. It is used by one
// goroutine.
type recorder struct {
	dir   string
	base  image // what was there before
	ops   []op
	state []byte            // state.db as it was last seen
	moved func() uint64     // changes when somebody has committed
	seen  uint64            // of moved
	meant func(path string) // called before an operation on path, if set
	inode map[string]int    // of a path
	fresh int               // the last inode
}

// op is one operation: a write has data, a flush has neither that nor names.
type op struct {
	kind  opKind
	inode int
	at    int64
	data  []byte
	from  string
	to    string
}

type opKind uint8

const (
	opWrite opKind = iota
	opFlush
	opCreate
	opRename
	opRemove
	opSyncDir
)

// newRecorder begins to record in a store's folder.
func newRecorder(tb testing.TB, dir string) *recorder {
	tb.Helper()
	r := &recorder{dir: dir, base: takeImage(tb, dir), inode: map[string]int{}}
	for _, name := range slices.Sorted(maps.Keys(r.base)) {
		r.fresh++
		r.inode[name] = r.fresh
	}
	r.state = r.base["state.db"]
	return r
}

func (r *recorder) name(path string) string { return strings.TrimPrefix(path, r.dir+"/") }

func (r *recorder) open(path string, flag int) (file, error) {
	r.look()
	name := r.name(path)
	if flag&os.O_CREATE != 0 {
		r.fresh++
		r.inode[name] = r.fresh
		r.ops = append(r.ops, op{kind: opCreate, inode: r.fresh, to: name})
	}
	f, err := realMedium{}.open(path, flag)
	return &recorded{file: f, r: r, inode: r.inode[name], path: path}, err
}

func (r *recorder) rename(from, to string) error {
	r.before(to)
	r.inode[r.name(to)] = r.inode[r.name(from)]
	delete(r.inode, r.name(from))
	r.ops = append(r.ops, op{kind: opRename, from: r.name(from), to: r.name(to)})
	return realMedium{}.rename(from, to)
}

func (r *recorder) remove(path string) error {
	r.before(path)
	delete(r.inode, r.name(path))
	r.ops = append(r.ops, op{kind: opRemove, from: r.name(path)})
	return realMedium{}.remove(path)
}

func (r *recorder) syncDir(path string) error {
	r.before(path)
	r.ops = append(r.ops, op{kind: opSyncDir, from: r.name(path)})
	return realMedium{}.syncDir(path)
}

func (r *recorder) before(path string) {
	r.look()
	if r.meant != nil {
		r.meant(path)
	}
}

// recorded is a file of a recorder.
type recorded struct {
	file
	r     *recorder
	inode int
	path  string
}

func (f *recorded) WriteAt(b []byte, at int64) (int, error) {
	f.r.before(f.path)
	f.r.ops = append(f.r.ops, op{kind: opWrite, inode: f.inode, at: at, data: bytes.Clone(b)})
	return f.file.WriteAt(b, at)
}

func (f *recorded) flush() error {
	f.r.before(f.path)
	f.r.ops = append(f.r.ops, op{kind: opFlush, inode: f.inode})
	return nil // the file system is not what is tested
}

// look notes what bbolt has committed to state.db. Its order of writes is known:
// pages, flush, meta page, flush.
func (r *recorder) look() {
	if r.moved == nil || r.moved() == r.seen {
		return
	}
	r.seen = r.moved()
	now, err := os.ReadFile(filepath.Join(r.dir, "state.db"))
	if err != nil || bytes.Equal(now, r.state) {
		return
	}
	n := r.inode["state.db"]
	old := append(bytes.Clone(r.state), make([]byte, max(0, len(now)-len(r.state)))...)
	for _, metas := range []bool{false, true} {
		for at := 0; at < len(now); at += pageSize {
			end := min(at+pageSize, len(now))
			if metas == (at < 2*pageSize) && (at >= len(r.state) || !bytes.Equal(old[at:end], now[at:end])) {
				r.ops = append(r.ops, op{kind: opWrite, inode: n, at: int64(at), data: bytes.Clone(now[at:end])})
			}
		}
		r.ops = append(r.ops, op{kind: opFlush, inode: n})
	}
	r.state = now
}

// cutModel is how a disk behaves at a power cut.
type cutModel struct {
	reorder bool // of what was written since a file's last flush any part is there
	torn    bool // and of each such write any part of its sectors
	lies    int  // the last so many flushes did nothing
}

// left returns what is on disk when the power goes in front of operation c, and
// the moment up to which it tells of everything: see [recorder.told].
func (r *recorder) left(rng *rand.Rand, c int, m cutModel) (img image, told int) {
	files := map[int][]byte{}
	names := map[string]int{}
	id := 0
	for _, name := range slices.Sorted(maps.Keys(r.base)) {
		id++
		names[name], files[id] = id, bytes.Clone(r.base[name])
	}
	honest := c // flushes from here on did nothing
	for lies := m.lies; lies > 0 && honest > 0; {
		honest--
		if k := r.ops[honest].kind; k == opFlush || k == opSyncDir {
			lies--
		}
	}
	flushed, synced := map[int]int{}, -1
	for i, o := range r.ops[:honest] {
		if o.kind == opFlush {
			flushed[o.inode] = i
		} else if o.kind == opSyncDir {
			synced = i
		}
	}
	// What folders are told goes through the file system's journal, in order.
	renames := c
	if m.reorder {
		renames = synced + 1
		if c > renames {
			renames += rng.IntN(c - renames + 1)
		}
	}
	for i, o := range r.ops[:c] {
		switch o.kind {
		case opWrite:
			if last, ok := flushed[o.inode]; m.reorder && (!ok || i > last) {
				if rng.IntN(2) == 0 {
					continue
				}
				if m.torn {
					files[o.inode] = tear(rng, files[o.inode], o)
					continue
				}
			}
			files[o.inode] = overlay(files[o.inode], o.at, o.data)
		case opCreate:
			if i < renames {
				names[o.to] = o.inode
			}
		case opRename:
			if n, ok := names[o.from]; ok && i < renames {
				delete(names, o.from)
				names[o.to] = n
			}
		case opRemove:
			if i < renames {
				delete(names, o.from)
			}
		case opFlush, opSyncDir:
		}
	}
	img = image{}
	for name, n := range names {
		img[name] = append([]byte{}, files[n]...)
	}
	return img, r.told(img, names, c)
}

// told returns the moment up to which a state tells of everything: the newest whole
// header of a block in a journal says what was stored before it, and the meta page
// that state.db goes by what was stored when its transaction was made, which is not
// before the one in front of it ended. A disk that keeps its word, cut at that
// moment, has left at least as much: what the state lacks beside that is a loss that
// can be noticed, and what came later cannot.
func (r *recorder) told(img image, names map[string]int, c int) (told int) {
	ended, begun := 0, false // the last transaction of state.db, and whether another one is under way
	for i, o := range r.ops[:c] {
		name := nameOf(names, o.inode)
		if o.inode == names["state.db"] && o.kind == opFlush && begun {
			ended, begun = i+1, false
		}
		if o.kind != opWrite || strings.HasSuffix(name, newSuffix) {
			continue
		}
		switch b := img[name]; {
		case o.inode == names["state.db"] && o.at < 2*pageSize:
			end := int(o.at) + headerSize + metaSize
			if len(b) >= end && bytes.Equal(b[o.at:end], o.data[:headerSize+metaSize]) && bytes.HasPrefix(newestMeta(b), o.data[:headerSize+metaSize]) {
				told = max(told, ended)
			}
			begun = true
		case bytes.HasPrefix(o.data, blockMagic) && len(o.data) >= blockHeader && len(b) >= int(o.at)+blockHeader && bytes.Equal(b[o.at:][:blockHeader], o.data[:blockHeader]):
			told = i + 1
		}
	}
	return told
}

func nameOf(names map[string]int, inode int) string {
	for name, n := range names {
		if n == inode {
			return name
		}
	}
	return ""
}

func overlay(b []byte, at int64, data []byte) []byte {
	if end := int(at) + len(data); len(b) < end {
		b = append(b, make([]byte, end-len(b))...)
	}
	copy(b[at:], data)
	return b
}

// tear writes some sectors of a write.
func tear(rng *rand.Rand, b []byte, o op) []byte {
	const sector = 512
	for at := o.at; at < o.at+int64(len(o.data)); {
		end := min((at/sector+1)*sector, o.at+int64(len(o.data)))
		if rng.IntN(2) == 0 {
			b = overlay(b, at, o.data[at-o.at:end-o.at])
		}
		at = end
	}
	return b
}
