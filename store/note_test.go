package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A board that publishes once a second and delivers at once: what is
// acknowledged goes to disk with the next message, and nothing else is written.
func TestAcknowledgementsGoWithTheNextMessage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(crashConfig(t.TempDir()))
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- s.Run(context.Background()) }()
		before := s.Usage()
		for n := range 20 {
			if err := s.Queue().Append(t.Context(), numbered(n)); err != nil {
				t.Fatal(err)
			}
			if got := drain(t, s, "x"); len(got) != 1 {
				t.Errorf("message %d: got %q", n, got)
			}
			<-time.After(time.Second)
		}
		if after := s.Usage(); after.Commits-before.Commits != 20 {
			t.Errorf("got %d commits for 20 messages and their acknowledgements", after.Commits-before.Commits)
		}
		image := takeImage(t, s.dir.path)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got, _ := reopened(t, image); !slices.Equal(got, []string{"0019"}) {
			t.Errorf("after a power cut: got %q again, want the last one", got)
		}
	})
}

// reopened opens what an image has and drains it.
func reopened(t *testing.T, m image) (bodies []string, u Usage) {
	t.Helper()
	dir := t.TempDir()
	m.write(t, dir)
	s, err := Open(crashConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	bodies = drain(t, s, "x")
	u = s.Usage()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	return bodies, u
}

// What is acknowledged out of order is not delivered again after a power cut, be
// it in the journal or sealed meanwhile.
func TestWhatIsDoneAheadStaysDone(t *testing.T) {
	t.Parallel()
	for _, sealed := range []bool{false, true} {
		t.Run(fmt.Sprint("sealed ", sealed), func(t *testing.T) {
			t.Parallel()
			s, stop := start(t, crashConfig(t.TempDir()))
			for n := range 10 {
				if err := s.Queue().Append(t.Context(), numbered(n)); err != nil {
					t.Fatal(err)
				}
			}
			items, _, err := s.Queue().Peek("x", Cursor{}, 10, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Queue().Ack("x", items[0], items[3], items[4], items[8]); err != nil {
				t.Fatal(err)
			}
			if err := s.queue.note(); err != nil {
				t.Fatal(err)
			}
			if sealed {
				sealNow(t, s)
			}
			got, u := reopened(t, takeImage(t, s.dir.path))
			if want := []string{"0001", "0002", "0005", "0006", "0007", "0009"}; !slices.Equal(got, want) || u.DamagedRecords > 0 {
				t.Errorf("got %q and %+v, want %q", got, u, want)
			}
			stop()
		})
	}
}

// A message that looks like a block of the journal is a message, also when
// damage in front of it makes the reader search.
func TestNoMessagePassesForABlock(t *testing.T) {
	t.Parallel()
	s, stop := start(t, crashConfig(t.TempDir()))
	forged := make([]byte, blockHeader)
	block{epoch: 1, commit: 1 << 30, before: 1 << 40, stored: 1 << 50}.seal(forged, 0)
	for n, body := range []string{"first", strings.Repeat("-", 100) + string(forged), "last"} {
		if err := s.Queue().Append(t.Context(), Record{Body: []byte(body), Entries: []Entry{{Sink: "x"}}}); err != nil {
			t.Fatalf("message %d: %v", n, err)
		}
	}
	m := takeImage(t, s.dir.path)
	stop()
	for name, b := range m {
		if i := bytes.Index(b, []byte("----")); strings.HasPrefix(name, "journal/") && i >= 0 {
			b[i] ^= 1
		}
	}
	got, u := reopened(t, m)
	if !slices.Equal(got, []string{"first", "last"}) || u.DamagedRecords != 1 {
		t.Errorf("got %q and %+v, want the first and the last, and one counted", got, u)
	}
}

func FuzzParsePosition(f *testing.F) {
	for _, p := range []position{{Cursor: 1}, {Cursor: 7, Segment: 2, Done: 3, DoneBytes: 4, Settled: 9, Ahead: []uint64{9, 9, 12, 40}}} {
		b, err := p.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parsePosition(b)
		if !ok {
			return
		}
		for seq := p.Cursor; seq < p.Cursor+5; seq++ {
			left := spansAbove(p.Ahead, seq)
			if inSpans(left, seq) || inSpans(left, seq+1) != inSpans(p.Ahead, seq+1) {
				t.Errorf("%v above %d: got %v", p.Ahead, seq, left)
			}
		}
		if o := p.join(p); o.Cursor != p.Cursor || o.Settled != p.Settled || !slices.Equal(o.Ahead, p.Ahead) {
			t.Errorf("got %+v joined with itself, want %+v", o, p)
		}
	})
}

// What a lane has done may be known to a journal only, and nobody has anything to
// do in that lane ever again: state.db must know before the journal is written over.
func TestWhatOnlyAJournalKnewIsKeptWhenItIsWrittenOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// life opens the store, lets work run in it, and goes on with what a kill at its end leaves.
	life := func(work func(s *Store)) {
		t.Helper()
		s, err := Open(crashConfig(dir))
		if err != nil {
			t.Fatal(err)
		}
		if u := s.Usage(); u.DamagedRecords > 0 {
			t.Errorf("got %d records counted as lost, want none", u.DamagedRecords)
		}
		ended := make(chan error, 1)
		go func() { ended <- s.Run(context.Background()) }()
		work(s)
		left := t.TempDir()
		for err := os.CopyFS(left, os.DirFS(dir)); err != nil; err = os.CopyFS(left, os.DirFS(dir)) {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			left = t.TempDir() // a journal got its name meanwhile
		}
		if err := errors.Join(s.Close(), <-ended); err != nil {
			t.Error(err)
		}
		dir = left
	}
	put := func(s *Store, n int, sinks ...string) {
		t.Helper()
		r := Record{Body: fmt.Appendf(nil, "%04d", n)}
		for _, sink := range sinks {
			r.Entries = append(r.Entries, Entry{Sink: sink})
		}
		if err := s.Queue().Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	life(func(s *Store) {
		put(s, 1, "quiet", "y")
		drain(t, s, "quiet")
		put(s, 2, "y") // its block says how far quiet is
	})
	s, err := Open(crashConfig(dir)) // as a tool does that does not run it
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Queue().Purge(t.Context(), "y"); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	life(func(s *Store) { put(s, 3, "y") }) // over what the first life wrote
	life(func(s *Store) {})
}
