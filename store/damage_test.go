package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

const damageRecords, damageAcked, damageDocs, damageDraft = 1500, 100, 20, 150

// damageBody is long enough to be found in a file.
func damageBody(i int) string {
	return fmt.Sprintf("<message %05d>%s", i, strings.Repeat("m", i%13*40))
}

// start runs a store with small segments until stop is called.
func start(tb testing.TB, cfg Config) (s *Store, stop func()) {
	tb.Helper()
	return startWith(tb, cfg, minSegment)
}

func startWith(tb testing.TB, cfg Config, segmentBytes int64) (s *Store, stop func()) {
	tb.Helper()
	s, err := Open(cfg)
	if err != nil {
		tb.Fatalf("open store: %v", err)
	}
	return run(tb, s, segmentBytes)
}

func run(tb testing.TB, s *Store, segmentBytes int64) (_ *Store, stop func()) {
	tb.Helper()
	s.queue.tail.segmentBytes = segmentBytes
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

// sealNow makes a file of everything that is in journals.
func sealNow(t *testing.T, s *Store) {
	t.Helper()
	if err := s.queue.tail.finish(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := s.queue.sealOldest(); err != nil {
			t.Fatal(err)
		}
	}
}

// whole makes the image of a store in good order: several segments, some records
// that are in a journal only, two sinks, one of them partly drained, and
// documents.
func whole(t *testing.T) image {
	t.Helper()
	dir := t.TempDir()
	s, stop := start(t, crashConfig(dir))
	for i := 0; i < damageRecords; i += 5 {
		if i == damageRecords-damageDraft {
			sealNow(t, s)
		}
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
				sealNow(t, s)
				paths, _, err := s.dir.segments()
				if err != nil || paths[1] == "" {
					t.Fatalf("got %v, %v, want the file of segment 1", paths, err)
				}
				f, err := os.OpenFile(paths[1], os.O_RDWR, 0)
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

// What is damaged is taken out at the start, by a transaction that has a number of its own: it must not make what the disk forgot look new.
func TestAStalePageIsSeenBesideADamagedDocument(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(crashConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Docs().Put(t.Context(), "good", []byte("1")), s.Close()); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(s.dir.state(), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	// A transaction that is none of the store's: the number in the file is older than the file's own.
	err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketDocs).Put([]byte("bad"), []byte("rubbish")) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(crashConfig(dir)); err != nil {
		t.Fatal(err)
	}
	if u := s.Usage(); u.DamagedDocuments != 1 || u.DamagedFiles != 1 {
		t.Errorf("got %+v, want a damaged document and a file that lacks a page", u)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
