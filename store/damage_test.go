package store

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const damageRecords, damageAcked, damageDocs = 1500, 100, 20

// damageBody is long enough to be found in a file.
func damageBody(i int) string {
	return fmt.Sprintf("<message %05d>%s", i, strings.Repeat("m", i%13*40))
}

// start runs a store with small segments until stop is called.
func start(tb testing.TB, cfg Config) (s *Store, stop func()) {
	tb.Helper()
	s, err := Open(cfg)
	if err != nil {
		tb.Fatalf("open store: %v", err)
	}
	s.queue.tail.segmentBytes = minSegment
	ended := make(chan error, 1)
	go func() { ended <- s.Run(context.Background()) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		if err := s.Close(); err != nil {
			tb.Errorf("close store: %v", err)
		}
		if err := <-ended; err != nil {
			tb.Errorf("run store: %v", err)
		}
	}
	tb.Cleanup(stop)
	return s, stop
}

// whole makes the image of a store in good order: several segments, two sinks,
// one of them partly drained, and documents.
func whole(t *testing.T) image {
	t.Helper()
	dir := t.TempDir()
	s, stop := start(t, crashConfig(dir))
	for i := 0; i < damageRecords; i += 5 {
		var recs []Record
		for j := i; j < i+5; j++ {
			recs = append(recs, Record{Body: []byte(damageBody(j)), Entries: []Entry{{Sink: "x", Priority: 2}, {Sink: "y"}}})
		}
		if err := s.Queue().Append(t.Context(), recs...); err != nil {
			t.Fatal(err)
		}
	}
	items, _, err := s.Queue().Peek("x", Cursor{}, damageAcked, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Queue().Ack("x", items...); err != nil {
		t.Fatal(err)
	}
	for i := range damageDocs {
		if err := s.Docs().Put(t.Context(), fmt.Sprint("doc/", i), bytes.Repeat([]byte("<document>"), i*i)); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	m := takeImage(t, dir)
	if n := len(m.segments()); n < 4 {
		t.Fatalf("got %d segments, want several", n)
	}
	return m
}

func (m image) segments() []string {
	var names []string
	for name := range m {
		if strings.HasPrefix(name, "seg/") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// hurt changes the file at name; it must be there.
func (m image) hurt(t *testing.T, name string, change func([]byte) []byte) {
	t.Helper()
	if m[name] == nil {
		t.Fatalf("no file %s", name)
	}
	m[name] = change(bytes.Clone(m[name]))
}

// leaf returns the n-th leaf page of records in a file.
func leaf(b []byte, n int) page {
	for at := 2 * pageSize; at < len(b); at += pageSize {
		p := page(b[at : at+pageSize])
		if p.id() == uint64(at/pageSize) && p.flags() == flagLeaf && p.count() > 5 {
			if n--; n < 0 {
				return p
			}
		}
	}
	panic("no such leaf")
}

func branch(b []byte) page {
	for at := 2 * pageSize; at < len(b); at += pageSize {
		if p := page(b[at : at+pageSize]); p.flags() == flagBranch && p.id() == uint64(at/pageSize) {
			return p
		}
	}
	panic("no branch")
}

// newestMeta returns the meta page of the last transaction.
func newestMeta(b []byte) []byte {
	m0, ok0 := parseMeta(b[headerSize : headerSize+metaSize])
	m1, ok1 := parseMeta(b[pageSize+headerSize : pageSize+headerSize+metaSize])
	if ok1 && (!ok0 || m1.txid > m0.txid) {
		return b[pageSize : 2*pageSize]
	}
	return b[:pageSize]
}

type damageCase struct {
	harm func(t *testing.T, m image)
	// lost is how many records, once for each sink, may be gone.
	lost int
	// again says that what was acknowledged may come once more.
	again bool
	// docs says that documents may be gone.
	docs bool
	// unseen says that without the catalog nobody can know of the loss.
	unseen bool
}

func damageCases() map[string]damageCase {
	rubbish := func(b []byte) []byte {
		rng := rand.New(rand.NewPCG(5, 5))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	segment := func(i int, change func([]byte) []byte) func(*testing.T, image) {
		return func(t *testing.T, m image) {
			t.Helper()
			names := m.segments()
			m.hurt(t, names[(i+len(names))%len(names)], change)
		}
	}
	state := func(change func([]byte) []byte) func(*testing.T, image) {
		return func(t *testing.T, m image) { t.Helper(); m.hurt(t, "state.db", change) }
	}
	inSegment := 2 * 900 // about what a segment holds, in both sinks
	return map[string]damageCase{
		"nothing is lost without damage": {harm: func(*testing.T, image) {}},
		"a bit flips in a body": {
			harm: segment(0, func(b []byte) []byte {
				b[bytes.LastIndex(b, []byte("<message 00150>"))+5] ^= 4
				return b
			}), lost: 2,
		},
		"a bit flips in every copy of a body": {
			harm: segment(1, func(b []byte) []byte {
				i := len(b)/2 + bytes.Index(b[len(b)/2:], []byte("<message "))
				return bytes.ReplaceAll(b, bytes.Clone(b[i:i+15]), []byte("###############"))
			}), lost: 2,
		},
		"a leaf page is zeroed": {
			harm: segment(1, func(b []byte) []byte { clear(leaf(b, 4)); return b }), lost: 60,
		},
		"a branch page is zeroed": {
			harm: segment(1, func(b []byte) []byte { clear(branch(b)); return b }), lost: 0,
		},
		"a page is that of an older time": {
			harm: segment(0, func(b []byte) []byte {
				p := leaf(b, 12)
				id := bytes.Clone(p[:8])
				copy(p, leaf(b, 2))
				copy(p, id)
				return b
			}), lost: 60,
		},
		"a sector of rubbish": {
			harm: segment(-1, func(b []byte) []byte { rubbish(leaf(b, 7)[1024:1536]); return b }), lost: 60,
		},
		"the last meta page is rubbish": {
			harm: segment(-1, func(b []byte) []byte { rubbish(newestMeta(b)); return b }), lost: 0,
		},
		"both meta pages are rubbish": {
			harm: segment(1, func(b []byte) []byte { rubbish(b[:2*pageSize]); return b }), lost: 0,
		},
		"the tail is torn": {
			harm: segment(-1, func(b []byte) []byte { return b[:len(b)-3000] }), lost: 60,
		},
		"half a segment is gone": {
			harm: segment(1, func(b []byte) []byte { return b[:len(b)/2/pageSize*pageSize] }), lost: inSegment,
		},
		"a segment is empty": {
			harm: segment(1, func([]byte) []byte { return []byte{} }), lost: inSegment,
		},
		"a segment has a few bytes": {
			harm: segment(0, func(b []byte) []byte { return b[:3000] }), lost: inSegment,
		},
		"a segment is rubbish": {
			harm: segment(2, rubbish), lost: inSegment,
		},
		"every segment is rubbish": {
			harm: func(t *testing.T, m image) {
				t.Helper()
				for _, name := range m.segments() {
					m.hurt(t, name, rubbish)
				}
			}, lost: 2 * damageRecords,
		},
		"a segment is missing": {
			harm: func(t *testing.T, m image) { t.Helper(); delete(m, m.segments()[1]) }, lost: inSegment, unseen: true,
		},
		"a segment has another's place": {
			harm: func(t *testing.T, m image) { t.Helper(); m[m.segments()[0]] = m[m.segments()[1]] }, lost: inSegment,
		},
		"the names of lanes are gone": {
			harm: segment(1, func(b []byte) []byte {
				for at := 2 * pageSize; at < len(b); at += pageSize {
					p := page(b[at : at+pageSize])
					if p.flags() == flagLeaf && p.fits() && p.count() > 1 {
						for i := range p.count() {
							if _, key, val, ok := p.leaf(i); ok && len(key) == 4 {
								val[9] ^= 1
							}
						}
					}
				}
				return b
			}), lost: inSegment,
		},
		"a stranger's file lies about": {
			harm: func(_ *testing.T, m image) {
				m["seg/notes.db"] = []byte("hello")
				m["seg/0000000000000009.db.new"] = []byte("half")
				m["state.db.new"] = []byte("half")
			},
		},
		"state.db is missing":  {harm: func(_ *testing.T, m image) { delete(m, "state.db") }, again: true, docs: true},
		"state.db is empty":    {harm: state(func([]byte) []byte { return []byte{} }), again: true, docs: true},
		"state.db is rubbish":  {harm: state(rubbish), again: true, docs: true},
		"state.db is cut":      {harm: state(func(b []byte) []byte { return b[:3*pageSize+100] }), again: true, docs: true},
		"state.db is all zero": {harm: state(func(b []byte) []byte { clear(b); return b }), again: true, docs: true},
		"the last meta page of state.db is torn": {
			harm: state(func(b []byte) []byte { rubbish(newestMeta(b)); return b }), again: true, docs: true,
		},
		"the free list of state.db is rubbish": {
			harm: state(func(b []byte) []byte {
				m, _, err := readMeta(bytes.NewReader(b))
				if err != nil {
					panic(err)
				}
				rubbish(b[m.freelist*pageSize:][:pageSize])
				return b
			}), again: true, docs: true,
		},
		"the free list of state.db names pages in use": {
			harm: state(func(b []byte) []byte {
				m, _, err := readMeta(bytes.NewReader(b))
				if err != nil {
					panic(err)
				}
				list := b[m.freelist*pageSize:]
				list[headerSize], list[10], list[11] = byte(m.root), 1, 0
				return b
			}), again: true, docs: true,
		},
		"documents rot": {
			harm: state(func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("<document>"), []byte("<DOCUMENT>")) }),
			docs: true,
		},
		"cursors rot": {
			harm: state(func(b []byte) []byte {
				return bytes.ReplaceAll(b, append([]byte{2}, 'x'), append([]byte{3}, 'x'))
			}), again: true,
		},
		"everything is rubbish": {
			harm: func(t *testing.T, m image) {
				t.Helper()
				for name := range m {
					m.hurt(t, name, rubbish)
				}
			}, lost: 2 * damageRecords, again: true, docs: true,
		},
	}
}

// Field reports Azure/iotedge#961 (block checksum mismatch: hub stops sending
// forever), containerd/containerd#9929 (does not start after an abnormal
// shutdown) and etcd-io/bbolt#335: whatever the disk did, the store opens, what
// can be read is delivered in order, the rest is counted, and new messages pass.
func TestDamageCostsWhatIsDamagedAndNoMore(t *testing.T) {
	t.Parallel()
	good := whole(t)
	for name, tt := range damageCases() {
		for kind, catalogued := range map[string]bool{"": true, ", and the catalog is gone": false} {
			t.Run(name+kind, func(t *testing.T) {
				t.Parallel()
				m := image{}
				for name, b := range good {
					m[name] = b
				}
				tt.harm(t, m)
				tt := tt
				if !catalogued {
					delete(m, "state.db")
					tt.again, tt.docs = true, true
				} else {
					tt.unseen = false
				}
				dir := t.TempDir()
				m.write(t, dir)
				checkDamage(t, dir, tt)
			})
		}
	}
}

func checkDamage(t *testing.T, dir string, tt damageCase) {
	t.Helper()
	s, stop := start(t, crashConfig(dir))
	lost := 0
	for sink, acked := range map[string]int{"x": damageAcked, "y": 0} {
		got := drain(t, s, sink)
		here := map[string]bool{}
		for _, body := range got {
			here[body] = true
		}
		if !slices.IsSorted(got) || len(here) != len(got) {
			t.Errorf("sink %s: messages came out of order, or twice", sink)
		}
		for i := range damageRecords {
			body := damageBody(i)
			switch {
			case i >= acked && !here[body]:
				lost++
			case i < acked && here[body] && !tt.again:
				t.Errorf("sink %s: %.20q was acknowledged and came again", sink, body)
			}
			delete(here, body)
		}
		for body := range here {
			t.Errorf("sink %s: %.40q was never sent", sink, body)
		}
	}
	if lost > tt.lost {
		t.Errorf("got %d messages lost, want at most %d", lost, tt.lost)
	}
	if got := s.Usage(); lost > 0 && !tt.unseen && got.DamagedFiles+got.DamagedRecords == 0 {
		t.Errorf("%d messages are lost and nobody counted: %+v", lost, got)
	}
	for i := range damageDocs {
		want := bytes.Repeat([]byte("<document>"), i*i)
		got, err := s.Docs().Get(fmt.Sprint("doc/", i))
		if err != nil || !bytes.Equal(got, want) && (!tt.docs || got != nil) {
			t.Errorf("document %d: got %d bytes, %v, want %d", i, len(got), err, len(want))
		}
	}
	works(t, s)
	stop()

	s, stop = start(t, crashConfig(dir))
	if u := s.Usage(); u.DamagedFiles+u.DamagedRecords+u.DamagedDocuments > 0 || u.Recovered {
		t.Errorf("opened again: got %+v, want it repaired", u)
	}
	works(t, s)
	stop()
	for _, folder := range []string{dir, filepath.Join(dir, "seg")} {
		bad, err := filepath.Glob(filepath.Join(folder, "*"+badSuffix+"*"))
		if err != nil || len(bad) > 1 {
			t.Errorf("put aside: got %q, want one file at most", bad)
		}
	}
}

// drain delivers and acknowledges all of a sink.
func drain(t *testing.T, s *Store, sink string) (bodies []string) {
	t.Helper()
	for at := (Cursor{}); ; {
		items, next, err := s.Queue().Peek(sink, at, 64, 0)
		if err != nil {
			t.Fatalf("peek %s: %v", sink, err)
		}
		if len(items) == 0 {
			return bodies
		}
		for _, item := range items {
			bodies = append(bodies, string(item.Body))
		}
		if err := s.Queue().Ack(sink, items...); err != nil {
			t.Fatal(err)
		}
		at = next
	}
}

// works says whether a store still does what it is for.
func works(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Queue().Append(t.Context(), Record{Body: []byte("new"), Entries: []Entry{{Sink: "x"}, {Sink: "z"}}}); err != nil {
		t.Errorf("append: %v", err)
	}
	if err := s.Docs().Put(t.Context(), "new", []byte("doc")); err != nil {
		t.Errorf("put: %v", err)
	}
	for _, sink := range []string{"x", "z"} {
		if got := drain(t, s, sink); !slices.Equal(got, []string{"new"}) {
			t.Errorf("%s: got %.60q, want the new message", sink, got)
		}
	}
	for _, lane := range s.Queue().Stats() {
		if lane.Messages != 0 || lane.Bytes != 0 {
			t.Errorf("drained, and got %+v", lane)
		}
	}
}

// Damage while the file is mapped: the page cache is what everybody reads.
func TestDamageUnderARunningStoreIsRepaired(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		harm func(t *testing.T, f *os.File, b []byte)
		lost int
	}{
		"a body rots": {lost: 2, harm: func(t *testing.T, f *os.File, b []byte) {
			t.Helper()
			for i := bytes.Index(b, []byte("<message 00033>")); i >= 0; i = bytes.Index(b, []byte("<message 00033>")) {
				b[i] = '#'
				if _, err := f.WriteAt([]byte{'#'}, int64(i)); err != nil {
					t.Fatal(err)
				}
			}
		}},
		"the file is cut": {lost: 200, harm: func(t *testing.T, f *os.File, _ []byte) {
			t.Helper()
			if err := f.Truncate(2 * pageSize); err != nil {
				t.Fatal(err)
			}
		}},
		"every branch is rubbish": {harm: func(t *testing.T, f *os.File, b []byte) {
			t.Helper()
			for at := 2 * pageSize; at < len(b); at += pageSize {
				if page(b[at:]).flags() == flagBranch {
					if _, err := f.WriteAt(bytes.Repeat([]byte{0xA5}, 200), int64(at)); err != nil {
						t.Fatal(err)
					}
				}
			}
		}},
	}
	for name, tt := range tests {
		for _, writer := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, the writer meets it first %t", name, writer), func(t *testing.T) {
				t.Parallel()
				s, stop := start(t, crashConfig(t.TempDir()))
				for i := range 100 {
					rec := Record{Body: []byte(damageBody(i)), Entries: []Entry{{Sink: "x"}, {Sink: "y", Priority: 3}}}
					if err := s.Queue().Append(t.Context(), rec); err != nil {
						t.Fatal(err)
					}
				}
				f, err := os.OpenFile(s.dir.segment(1), os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				b, err := os.ReadFile(f.Name())
				if err != nil {
					t.Fatal(err)
				}
				tt.harm(t, f, b)
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
				if writer {
					rec := Record{Body: []byte(damageBody(100)), Entries: []Entry{{Sink: "x"}}}
					if err := s.Queue().Append(t.Context(), rec); err != nil {
						t.Errorf("append: %v", err)
					}
				}
				got := drain(t, s, "x")
				if writer && (len(got) == 0 || got[len(got)-1] != damageBody(100)) {
					t.Error("what was acknowledged behind the damage is lost")
				}
				n := len(got) + len(drain(t, s, "y"))
				if n < 200-tt.lost || !slices.IsSorted(got) {
					t.Errorf("got %d of 200 messages, want %d", n, 200-tt.lost)
				}
				works(t, s)
				stop()
			})
		}
	}
}
