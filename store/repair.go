package store

import (
	"fmt"
	"slices"
)

// repair makes a segment good that a reader found damaged: it is read page by
// page, what still carries its checksum is written anew in its place, and the
// damaged file is put aside. The rest is counted as lost, and the lanes move on.
// generation is what the reader saw: if somebody repaired
// it meanwhile there is nothing to do.
func (q *Queue) repair(seg *segment, generation int, cause error) error {
	q.files.Lock()
	defer q.files.Unlock()
	select {
	case <-q.closed:
		return ErrClosed
	default:
	}
	if !q.ledger.stands(seg, generation) {
		return nil
	}
	q.shelf.drop(seg.number)
	known, cursors := q.ledger.picture(seg)
	path, name := seg.where().path, q.dir.segment(seg.number)
	sum, size, err := salvage(path, name+newSuffix, seg.number, known,
		func(name laneName) uint64 { return cursors[name] })
	if err != nil {
		return fmt.Errorf("salvage damaged segment: %w", err)
	}
	bad, err := putAside(path, name, sum)
	if err != nil {
		return err
	}
	lost := q.ledger.replace(seg, &place{path: name}, sum, size)
	q.io.damaged.Add(1)
	q.keeper.tell(true, true)
	q.log.Error("segment is damaged: what could be read goes on, the file was put aside",
		"file", bad, "lost", lost, "err", cause)
	return nil
}

// putAside replaces a damaged segment by what salvage made of it.
func putAside(path, name string, sum summary) (bad string, err error) {
	replacement := name + newSuffix
	if len(sum.Lanes) == 0 {
		replacement = ""
	}
	if bad, err = quarantine(path, replacement, name); err != nil {
		return bad, readOnly(fmt.Errorf("put damaged segment aside: %w", err))
	}
	return bad, nil
}

// stands says whether a segment is as a reader saw it and still needed.
func (g *ledger) stands(seg *segment, generation int) bool {
	defer g.locked()()
	return seg.generation == generation && seg.live > 0 && seg.where().draft == nil
}

// picture returns what is known of a segment and how far its lanes are drained,
// and remembers that for [ledger.replace].
func (g *ledger) picture(seg *segment) (summary, map[laneName]uint64) {
	defer g.locked()()
	cursors := map[laneName]uint64{}
	for _, s := range g.sinks {
		for i := range s.lanes {
			l := &s.lanes[i]
			cursors[laneName{sink: s.name, priority: l.priority}] = l.cursor
			for j := range l.parts {
				if p := &l.parts[j]; p.seg == seg {
					p.pictured, p.picturedBytes = p.done, p.doneBytes
				}
			}
		}
	}
	return *g.summaryLocked(seg), cursors
}

// cursor returns how far a lane is drained.
func (g *ledger) cursor(name laneName) uint64 {
	defer g.locked()()
	if s, ok := g.sinks[name.sink]; ok {
		return s.lanes[name.priority].cursor
	}
	return 0
}

// replace gives a segment its new place and content, which is what of it was
// above each lane's cursor in the picture, and returns how many records, once for each sink,
// are lost.
func (g *ledger) replace(seg *segment, at *place, sum summary, size int64) (lost int64) {
	defer g.locked()()
	seg.place.Store(at)
	seg.generation++
	g.held += size - seg.size
	seg.size = size
	for _, s := range g.sinks {
		for i := range s.lanes {
			l := &s.lanes[i]
			j := slices.IndexFunc(l.parts, func(p part) bool { return p.seg == seg })
			if j < 0 {
				continue
			}
			var left laneSummary
			if k := slices.IndexFunc(sum.Lanes, func(ls laneSummary) bool {
				return ls.Sink == s.name && ls.Priority == l.priority
			}); k >= 0 {
				left = sum.Lanes[k]
			}
			n := l.shrink(j, left)
			lost += n
			g.lostLocked(l, n)
			if left.Count == 0 {
				l.parts = slices.Delete(l.parts, j, j+1)
				g.leftLocked(seg)
			}
			g.movedLocked(l, 0)
			s.wake()
		}
	}
	if seg.live > 0 {
		g.news[seg] = g.summaryLocked(seg)
	}
	return lost
}

// shrink sets what is left of the j-th part, counted from where the lane was
// when the picture was taken, and returns how many records are gone.
func (l *lane) shrink(j int, left laneSummary) (lost int64) {
	p := &l.parts[j]
	count, bytes := p.Count-p.pictured, p.Bytes-p.picturedBytes
	l.messages += left.Count - count
	l.bytes += left.Bytes - bytes
	p.laneSummary, p.done, p.doneBytes = left, p.done-p.pictured, p.doneBytes-p.picturedBytes
	return max(0, count-left.Count)
}
