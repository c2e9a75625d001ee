package store

import (
	"encoding/binary"
	"sort"
	"sync"
)

// draft is a segment that has no file of its own yet: its records lie in a
// journal, and buf is what the journal has, byte for byte, so that readers and
// the sealer need no disk. It is written by one, the committer, and read by all.
// What was published never moves or changes.
type draft struct {
	number  uint64
	journal *journal
	base    uint64 // no sequence in it is lower

	// The committer's alone.
	at     int // bytes of buf that are on disk
	commit uint32
	last   uint64 // the highest sequence stored, in whatever file
	refs   []byte // scratch
	fresh  []placed

	mu    sync.RWMutex
	buf   []byte
	drawn []drawn // by the number of the lane, less 1
}

// nameEvery is after how many bytes a lane is named again: what is damaged before
// that costs no name.
const nameEvery = 64 << 10

// drawn is one lane of a draft.
type drawn struct {
	name   laneName
	ok     bool   // the name was found
	named  int    // where in the journal it stands last: the committer's
	behind uint64 // the highest sequence of it in older segments
	spots  []spot
}

// spot is where in buf the value of a record is.
type spot struct {
	seq      uint64
	from, to uint32
}

// placed is a spot that is not published yet.
type placed struct {
	id uint16
	spot
}

func newDraft(number, base, last uint64, j *journal) *draft {
	return &draft{number: number, base: base, last: last, journal: j, buf: make([]byte, j.size)}
}

// need bounds what a group takes in the journal.
func (d *draft) need(g group, ids map[*lane]uint16) int {
	n := blockHeader
	for i := range g.records {
		r := &g.records[i]
		if r.err != nil {
			continue
		}
		n += r.to - r.from
		for _, e := range g.entries[r.first : r.first+r.entries] {
			n += 4 * itemHeader // a record, or a reference
			if id, ok := ids[e.lane]; !ok || d.at-d.drawn[id-1].named > nameEvery {
				n += itemHeader + len(e.lane.sink.name) + 24
			}
		}
	}
	return n
}

// append writes a group behind what there is, in one write and one flush, and
// publishes it. behind says how far a lane came before this draft. It returns the bytes of the pages that were written. There must be room. After an error nothing is published and the
// draft must take no more.
func (d *draft) append(g group, ids map[*lane]uint16, behind func(*lane) uint64) (wrote int, err error) {
	b := d.buf[d.at : d.at+blockHeader]
	last := d.last
	d.fresh, d.refs = d.fresh[:0], d.refs[:0]
	for i := range g.records {
		r := &g.records[i]
		if r.err != nil || r.entries == 0 {
			continue
		}
		body := uint16(0)
		for j, e := range g.entries[r.first : r.first+r.entries] {
			id, ok := ids[e.lane]
			if !ok {
				id = d.name(laneName{sink: e.lane.sink.name, priority: e.lane.priority}, behind(e.lane))
				ids[e.lane] = id
			}
			if l := &d.drawn[id-1]; !ok || d.at-l.named > nameEvery {
				l.named = d.at
				b = appendName(b, d.number, id, l.name, l.behind)
			}
			val := g.arena[r.from:r.to]
			if j == 0 {
				body = id
			} else {
				v := value{kind: kindReference, stored: r.stored, ttl: e.ttl, clock: r.clock, lane: body}
				d.refs = v.append(d.refs[:0], e.lane.seed, r.seq)
				val = d.refs
			}
			b = appendItem(b, id, r.seq-d.last, val)
			to := d.at + len(b)
			d.fresh = append(d.fresh, placed{id: id, spot: spot{seq: r.seq, from: uint32(to - len(val)), to: uint32(to)}})
		}
		last = r.seq
	}
	block{epoch: d.number, commit: d.commit + 1, before: d.last}.seal(b)
	if _, err := d.journal.WriteAt(b, int64(d.at)); err != nil {
		return 0, err
	}
	if err := d.journal.flush(); err != nil {
		return 0, err
	}
	end := d.at + len(b)
	wrote = (end+pageSize-1)/pageSize*pageSize - d.at/pageSize*pageSize // the kernel writes whole pages
	d.at, d.commit, d.last = end, d.commit+1, last
	d.publish(d.fresh)
	return wrote, nil
}

// end writes an empty block behind all others: without it nobody can know that
// the block before it was not the last, when the disk forgets that one.
func (d *draft) end() error {
	if d.at+blockHeader > len(d.buf) || d.commit == 0 {
		return nil
	}
	b := d.buf[d.at : d.at+blockHeader]
	block{epoch: d.number, commit: d.commit + 1, before: d.last}.seal(b)
	if _, err := d.journal.WriteAt(b, int64(d.at)); err != nil {
		return err
	}
	d.at, d.commit = d.at+len(b), d.commit+1
	return d.journal.flush()
}

// name gives a lane its number.
func (d *draft) name(name laneName, behind uint64) uint16 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drawn = append(d.drawn, drawn{name: name, ok: true, behind: behind})
	return uint16(len(d.drawn))
}

func (d *draft) publish(fresh []placed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range fresh {
		l := &d.drawn[p.id-1]
		l.spots = append(l.spots, p.spot)
	}
}

// spots returns the records of a lane that are published. The slice does not
// change.
func (d *draft) spots(id uint16) []spot {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if id == 0 || int(id) > len(d.drawn) {
		return nil
	}
	return d.drawn[id-1].spots
}

func (d *draft) each(lane uint16, from, to uint64, fn func(seq uint64, val []byte) bool) {
	spots := d.spots(lane)
	i := sort.Search(len(spots), func(i int) bool { return spots[i].seq >= from })
	for _, s := range spots[i:] {
		if s.seq > to || !fn(s.seq, d.buf[s.from:s.to:s.to]) {
			return
		}
	}
}

func (d *draft) get(lane uint16, seq uint64) []byte {
	spots := d.spots(lane)
	i := sort.Search(len(spots), func(i int) bool { return spots[i].seq >= seq })
	if i == len(spots) || spots[i].seq != seq {
		return nil
	}
	return d.buf[spots[i].from:spots[i].to:spots[i].to]
}

func (d *draft) lane(id uint16) (laneName, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if id == 0 || int(id) > len(d.drawn) {
		return laneName{}, false
	}
	l := &d.drawn[id-1]
	return l.name, l.ok
}

func (d *draft) lanes(fn func(id uint16) error) error {
	d.mu.RLock()
	n := len(d.drawn)
	d.mu.RUnlock()
	for id := 1; id <= n; id++ {
		if _, ok := d.lane(uint16(id)); !ok {
			continue
		}
		if err := fn(uint16(id)); err != nil {
			return err
		}
	}
	return nil
}

// replayed says what was found in a journal.
type replayed struct {
	epoch   uint64
	newest  uint64 // of the epochs that headers name, whole or not
	blocks  int    // whole ones
	holes   int    // places where a block is missing and later ones are there
	lost    uint64 // sequences in the holes, at most
	above   uint64 // of those, above what every lane has passed
	torn    bool   // the last block was begun and is not whole
	records int
	orphans int    // records whose lane nobody knows
	top     uint64 // the highest sequence, of orphans too
}

// replay finds the records of a journal's newest life in what the file has. Only
// what its checksum vouches for is taken: blocks that are whole, and of one that
// is not the records that are. Sequences up to floor were found elsewhere. What
// is missing up to told is no news, and what is missing at the front up to start
// is none.
func (d *draft) replay(floor, start, told uint64) (r replayed) {
	b := d.buf
	d.last = floor
	r.epoch, r.newest = epochOf(b)
	if d.number = r.epoch; r.epoch == 0 {
		return r
	}
	gap := func(from, to uint64, kept int) {
		if from = max(from, told); to > from {
			r.holes++
			r.lost += max(to-from, uint64(kept)) - uint64(kept)
			r.above += to - min(to, max(from, start))
		}
	}
	for at := 0; ; {
		h, ok := parseBlock(b[at:])
		mine := ok && h.epoch == r.epoch && h.commit == d.commit+1
		if mine && h.whole(b[at:]) {
			if d.commit == 0 {
				gap(max(d.last, start), h.before, 0)
			}
			r.blocks++
			d.commit = h.commit
			d.salvage(h, at, &r)
			at += h.next()
			d.at = at
			continue
		}
		next := findBlock(b, at, func(n block) bool { return n.epoch == r.epoch && n.commit > d.commit+1 })
		missed, kept := d.last, 0
		if mine { // what of it is whole was stored, or nearly
			limit := len(b)
			if next >= 0 {
				limit = next
			}
			if at+h.next() <= limit {
				kept = d.salvage(h, at, &r)
			}
		}
		if next < 0 {
			r.torn = mine
			return r
		}
		n, _ := parseBlock(b[next:])
		gap(missed, n.before, kept)
		d.commit = n.commit - 1
		at = next
	}
}

// before returns what the first block that is whole stands behind.
func (d *draft) before() uint64 {
	at := findBlock(d.buf, 0, func(b block) bool { return b.epoch == d.number })
	if at < 0 {
		return 0
	}
	h, _ := parseBlock(d.buf[at:])
	return h.before
}

// epochOf returns whose blocks a journal has: those of the header at its start,
// or if that is not to be read, of the newest block that is whole.
func epochOf(b []byte) (epoch, newest uint64) {
	if h, ok := parseBlock(b); ok {
		if h.commit == 1 && h.whole(b) {
			return h.epoch, h.epoch
		}
		newest = h.epoch
	}
	for at := 0; ; at++ {
		at = findBlock(b, at, func(n block) bool { return n.epoch > epoch })
		if at < 0 {
			return epoch, max(epoch, newest)
		}
		h, _ := parseBlock(b[at:])
		epoch = h.epoch
	}
}

// salvage takes over the items of a block that carry a right checksum, and
// returns how many sequences that were.
func (d *draft) salvage(h block, at int, r *replayed) (kept int) {
	whole := d.commit == h.commit
	start := at + blockHeader
	payload := d.buf[start : start+h.length]
	top := d.last
	for next := 0; next < len(payload); {
		it, end, ok := parseItem(payload, next)
		if !ok {
			break
		}
		next = end
		val := payload[it.from:it.to]
		if it.name {
			d.learn(it.id, val)
			if whole && int(it.id) <= len(d.drawn) && d.drawn[it.id-1].ok {
				d.drawn[it.id-1].behind = binary.LittleEndian.Uint64(val[len(val)-8:])
			}
			continue
		}
		seq := h.before + it.seq
		if it.seq > 1<<32 || seq <= d.last {
			continue
		}
		if whole {
			r.top = max(r.top, seq)
		}
		if int(it.id) > len(d.drawn) || !d.drawn[it.id-1].ok {
			if whole { // else it is rubbish, or counted by its sequence
				r.orphans++
			}
			continue
		}
		l := &d.drawn[it.id-1]
		v, ok := parseValue(val, l.name.seed(), seq)
		if !ok || len(l.spots) > 0 && l.spots[len(l.spots)-1].seq >= seq || v.kind == kindReference && d.get(v.lane, seq) == nil {
			continue
		}
		if d.base == 0 || seq < d.base {
			d.base = seq
		}
		l.spots = append(l.spots, spot{seq: seq, from: uint32(start + it.from), to: uint32(start + it.to)})
		r.records++
		if seq > top {
			top, kept = seq, kept+1
		}
	}
	d.last = top
	return kept
}

// learn notes what the number of a lane stands for.
func (d *draft) learn(id uint16, val []byte) {
	if len(val) < 8 {
		return
	}
	name, ok := parseLaneName(d.number, id, val[:len(val)-8])
	if !ok || int(id) <= len(d.drawn) && d.drawn[id-1].ok || int(id) > len(d.drawn)+4096 {
		return
	}
	for len(d.drawn) < int(id) {
		d.drawn = append(d.drawn, drawn{})
	}
	d.drawn[id-1].name, d.drawn[id-1].ok = name, true
}
