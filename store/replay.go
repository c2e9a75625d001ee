package store

import "sort"

// replayed says what was found in a journal.
type replayed struct {
	epoch     uint64
	blocks    int    // whole ones
	holes     int    // places where a block is missing and later ones are there
	lost      uint64 // sequences in the holes, at most
	torn      bool   // the last block was begun and is not whole
	loose     uint64 // records of the torn block that are whole, once for each lane
	looseAt   uint64 // what was stored before the torn block
	records   int
	top       uint64 // the highest sequence, also of records that nobody can read
	stored    uint64 // what was stored up to the last block that is whole
	positions map[laneName]position
}

// replay finds the records of a journal's newest life in what the file has. Only
// what its checksum vouches for is taken: blocks that are whole, and of one that
// is not the records that are.
func (d *draft) replay() (r replayed) {
	b := d.buf
	r.epoch = epochOf(b, d.key)
	if d.number = r.epoch; r.epoch == 0 {
		return r
	}
	r.positions = map[laneName]position{}
	for at := 0; ; {
		h, ok := parseBlock(b[at:], d.key)
		mine := ok && h.epoch == r.epoch && h.commit == d.commit+1
		if mine && h.whole(b[at:]) {
			r.blocks++
			d.commit = h.commit
			d.salvage(h, at, intact, &r)
			at += h.next()
			d.at = at
			continue
		}
		next := findBlock(b, d.key, at, func(n block) bool { return n.epoch == r.epoch && n.commit > d.commit+1 })
		missed, kept, records := d.last, 0, r.records
		if mine { // what of it is whole was stored, or nearly
			limit := len(b)
			if next >= 0 {
				limit = next
			}
			if at+h.next() <= limit {
				how := mangled
				if next < 0 {
					how = cutOff
				}
				kept = d.salvage(h, at, how, &r)
			}
		}
		if next < 0 {
			r.torn, r.loose, r.looseAt = mine, uint64(r.records-records), h.stored
			return r
		}
		r.holes++
		n, _ := parseBlock(b[next:], d.key)
		if gap := n.before - min(n.before, missed); d.commit > 0 { // in front, nobody can tell from here
			r.lost += gap - min(gap, uint64(kept))
		}
		d.commit = n.commit - 1
		at = next
	}
}

// epochOf returns whose blocks a journal has: those of the header at its start,
// or if that is not to be read, of the newest block that is whole.
func epochOf(b []byte, key uint32) (epoch uint64) {
	if h, ok := parseBlock(b, key); ok && h.commit == 1 && h.whole(b) {
		return h.epoch
	}
	for at := 0; ; at++ {
		at = findBlock(b, key, at, func(n block) bool { return n.epoch > epoch })
		if at < 0 {
			return epoch
		}
		h, _ := parseBlock(b[at:], key)
		epoch = h.epoch
	}
}

// condition is what became of a block.
type condition uint8

const (
	intact  condition = iota
	mangled           // it was whole once: what can be read of it was promised
	cutOff            // the last one, and power went while it was written: nobody was promised anything
)

// salvage takes over the items of a block that carry a right checksum, and
// returns how many sequences that were. Of a block that was cut off it takes none
// behind the first that does not: its producer sends that one again, and would
// find the later ones before it.
func (d *draft) salvage(h block, at int, how condition, r *replayed) (kept int) {
	whole := how == intact
	start := at + h.size
	payload := h.payload(d.buf[at:])
	top, items := d.last, uint64(0)
	for next := 0; next < len(payload); {
		it, end, ok := parseItem(payload, next)
		if !ok {
			break
		}
		next = end
		val := payload[it.from:it.to]
		if it.note {
			d.learn(h, it.id, val, whole, r)
			continue
		}
		seq := h.before + it.seq
		if items++; whole && it.seq <= 1<<32 {
			r.top = max(r.top, seq)
		}
		if it.seq > 1<<32 || seq <= d.last || int(it.id) > len(d.drawn) || !d.drawn[it.id-1].ok {
			if how == cutOff {
				break
			}
			continue
		}
		l := &d.drawn[it.id-1]
		v, ok := parseValue(val, l.name.seed(), seq)
		if !ok || len(l.spots) > 0 && l.spots[len(l.spots)-1].seq >= seq || v.kind == kindReference && d.get(v.lane, seq) == nil {
			if how == cutOff {
				break
			}
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
	if whole && h.size == blockHeader {
		r.stored = max(r.stored, h.stored+items)
	}
	d.last = top
	return kept
}

// learn notes what a block tells of a lane: what its number stands for, and how
// far it is drained.
func (d *draft) learn(h block, id uint16, b []byte, whole bool, r *replayed) {
	kind := byte(itemName)
	switch {
	case h.size == oldBlockHeader && len(b) >= 8:
		b = b[:len(b)-8]
	case h.size == oldBlockHeader || len(b) == 0:
		return
	default:
		kind, b = b[0], b[1:]
	}
	known := int(id) <= len(d.drawn) && d.drawn[id-1].ok
	switch {
	case kind == itemPosition && whole && known:
		if p, ok := parsePosition(b); ok {
			r.positions[d.drawn[id-1].name] = p
		}
	case kind == itemName && !known && int(id) <= len(d.drawn)+4096:
		name, ok := parseLaneName(d.number, id, b)
		if !ok {
			return
		}
		for len(d.drawn) < int(id) {
			d.drawn = append(d.drawn, drawn{})
		}
		d.drawn[id-1].name, d.drawn[id-1].ok = name, true
	}
}

// trim leaves out what was found elsewhere: records up to the sequence floor.
func (d *draft) trim(floor uint64) {
	for i := range d.drawn {
		l := &d.drawn[i]
		l.spots = l.spots[sort.Search(len(l.spots), func(i int) bool { return l.spots[i].seq > floor }):]
	}
}
