package store

import "time"

const (
	// noteLanes and noteBytes bound what one block tells of lanes beside its
	// records: a commit is not to grow by a page for it. The rest waits for the
	// next one.
	noteLanes = 32
	noteBytes = 2 << 10
)

// note is a lane's position on its way into a block.
type note struct {
	lane     *lane
	position []byte
}

func (g *ledger) unnotedLocked(l *lane) {
	if l.unnoted {
		return
	}
	if len(g.unnoted) == 0 {
		g.since = time.Now()
	}
	l.unnoted = true
	g.unnoted = append(g.unnoted, l)
}

// notes appends the positions that are not on disk to dst, as many as a block
// takes. They count as noted, unless they are put back.
func (g *ledger) notes(dst []note) ([]note, error) {
	defer g.locked()()
	bytes := 0
	for len(g.unnoted) > 0 && len(dst) < noteLanes && bytes < noteBytes {
		l := g.unnoted[0]
		b, err := l.position().encode()
		if err != nil {
			return dst, err
		}
		bytes += len(b)
		dst = append(dst, note{lane: l, position: b})
		l.unnoted = false
		g.unnoted = g.unnoted[1:]
	}
	if len(g.unnoted) == 0 {
		g.unnoted, g.settled = nil, 0
	}
	return dst, nil
}

// unnote puts back what could not be written.
func (g *ledger) unnote(notes []note) {
	defer g.locked()()
	for _, n := range notes {
		g.unnotedLocked(n.lane)
	}
}

// waiting says since when positions wait to be noted; ok is false if none do.
func (g *ledger) waiting() (since time.Time, ok bool) {
	defer g.locked()()
	return g.since, len(g.unnoted) > 0
}

// note makes positions durable, in the journal if that will do: one small write
// and one flush.
func (q *Queue) note() error {
	if !q.ledger.settles() && q.tail.note() {
		return nil
	}
	return q.flush()
}

// settles says whether there is something that only state.db can take.
func (g *ledger) settles() bool {
	defer g.locked()()
	return len(g.drained)+len(g.news)+len(g.released) > 0
}

// note writes a block that has positions and no records, and says whether none
// are left. After an error the journal takes no more.
func (t *tail) note() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seg == nil {
		return false
	}
	for {
		var err error
		t.notes, err = t.ledger.notes(t.notes[:0])
		if len(t.notes) == 0 || err != nil {
			return err == nil
		}
		g := group{notes: t.notes}
		if t.draft.at+t.draft.need(g, t.ids) > len(t.draft.buf) || len(t.ids)+len(t.notes) > maxLane {
			t.ledger.unnote(t.notes)
			return false
		}
		if err := t.writeLocked(g); err != nil {
			return false
		}
	}
}
