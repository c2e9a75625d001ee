package store

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The power-cut model. The folder is copied before and after each step, which
// is one transaction and ends with a flush. What differs are the pages that the step wrote, and bbolt's
// order is known: pages, flush, meta page, flush. A cut leaves the state before,
// plus any part of the pages, torn by sectors; or all pages, plus the meta page
// or not. New and removed files are there or not, behind the flushes that come
// before them. A disk that lies about flushes is another matter: see the table of
// damages.

// cut returns what may be on disk when the power goes during the step that led
// from before to after.
func cut(rng *rand.Rand, before, after image) image {
	now := maps.Clone(before)
	names := slices.Sorted(maps.Keys(after)) // seg/… comes before state.db
	for _, name := range names {
		old, existed := before[name]
		switch {
		case bytes.Equal(old, after[name]) && existed:
			continue
		case !existed: // whole before it got its name
			if rng.IntN(2) == 0 {
				return now
			}
			now[name] = after[name]
		default:
			file, whole := cutFile(rng, old, after[name])
			if now[name] = file; !whole {
				return now
			}
		}
	}
	for name := range before { // unlinked last, in any order
		if _, there := after[name]; !there && rng.IntN(2) == 0 {
			delete(now, name)
		}
	}
	return now
}

// cutFile cuts one transaction of one file; whole says that it is all there.
func cutFile(rng *rand.Rand, old, now []byte) (file []byte, whole bool) {
	const sector = 512
	size := max(len(old), len(now))
	old = append(bytes.Clone(old), make([]byte, size-len(old))...)
	file = bytes.Clone(old)
	padded := append(bytes.Clone(now), make([]byte, size-len(now))...)
	data, metas := false, false
	for at := 0; at < size; at += sector {
		if !bytes.Equal(old[at:at+sector], padded[at:at+sector]) {
			data, metas = data || at >= 2*pageSize, metas || at < 2*pageSize
		}
	}
	stage := rng.IntN(3) // pages are torn, pages are there, the meta page too
	if stage > 0 {
		copy(file[2*pageSize:], padded[2*pageSize:])
	} else if data {
		for page := 2 * pageSize; page < size; page += pageSize {
			fate := rng.IntN(3)
			for at := page; at < page+pageSize; at += sector {
				if fate == 1 || fate == 2 && rng.IntN(2) == 0 {
					copy(file[at:at+sector], padded[at:at+sector])
				}
			}
		}
	}
	if stage == 2 {
		copy(file, padded[:2*pageSize])
	}
	// The size goes to disk with the flush, or on its own before.
	if stage > 0 || rng.IntN(2) == 0 {
		file = file[:len(now)]
	}
	return file, stage == 2 || !metas && stage > 0
}

// scene is a store under the power-cut model, and what it promised.
type scene struct {
	rng    *rand.Rand
	store  *Store
	stored map[string][]string // sink → bodies, in order
	acked  map[string]bool     // sink + body, on disk
	doc    string
	next   int
}

func (c *scene) step(t *testing.T) (what string) {
	t.Helper()
	q := c.store.Queue()
	switch n := c.rng.IntN(20); {
	case n < 10:
		recs := make([]Record, 1+c.rng.IntN(1<<c.rng.IntN(6)))
		for i := range recs {
			body := fmt.Sprintf("%d %s", c.next, strings.Repeat("x", c.rng.IntN(1<<c.rng.IntN(13))))
			c.next++
			recs[i] = Record{Body: []byte(body), Entries: []Entry{{Sink: "x", Priority: 4}, {Sink: "y"}}}
		}
		// What the committer does, in one transaction: the model knows the order of
		// writes inside one.
		for _, rec := range recs {
			if err := q.inbox.add(t.Context(), q.clock, q.ledger, rec, func(err error) {
				if err != nil {
					t.Errorf("append: %v", err)
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
		b := q.inbox.take()
		q.commit(b)
		q.inbox.giveBack(b)
		for _, rec := range recs {
			c.stored["x"] = append(c.stored["x"], string(rec.Body))
			c.stored["y"] = append(c.stored["y"], string(rec.Body))
		}
		return "append"
	case n < 13:
		c.doc = fmt.Sprint("doc ", c.next, strings.Repeat("d", c.rng.IntN(9000)))
		if err := c.store.Docs().Put(t.Context(), "doc", []byte(c.doc)); err != nil {
			t.Fatal(err)
		}
		return "put"
	case n < 18:
		for _, sink := range []string{"x", "y"} {
			items, _, err := q.Peek(sink, Cursor{}, 1+c.rng.IntN(80), 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := q.Ack(sink, items...); err != nil {
				t.Fatal(err)
			}
			for _, item := range items {
				c.acked[sink+string(item.Body)] = true
			}
		}
		if err := q.flush(); err != nil {
			t.Fatal(err)
		}
		return "acknowledge"
	default:
		q.tail.finish()
		q.tail.mu.Lock()
		defer q.tail.mu.Unlock()
		if err := q.tail.beginLocked(uint64(c.next)+1, 0); err != nil {
			t.Fatal(err)
		}
		return "new segment"
	}
}

// check opens what a power cut left. Promised is what was before the step.
func (c *scene) check(t *testing.T, dir string, promised scene) {
	t.Helper()
	s, err := Open(crashConfig(dir))
	if err != nil {
		t.Errorf("the store does not open: %v", err)
		return
	}
	defer s.Close()
	doc, err := s.Docs().Get("doc")
	if err != nil || string(doc) != promised.doc && string(doc) != c.doc {
		t.Errorf("document: got %.20q, %v, want %.20q or %.20q", doc, err, promised.doc, c.doc)
	}
	for sink, want := range promised.stored {
		got := all(t, s, sink)
		i := 0
		for _, body := range want {
			if promised.acked[sink+body] || c.acked[sink+body] {
				continue
			}
			for i < len(got) && string(got[i].Body) != body {
				i++
			}
			if i == len(got) {
				t.Errorf("%s: %.20q is lost or out of order", sink, body)
				return
			}
		}
	}
	if u := s.Usage(); u.DamagedFiles+u.DamagedRecords+u.DamagedDocuments > 0 || u.Recovered {
		t.Errorf("got %+v, want no damage from a power cut", u)
	}
}

// Field reports Azure/iotedge#2959 and containerd/containerd#9929: a power cut
// at any write loses nothing, and the store opens.
func TestAPowerCutAtAnyWriteLosesNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			const steps, cuts = 60, 4
			dir := t.TempDir()
			s, err := Open(crashConfig(filepath.Join(dir, "live")))
			if err != nil {
				t.Fatal(err)
			}
			s.queue.tail.segmentBytes = minSegment
			c := &scene{
				rng: rand.New(rand.NewPCG(seed, 9)), store: s,
				stored: map[string][]string{}, acked: map[string]bool{},
			}
			before := takeImage(t, s.dir.path)
			for n := range steps {
				promised := *c
				promised.stored, promised.acked = maps.Clone(c.stored), maps.Clone(c.acked)
				what := c.step(t)
				after := takeImage(t, s.dir.path)
				for k := range cuts {
					place := filepath.Join(dir, fmt.Sprint(n, "-", k))
					cut(c.rng, before, after).write(t, place)
					c.check(t, place, promised)
					if t.Failed() {
						t.Fatalf("step %d, %s, cut %d", n, what, k)
					}
				}
				before = after
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
