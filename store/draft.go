package store

import (
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
	key     uint32 // of the journal's blocks
	base    uint64 // no sequence in it is lower

	// The committer's alone.
	at     int // bytes of buf that are on disk
	commit uint32
	last   uint64 // the highest sequence stored, in whatever file
	refs   []byte // scratch
	fresh  []placed

	life sync.RWMutex // held by readers of buf, and by the one that gives it back
	free func()       // gives buf back; nil when that was done

	mu    sync.RWMutex
	buf   []byte
	drawn []drawn // by the number of the lane, less 1
}

// nameEvery is after how many bytes a lane is named again: what is damaged before
// that costs no name.
const nameEvery = 64 << 10

// drawn is one lane of a draft.
type drawn struct {
	name  laneName
	ok    bool // the name was found
	named int  // where in the journal it stands last: the committer's
	spots []spot
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
	d := &draft{number: number, base: base, last: last, journal: j, key: j.key}
	d.buf, d.free = apart(j.room())
	return d
}

// enter says whether the records can still be read, until leave is called.
func (d *draft) enter() bool {
	d.life.RLock()
	if d.buf == nil {
		d.life.RUnlock()
		return false
	}
	return true
}

func (d *draft) leave() { d.life.RUnlock() }

// release gives the memory back of a draft that has a file, or that nobody needs.
// It waits for readers.
func (d *draft) release() {
	d.life.Lock()
	defer d.life.Unlock()
	d.buf = nil
	if d.free != nil {
		d.free()
		d.free = nil
	}
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
			n += 4*itemHeader + d.nameNeed(e.lane, ids) // a record, or a reference
		}
	}
	for _, p := range g.notes {
		n += itemHeader + 1 + len(p.position) + d.nameNeed(p.lane, ids)
	}
	return n
}

// nameNeed bounds what naming a lane takes, if that is due.
func (d *draft) nameNeed(l *lane, ids map[*lane]uint16) int {
	if id, ok := ids[l]; ok && d.at-d.drawn[id-1].named <= nameEvery {
		return 0
	}
	return itemHeader + len(l.sink.name) + 24
}

// append writes a group behind what there is, in one write and one flush, and
// publishes it. stored is how many records there were before it. It returns the
// bytes of the pages that were written. There must be room. After an error
// nothing is published and the draft must take no more.
func (d *draft) append(g group, ids map[*lane]uint16, stored uint64) (wrote int, err error) {
	b := d.buf[d.at : d.at+blockHeader]
	last := d.last
	d.fresh, d.refs = d.fresh[:0], d.refs[:0]
	for _, p := range g.notes {
		var id uint16
		id, b = d.draw(p.lane, ids, b)
		b = appendNote(b, id, itemPosition, p.position)
	}
	for i := range g.records {
		r := &g.records[i]
		if r.err != nil || r.entries == 0 {
			continue
		}
		body := uint16(0)
		for j, e := range g.entries[r.first : r.first+r.entries] {
			var id uint16
			id, b = d.draw(e.lane, ids, b)
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
	if err := d.write(b, stored); err != nil {
		return 0, err
	}
	wrote = (d.at+pageSize-1)/pageSize*pageSize - (d.at-len(b))/pageSize*pageSize // the kernel writes whole pages
	d.last = last
	d.publish(d.fresh)
	return wrote, nil
}

// draw returns a lane's number and appends its name to b if that is due.
func (d *draft) draw(l *lane, ids map[*lane]uint16, b []byte) (uint16, []byte) {
	id, ok := ids[l]
	if !ok {
		id = d.name(laneName{sink: l.sink.name, priority: l.priority})
		ids[l] = id
	}
	if n := &d.drawn[id-1]; !ok || d.at-n.named > nameEvery {
		n.named = d.at
		b = appendNote(b, id, itemName, n.name.encode(d.number, id))
	}
	return id, b
}

// write makes the block b, which has its payload, the next one.
func (d *draft) write(b []byte, stored uint64) error {
	block{epoch: d.number, commit: d.commit + 1, before: d.last, stored: stored}.seal(b, d.key)
	if _, err := d.journal.WriteAt(b, int64(d.at)); err != nil {
		return err
	}
	if err := d.journal.flush(); err != nil {
		return err
	}
	d.at, d.commit = d.at+len(b), d.commit+1
	return nil
}

// end writes an empty block behind all others: it vouches for the block before
// it, if the disk forgets that one.
func (d *draft) end(stored uint64) error {
	if d.at+blockHeader > len(d.buf) || d.commit == 0 {
		return nil
	}
	return d.write(d.buf[d.at:d.at+blockHeader], stored)
}

// name gives a lane its number.
func (d *draft) name(name laneName) uint16 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drawn = append(d.drawn, drawn{name: name, ok: true})
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
