package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// model is the queue as one would write it without a disk: a list.
type model struct {
	rng     *rand.Rand
	cfg     Config
	passed  atomic.Int64 // since 1970
	store   *Store
	ended   chan error
	records []*modelRecord
	readers map[string]*modelReader
	next    int
}

// modelRecord is one record in one sink.
type modelRecord struct {
	body     string
	sink     string
	priority uint8
	expires  time.Time // zero: never
	done     bool      // acknowledged or purged
}

// modelReader reads one sink ahead of its acknowledgements.
type modelReader struct {
	at          Cursor
	seen        [Lowest + 1]int // index in model.records behind the last one got
	outstanding []Item
}

func (m *model) open(t *testing.T) {
	t.Helper()
	s, err := Open(m.cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.queue.tail.segmentBytes = minSegment // rotates often
	m.store, m.ended = s, make(chan error, 1)
	m.readers = map[string]*modelReader{}
	go func() { m.ended <- s.Run(context.Background()) }()
}

func (m *model) close(t *testing.T) {
	t.Helper()
	if err := m.store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-m.ended; err != nil {
		t.Fatal(err)
	}
}

func (m *model) reader(sink string) *modelReader {
	if m.readers[sink] == nil {
		m.readers[sink] = &modelReader{}
	}
	return m.readers[sink]
}

func (m *model) append(t *testing.T, sinks []string) {
	t.Helper()
	recs := make([]Record, m.rng.IntN(20)+1)
	for i := range recs {
		body := fmt.Sprintf("%d %s", m.next, strings.Repeat("x", m.rng.IntN(1<<m.rng.IntN(14))))
		m.next++
		recs[i].Body = []byte(body)
		for _, sink := range sinks {
			if m.rng.IntN(3) == 0 {
				continue
			}
			e := Entry{Sink: sink, Priority: []uint8{0, 4, Lowest}[m.rng.IntN(3)]}
			r := &modelRecord{body: body, sink: sink, priority: e.Priority}
			if m.rng.IntN(4) == 0 {
				e.TTL = time.Duration(m.rng.IntN(100)+1) * time.Minute
				r.expires = m.wall().Add(e.TTL)
			}
			recs[i].Entries = append(recs[i].Entries, e)
			m.records = append(m.records, r)
		}
	}
	if err := m.store.Queue().Append(t.Context(), recs...); err != nil {
		t.Fatal(err)
	}
}

// expect returns what Peek must return, and moves the reader as Peek would.
func (m *model) expect(sink string, r *modelReader, most, bytes int) []string {
	var want []string
	size := 0
	for priority := range r.seen {
		for i := r.seen[priority]; i < len(m.records); i++ {
			c := m.records[i]
			if c.sink != sink || int(c.priority) != priority || c.done || !c.expires.IsZero() && !m.wall().Before(c.expires) {
				continue
			}
			if len(want) == most || len(want) > 0 && size+len(c.body) > bytes {
				return want
			}
			want, size = append(want, c.body), size+len(c.body)
			r.seen[priority] = i + 1
		}
		r.seen[priority] = len(m.records)
	}
	return want
}

func (m *model) peek(t *testing.T, sink string) {
	t.Helper()
	r := m.reader(sink)
	if m.rng.IntN(5) == 0 { // the link broke: from the head
		*r = modelReader{}
	}
	most, bytes := m.rng.IntN(40)+1, 1<<(m.rng.IntN(12)+6)
	want := m.expect(sink, r, most, bytes)
	items, at, err := m.store.Queue().Peek(sink, r.at, most, bytes)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, item := range items {
		got = append(got, string(item.Body))
	}
	if !slices.Equal(got, want) {
		t.Fatalf("peek %s, at most %d items and %d bytes\ngot  %.200q\nwant %.200q", sink, most, bytes, got, want)
	}
	r.at, r.outstanding = at, append(r.outstanding, items...)
}

func (m *model) ack(t *testing.T, sink string) {
	t.Helper()
	r := m.reader(sink)
	if m.rng.IntN(2) == 0 {
		m.rng.Shuffle(len(r.outstanding), func(i, j int) {
			r.outstanding[i], r.outstanding[j] = r.outstanding[j], r.outstanding[i]
		})
	}
	n := m.rng.IntN(len(r.outstanding) + 1)
	if err := m.store.Queue().Ack(sink, r.outstanding[:n]...); err != nil {
		t.Fatal(err)
	}
	for _, item := range r.outstanding[:n] {
		m.done(func(c *modelRecord) bool { return c.sink == sink && c.body == string(item.Body) })
	}
	r.outstanding = slices.Delete(r.outstanding, 0, n)
}

func (m *model) done(which func(*modelRecord) bool) (n int) {
	for _, c := range m.records {
		if !c.done && which(c) {
			c.done = true
			n++
		}
	}
	return n
}

// reopen restarts the store. What was acknowledged behind something that was
// not comes again, unless the reader had it.
func (m *model) reopen(t *testing.T) {
	t.Helper()
	m.close(t)
	m.open(t)
	for _, sink := range []string{"a", "b", "c"} {
		again := map[string]bool{}
		at := Cursor{}
		for {
			items, next, err := m.store.Queue().Peek(sink, at, 100, 0)
			if err != nil {
				t.Fatal(err)
			}
			if len(items) == 0 {
				break
			}
			for _, item := range items {
				again[string(item.Body)] = true
			}
			at = next
		}
		for _, c := range m.records {
			if c.sink == sink && c.done && again[c.body] {
				c.done = false // acknowledged out of order, ahead of the cursor
			}
		}
	}
}

// crash opens a copy of the folder as a power cut between two commits would
// leave it: whatever was appended and not acknowledged must be there, in order.
func (m *model) crash(t *testing.T) {
	t.Helper()
	cfg := m.cfg
	cfg.Dir = filepath.Join(t.TempDir(), "crashed")
	q := m.store.queue
	q.keeper.flushing.Lock() // nothing is written between two commits
	q.files.Lock()
	q.tail.journals.mu.Lock()
	copyDir(t, m.cfg.Dir, cfg.Dir)
	q.tail.journals.mu.Unlock()
	q.files.Unlock()
	q.keeper.flushing.Unlock()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if u := s.Usage(); u.DamagedFiles > 0 || u.Recovered {
		t.Fatalf("after a crash: got %+v, want no damage", u)
	}
	for _, sink := range []string{"a", "b", "c"} {
		var got []string
		for at := (Cursor{}); ; {
			items, next, err := s.Queue().Peek(sink, at, 100, 0)
			if err != nil {
				t.Fatal(err)
			}
			if len(items) == 0 {
				break
			}
			for _, item := range items {
				got = append(got, string(item.Body))
			}
			at = next
		}
		r := &modelReader{}
		i := 0
		for _, want := range m.expect(sink, r, 1<<30, 1<<30) {
			for i < len(got) && got[i] != want {
				i++ // acknowledged before, and comes again
			}
			if i == len(got) {
				t.Fatalf("sink %s: %.40q is lost", sink, want)
			}
		}
	}
}

func TestQueueIsLikeAList(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			m := &model{rng: rand.New(rand.NewPCG(seed, 7))}
			m.cfg = Config{Dir: t.TempDir(), MaxBytes: 64 << 20, MinFree: 1, Now: m.wall}
			m.open(t)
			sinks := []string{"a", "b", "c"}
			for step := range 700 {
				sink := sinks[m.rng.IntN(3)]
				switch n := m.rng.IntN(100); {
				case n < 35:
					m.append(t, sinks)
				case n < 65:
					m.peek(t, sink)
				case n < 88:
					m.ack(t, sink)
				case n < 94:
					m.pass(time.Duration(m.rng.IntN(20)) * time.Minute)
				case n < 96:
					m.reopen(t)
				case n < 98 && step%4 == 0:
					m.crash(t)
				case n < 99 && step%3 == 0:
					if _, err := m.store.Queue().Purge(t.Context(), sink); err != nil {
						t.Fatal(err)
					}
					m.done(func(c *modelRecord) bool { return c.sink == sink })
					m.reader(sink).outstanding = nil
				}
			}
			m.drain(t, sinks)
			m.close(t)
		})
	}
}

// pass lets time go by. The wall clock does not know that a store was closed, so
// it moves only here.
func (m *model) pass(d time.Duration) { m.passed.Add(int64(d)) }

func (m *model) wall() time.Time { return time.Unix(0, m.passed.Load()).UTC() }

// drain empties everything: the disk must come back.
func (m *model) drain(t *testing.T, sinks []string) {
	t.Helper()
	for _, sink := range sinks {
		*m.reader(sink) = modelReader{}
		for {
			before := len(m.reader(sink).outstanding)
			r := m.reader(sink)
			items, at, err := m.store.Queue().Peek(sink, r.at, 64, 0)
			if err != nil {
				t.Fatal(err)
			}
			if len(items) == 0 && before == 0 {
				break
			}
			r.at = at
			if err := m.store.Queue().Ack(sink, items...); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := m.store.queue.flush(); err != nil {
		t.Fatal(err)
	}
	for _, lane := range m.store.Queue().Stats() {
		if lane.Messages != 0 || lane.Bytes != 0 {
			t.Errorf("drained, and got %+v", lane)
		}
	}
	if u := m.store.Usage(); u.Segments > 1 || u.Pending != 0 || u.Held > maxJournals*minSegment || u.DamagedRecords > 0 {
		t.Errorf("drained, and got %+v", u)
	}
}
