package writelog

import (
	"maps"
	"math/rand/v2"
	"path/filepath"
)

// How says what a power cut does to what was not flushed.
type How uint8

// What a cut may do.
const (
	Kept      How = iota // everything issued is there, the last write perhaps torn
	Dropped              // nothing but what was flushed is there
	Reordered            // each pending write is there, torn or lost by itself
	Lying                // as Reordered, on a disk that did nothing at its last one to four flushes
	hows
)

func (h How) String() string {
	return [...]string{"kept", "dropped", "reordered", "lying"}[h]
}

// sector is what a disk writes whole or not at all.
const sector = 512

// Cut returns a folder that a power cut at a point may leave. The same log, point, manner and seed make the same folder.
func (l *Log) Cut(point int, how How, seed uint64) Tree {
	rng := rand.New(rand.NewPCG(seed, uint64(how)))
	lies := 0
	if how == Lying {
		lies = 1 + rng.IntN(4)
	}
	durable := l.durable(point, lies)
	last := l.lastWrite(point)
	names := l.namesKept(rng, point, how, durable)
	fate := map[int]func(int) bool{} // of pending data: which sectors survive
	for i := range l.Ops {
		op := &l.Ops[i]
		if op.At >= point || durable[i] || op.Kind != Write {
			continue
		}
		switch n := rng.IntN(3); {
		case how == Kept && i == last && n > 0, how >= Reordered && n == 2: // torn: any sectors
			torn := rng.Uint64()
			fate[i] = func(s int) bool { return rand.New(rand.NewPCG(torn, uint64(s))).IntN(2) == 0 }
		case how == Kept, how >= Reordered && n == 1:
			fate[i] = func(int) bool { return true }
		}
	}
	sizes := map[int]bool{}
	for i := range l.Ops {
		if op := &l.Ops[i]; op.At < point && (op.Kind == Truncate || op.Kind == Grow) {
			sizes[i] = durable[i] || how == Kept || how >= Reordered && rng.IntN(2) == 0
		}
	}
	index := map[*Op]int{}
	for i := range l.Ops {
		index[&l.Ops[i]] = i
	}
	tree, _ := l.build(func(op *Op) bool {
		i := index[op]
		switch {
		case op.At >= point:
			return false
		case op.Kind == Truncate || op.Kind == Grow:
			return sizes[i]
		case op.Kind == Write:
			return durable[i] || fate[i] != nil
		}
		return names[i]
	}, func(op *Op) func(int) bool { return fate[index[op]] })
	return tree
}

// durable says of every operation whether a flush covers it.
func (l *Log) durable(point, lies int) []bool {
	var flushes []*Op
	for i := range l.Ops {
		if op := &l.Ops[i]; op.Kind == Flush && op.End > 0 && op.End < point {
			flushes = append(flushes, op)
		}
	}
	flushes = flushes[:max(0, len(flushes)-lies)]
	newest, all := map[int]int{}, -1 // when the last flush of an object began
	for _, f := range flushes {
		if f.Object == Everything {
			all = max(all, f.At)
		}
		newest[f.Object] = max(newest[f.Object], f.At)
	}
	is := make([]bool, len(l.Ops))
	for i := range l.Ops {
		op := &l.Ops[i]
		covered := max(all, newest[op.Object])
		if op.Kind == Rename {
			covered = max(covered, newest[op.From])
		}
		is[i] = op.End > 0 && op.End < covered
	}
	return is
}

func (l *Log) lastWrite(point int) int {
	last := -1
	for i := range l.Ops {
		if op := &l.Ops[i]; op.Kind == Write && op.At < point {
			last = i
		}
	}
	return last
}

// namesKept picks the operations on names that survive: of each folder the durable ones and some of those that follow,
// without a gap.
func (l *Log) namesKept(rng *rand.Rand, point int, how How, durable []bool) map[int]bool {
	pending := map[int]int{} // folder: operations on names that no flush covers
	for i := range l.Ops {
		if op := &l.Ops[i]; op.At < point && !durable[i] && op.isName() {
			pending[op.Object]++
		}
	}
	quota, kept := map[int]int{}, map[int]bool{}
	for i := range l.Ops {
		op := &l.Ops[i]
		if op.At >= point || !op.isName() {
			continue
		}
		left, drawn := quota[op.Object]
		if !drawn {
			switch how {
			case Kept:
				left = pending[op.Object]
			case Dropped:
			default:
				left = rng.IntN(pending[op.Object] + 1)
			}
			quota[op.Object] = left
		}
		if durable[i] {
			kept[i] = true
		} else if left > 0 {
			kept[i] = true
			quota[op.Object]--
		}
	}
	return kept
}

func (op *Op) isName() bool {
	return op.Kind == Link && op.Target > 0 || op.Kind == Unlink || op.Kind == Rename
}

// build plays the operations that survive. Torn, if it returns a func, says which sectors of a write survive; when a sector
// of one write does, so does what earlier ones put there, because a file system writes the newest form of a sector.
func (l *Log) build(survives func(*Op) bool, torn func(*Op) func(int) bool) (Tree, map[string]int) {
	entries := map[int]map[string]int{}
	for i, o := range l.Objects {
		if o.Mode.IsDir() {
			entries[i] = maps.Clone(o.Entries)
		}
	}
	byFile := map[int][]*Op{}
	for i := range l.Ops {
		op := &l.Ops[i]
		switch op.Kind {
		case Write, Truncate, Grow:
			byFile[op.Object] = append(byFile[op.Object], op)
		case Link, Unlink, Rename:
			if survives(op) {
				op.name(entries)
			}
		case Flush, Say:
		}
	}
	tree, objects := Tree{}, map[string]int{}
	var walk func(id int, path string)
	walk = func(id int, path string) {
		o := &l.Objects[id]
		objects[path] = id
		if !o.Mode.IsDir() {
			tree[path] = Node{Mode: o.Mode, Data: play(o.Data, byFile[id], survives, torn)}
			return
		}
		tree[path] = Node{Mode: o.Mode}
		for name, child := range entries[id] {
			walk(child, filepath.Join(path, name))
		}
	}
	walk(0, ".")
	return tree, objects
}

// name plays an operation on names.
func (op *Op) name(entries map[int]map[string]int) {
	at := entries[op.Object]
	switch op.Kind {
	case Link:
		if op.Target > 0 {
			at[op.Name] = op.Target
		}
	case Unlink:
		delete(at, op.Name)
	case Rename:
		if id, there := entries[op.From][op.FromName]; there {
			delete(entries[op.From], op.FromName)
			at[op.Name] = id
		}
	case Write, Truncate, Grow, Flush, Say:
	}
}

// play makes a file's content of what survives.
func play(base []byte, ops []*Op, survives func(*Op) bool, torn func(*Op) func(int) bool) []byte {
	newest := map[int]int{} // sector: the last operation that reached it
	for i, op := range ops {
		if op.Kind != Write || !survives(op) {
			continue
		}
		keep := sectors(op, torn)
		for s := int(op.Off) / sector; s*sector < int(op.Off)+len(op.Data); s++ {
			if keep == nil || keep(s) {
				newest[s] = i
			}
		}
	}
	data := append([]byte(nil), base...)
	for i, op := range ops {
		switch {
		case op.Kind == Truncate && survives(op):
			data = resize(data, int(op.Off))
		case op.Kind == Grow && survives(op):
			data = resize(data, max(len(data), int(op.Off)))
		case op.Kind == Write:
			for s := int(op.Off) / sector; s*sector < int(op.Off)+len(op.Data); s++ {
				if last, there := newest[s]; !there || i > last {
					continue
				}
				from, to := max(s*sector, int(op.Off)), min((s+1)*sector, int(op.Off)+len(op.Data))
				data = resize(data, max(len(data), to))
				copy(data[from:to], op.Data[from-int(op.Off):])
			}
		}
	}
	return data
}

func sectors(op *Op, torn func(*Op) func(int) bool) func(int) bool {
	if torn == nil {
		return nil
	}
	return torn(op)
}

// resize cuts or grows with zeros.
func resize(data []byte, size int) []byte {
	if size <= len(data) {
		return data[:size]
	}
	return append(data, make([]byte, size-len(data))...)
}
