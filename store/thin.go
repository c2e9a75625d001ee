package store

import "fmt"

// thinShare says when a segment is written anew: when of its file less than this
// part is still wanted.
const thinShare = 4

// thin writes the segment anew of which most is drained and that some lane still
// keeps, without what is drained, and says whether there was one. So a lane that
// stands still keeps what it has and not what lay beside it.
func (q *Queue) thin() (bool, error) {
	q.files.Lock()
	seg, wanted := q.ledger.thinnest()
	var old string
	var err error
	if seg != nil {
		old, err = q.rewrite(seg, wanted)
	}
	q.files.Unlock()
	if seg == nil || err != nil || old == "" {
		return false, err
	}
	// Until state.db knows how far the lanes were then, the old file is the one.
	if err := q.flush(); err != nil {
		return false, err
	}
	if err := q.medium.remove(old); err != nil {
		return false, readOnly(fmt.Errorf("remove segment that was written anew: %w", err))
	}
	return true, readOnly(q.medium.syncDir(q.dir.folder()))
}

// rewrite makes a smaller file of a segment and returns the path of the larger
// one, or "" if there is nothing to gain. q.files is held.
func (q *Queue) rewrite(seg *segment, wanted int64) (old string, err error) {
	_, cursors := q.ledger.picture(seg)
	cursor := func(name laneName) uint64 { return cursors[name] }
	old = seg.where().path
	var sum summary
	var path string
	var size int64
	err = q.shelf.view(seg, func(r *reader) error {
		f, ok := r.content.(*filed)
		if !ok {
			return nil
		}
		if sum, _, err = r.summarise(cursor); err != nil || len(sum.Lanes) == 0 {
			return err
		}
		path, size, err = q.file(f, header{number: f.number, base: f.base}, int(wanted), cursor)
		return err
	})
	switch {
	case isDamage(err): // whoever reads the lane meets it and has it repaired
		q.ledger.leave(seg)
		return "", nil
	case err != nil:
		return "", fmt.Errorf("write segment %d anew: %w", seg.number, err)
	case path == "" || path == old:
		return "", nil
	}
	q.ledger.replace(seg, &place{path: path}, sum, size)
	q.shelf.drop(seg.number)
	return old, nil
}

// thinnest returns the oldest segment of whose file only a small part is wanted,
// and about how many bytes that is.
func (g *ledger) thinnest() (seg *segment, wanted int64) {
	defer g.locked()()
	live := map[*segment]int64{}
	for _, s := range g.sinks {
		for i := range s.lanes {
			for j := range s.lanes[i].parts {
				p := &s.lanes[i].parts[j]
				live[p.seg] += p.Bytes - p.doneBytes + (p.Count-p.done)*32
			}
		}
	}
	for _, seg := range g.segments {
		if seg.closed && seg.live > 0 && !seg.left && seg.where().draft == nil &&
			live[seg] < seg.size/thinShare && seg.size > 8*pageSize {
			return seg, live[seg]
		}
	}
	return nil, 0
}

// leave notes that a segment is not to be written anew.
func (g *ledger) leave(seg *segment) {
	defer g.locked()()
	seg.left = true
}
