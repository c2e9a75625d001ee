package store

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// powerCuts is the environment's say in how many states are tried: of a disk
// that keeps its word, and a fifth as many of one that lies. "make soak
// SOAK=powercut" sets it.
const powerCuts = "SANDPIPER_STORE_POWERCUTS"

// scene is a store under the recorder, and what it promised at which moment: a
// moment is a number of operations.
type scene struct {
	rng   *rand.Rand
	dir   string
	store *Store
	rec   *recorder
	sent  []*sent
	docs  []version

	thinned int // segments that were written anew
}

// sent is one message to the sinks x and y, and some to z.
type sent struct {
	body   string
	z      bool
	stored int            // when its producer was told
	acked  map[string]int // by sink: when it was acknowledged
}

// version is one value of the document.
type version struct {
	value       string
	begun, done int
}

func newScene(t *testing.T, seed uint64) *scene {
	t.Helper()
	c := &scene{rng: rand.New(rand.NewPCG(seed, 9)), dir: filepath.Join(t.TempDir(), "live")}
	s, err := Open(crashConfig(c.dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c.rec = newRecorder(t, c.dir)
	c.open(t)
	return c
}

func (c *scene) open(t *testing.T) {
	t.Helper()
	s, err := open(crashConfig(c.dir), c.rec)
	if err != nil {
		t.Fatal(err)
	}
	s.queue.tail.segmentBytes = minSegment
	c.store = s
	c.rec.moved, c.rec.seen = s.io.commits.Load, 0
	c.rec.look()
	c.rec.meant = func(path string) { // somebody publishes while a segment is being sealed
		d := s.queue.tail.draft
		if strings.Contains(path, "/seg") && d != nil && d.at < len(d.buf)/2 && c.rng.IntN(3) == 0 {
			meant := c.rec.meant
			c.rec.meant = nil
			c.append(t, 1+c.rng.IntN(3), 500)
			c.rec.meant = meant
		}
	}
}

// append commits records as the committer does.
func (c *scene) append(t *testing.T, n, size int) {
	t.Helper()
	q := c.store.Queue()
	first := len(c.sent)
	for range n {
		body := fmt.Sprintf("%06d %s", len(c.sent), strings.Repeat("x", c.rng.IntN(size)))
		rec := Record{Body: []byte(body), Entries: []Entry{{Sink: "x", Priority: 4}, {Sink: "y"}}}
		m := &sent{body: body, acked: map[string]int{}}
		if c.rng.IntN(8) == 0 {
			rec.Entries, m.z = append(rec.Entries, Entry{Sink: "z", Priority: 1}), true
		}
		c.sent = append(c.sent, m)
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
	for _, m := range c.sent[first:] {
		m.stored = len(c.rec.ops)
	}
}

func (c *scene) step(t *testing.T) {
	t.Helper()
	q := c.store.Queue()
	switch n := c.rng.IntN(40); {
	case n < 22:
		c.append(t, 1+c.rng.IntN(1<<c.rng.IntN(6)), 1<<c.rng.IntN(13))
	case n < 26:
		v := version{value: fmt.Sprint("doc ", len(c.docs), strings.Repeat("d", c.rng.IntN(9000))), begun: len(c.rec.ops)}
		if err := c.store.Docs().Put(t.Context(), "doc", []byte(v.value)); err != nil {
			t.Fatal(err)
		}
		c.rec.look()
		v.done = len(c.rec.ops)
		c.docs = append(c.docs, v)
	case n < 34:
		c.acknowledge(t)
	case n < 38:
		if err := q.tail.finish(); err != nil {
			t.Fatal(err)
		}
		if _, err := q.sealOldest(); err != nil {
			t.Fatal(err)
		}
		thinned, err := q.thin()
		if err != nil {
			t.Fatal(err)
		}
		if thinned {
			c.thinned++
		}
	default:
		if err := c.store.Close(); err != nil {
			t.Fatal(err)
		}
		c.rec.look()
		c.open(t)
	}
	c.rec.look()
}

func (c *scene) acknowledge(t *testing.T) {
	t.Helper()
	q := c.store.Queue()
	for _, sink := range []string{"x", "y", "z"} {
		if sink == "z" && c.rng.IntN(6) > 0 {
			continue // a lane that nearly stands still
		}
		items, _, err := q.Peek(sink, Cursor{}, 1+c.rng.IntN(120), 0)
		if err != nil {
			t.Fatal(err)
		}
		if c.rng.IntN(3) == 0 { // some, in any order
			c.rng.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
			items = items[:c.rng.IntN(len(items)+1)]
		}
		for _, item := range items {
			n, err := strconv.Atoi(string(item.Body[:6]))
			if err != nil {
				t.Fatal(err)
			}
			c.sent[n].acked[sink] = max(1, len(c.rec.ops))
		}
		if err := q.Ack(sink, items...); err != nil {
			t.Fatal(err)
		}
	}
	keep := []func() error{q.flush, q.note, func() error { return nil }}[c.rng.IntN(3)]
	if err := keep(); err != nil {
		t.Fatal(err)
	}
}

// promised says whether a sink must still get a message after a cut in front of
// operation at.
func (m *sent) promised(sink string, at int) bool {
	return (sink != "z" || m.z) && m.stored > 0 && m.stored <= at && (m.acked[sink] == 0 || at <= m.acked[sink])
}

// outcome is what one state came to.
type outcome struct {
	lost    int  // messages that were promised and are gone
	owed    int  // of them, promised when the newest thing was written that the state tells of
	damaged bool // files or records, and said so
}

// check opens what a cut in front of operation at left, and empties it. told is
// the moment up to which the state tells of anything.
func (c *scene) check(t *testing.T, dir string, at, told int, honest bool) (o outcome) {
	t.Helper()
	hung := time.AfterFunc(time.Minute, func() { panic("a store that a power cut left hangs: " + dir) })
	defer hung.Stop()
	s, err := Open(crashConfig(dir))
	if err != nil {
		t.Errorf("the store does not open: %v", err)
		return o
	}
	c.checkDoc(t, s, at, honest)
	for _, sink := range []string{"x", "y", "z"} {
		got, last := map[int]bool{}, -1
		for _, body := range drain(t, s, sink) {
			n, err := strconv.Atoi(body[:min(6, len(body))])
			if err != nil || n >= len(c.sent) || c.sent[n].body != body {
				t.Errorf("%s: got %.30q, which nobody sent", sink, body)
				continue
			}
			if n <= last {
				t.Errorf("%s: message %d came behind %d", sink, n, last)
			}
			got[n], last = true, n
		}
		for n, m := range c.sent {
			if m.promised(sink, at) && !got[n] {
				o.lost++
				if m.promised(sink, told) {
					o.owed++
				}
			}
		}
	}
	u := s.Usage()
	files := u.DamagedFiles > 0 || u.Recovered
	o.damaged = files || u.DamagedRecords > 0
	if honest && (o.lost > 0 || o.damaged || u.DamagedDocuments > 0) {
		t.Errorf("got %d messages lost and %+v, want nothing from a power cut", o.lost, u)
	}
	if uint64(o.owed) > u.DamagedRecords && !files { // of a damaged file nobody may know what there was
		t.Errorf("got %d messages lost, and of what the disk still tells %d, but %d counted", o.lost, o.owed, u.DamagedRecords)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	return o
}

func (c *scene) checkDoc(t *testing.T, s *Store, at int, honest bool) {
	t.Helper()
	got, err := s.Docs().Get("doc")
	if err != nil {
		t.Errorf("document: %v", err)
	}
	ok := got == nil
	for _, v := range c.docs {
		if v.done <= at {
			ok = string(got) == v.value || !honest && ok
		} else if v.begun < at {
			ok = ok || string(got) == v.value
		}
		ok = ok || !honest && string(got) == v.value
	}
	if !ok {
		t.Errorf("document: got %.20q, which it was not", got)
	}
}

// cuts plays scenes and opens states of them until n were tried.
func cuts(t *testing.T, n int, honest bool) {
	t.Helper()
	const steps, perScene = 60, 120
	var lost, damaged, older, thinned int
	tried := n
	for seed := uint64(0); n > 0 && !t.Failed(); seed++ {
		c := newScene(t, seed)
		for range steps {
			c.step(t)
		}
		if err := c.store.Close(); err != nil {
			t.Fatal(err)
		}
		ends := len(c.rec.ops)
		thinned += c.thinned
		place := filepath.Join(fastDir(t), "state")
		for range min(n, perScene) {
			at := c.rng.IntN(ends + 1)
			m := []cutModel{{}, {reorder: true}, {reorder: true, torn: true}}[c.rng.IntN(3)]
			if !honest {
				m = cutModel{reorder: true, torn: c.rng.IntN(2) == 0, lies: 1 + c.rng.IntN(1<<c.rng.IntN(6))}
			}
			img, told := c.rec.left(c.rng, at, m)
			img.write(t, place)
			o := c.check(t, place, at, told, honest)
			if t.Failed() {
				t.Fatalf("seed %d, operation %d of %d, %+v", seed, at, ends, m)
			}
			lost += o.lost
			if o.damaged {
				damaged++
			}
			if o.lost > o.owed {
				older++
			}
			if err := os.RemoveAll(place); err != nil {
				t.Fatal(err)
			}
			n--
		}
	}
	t.Logf("%d states: %d messages lost; damage counted in %d states; in %d the newest are gone with all that told of them",
		tried, lost, damaged, older)
	if thinned == 0 {
		t.Error("no segment was written anew: the test says less than it should")
	}
	if !honest && damaged == 0 {
		t.Error("no state had any damage: the test says nothing")
	}
}

// fastDir is a folder in memory, if there is one: the disk is modelled.
func fastDir(t *testing.T) string {
	t.Helper()
	if dir, err := os.MkdirTemp("/dev/shm", "sandpiper-store-"); err == nil { //nolint:usetesting // in memory, where t.TempDir is not
		t.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	return t.TempDir()
}

func states(t *testing.T, usual int) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(powerCuts), "0"))
	if err != nil {
		t.Fatalf("%s: %v", powerCuts, err)
	}
	return cmp.Or(n, usual)
}

// Field reports Azure/iotedge#2959 and containerd/containerd#9929: a power cut
// at any write loses nothing, and the store opens.
func TestAPowerCutAtAnyWriteLosesNothing(t *testing.T) {
	t.Parallel()
	cuts(t, states(t, 240), true)
}

// A disk that ignores flushes costs messages, which are counted unless they are
// the newest and nothing tells that they ever were; never the agent.
func TestAPowerCutOfALyingDiskCostsMessagesOnly(t *testing.T) {
	t.Parallel()
	cuts(t, states(t, 5*60)/5, false)
}

// The model itself: what was flushed is there, in every model that does not lie.
func TestTheRecorderKeepsWhatWasFlushed(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, t.TempDir())
	path := filepath.Join(r.dir, "f")
	f, err := r.open(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []func() error{
		func() error { _, err := f.WriteAt([]byte("old"), 0); return err }, f.flush,
		func() error { return r.rename(path, path+"2") }, func() error { return r.syncDir(r.dir) },
		func() error { _, err := f.WriteAt([]byte("new"), 0); return err }, f.Close,
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	var seen []string
	for range 50 {
		img, _ := r.left(rng, len(r.ops), cutModel{reorder: true, torn: true})
		seen = append(seen, string(img["f2"]))
	}
	slices.Sort(seen)
	if got := slices.Compact(seen); !slices.Equal(got, []string{"new", "old"}) {
		t.Errorf("got %q, want the flushed or the written", got)
	}
	if got, _ := r.left(rng, len(r.ops), cutModel{reorder: true, lies: 2}); len(got["f2"]) > 3 {
		t.Errorf("got %q", got["f2"])
	}
}
