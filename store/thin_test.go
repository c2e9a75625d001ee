package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A lane that nobody drains keeps its own messages, not the segments of all
// others: also those whose body lies in another lane.
func TestALaneThatStandsStillKeepsOnlyWhatItHas(t *testing.T) {
	t.Parallel()
	m := &faulty{op: "remove", files: "/seg/"}
	cfg := crashConfig(filepath.Join(fastDir(t), "store"))
	s, stop := startOn(t, cfg, m)
	rng := rand.New(rand.NewPCG(1, 2))
	var stuck, own []string
	for n := range 1500 {
		rec := Record{Body: fmt.Appendf(nil, "%05d%s", n, strings.Repeat("b", 1000)), Entries: []Entry{{Sink: "fast"}}}
		switch rng.IntN(60) {
		case 0:
			rec.Entries = append(rec.Entries, Entry{Sink: "stuck"}) // the body is the fast lane's
			stuck = append(stuck, string(rec.Body))
		case 1:
			rec.Entries = []Entry{{Sink: "own", Priority: 7}}
			own = append(own, string(rec.Body))
		}
		if err := s.Queue().Append(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
	}
	sealNow(t, s)
	drain(t, s, "fast")
	if err := s.queue.flush(); err != nil {
		t.Fatal(err)
	}
	before := s.Usage()
	m.arm(syscall.EIO) // the larger file stays once
	if _, err := s.queue.thin(); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v, want that the old file cannot be removed", err)
	}
	m.arm(nil)
	for again := true; again; {
		var err error
		if again, err = s.queue.thin(); err != nil {
			t.Fatal(err)
		}
	}
	after := s.Usage()
	if after.Segments != before.Segments || after.Held > before.Held/4+maxJournals*minSegment {
		t.Errorf("got %+v\nbefore %+v, want a fraction of it held", after, before)
	}
	stop()
	s, stop = start(t, cfg)
	if again := s.Usage(); again.Held > after.Held+minSegment {
		t.Errorf("opened again: got %d bytes held, want %d", again.Held, after.Held)
	}
	if files, err := filepath.Glob(filepath.Join(s.dir.folder(), "*.db")); err != nil || len(files) != after.Segments {
		t.Errorf("got the files %q, %v, want %d", files, err, after.Segments)
	}
	for sink, want := range map[string][]string{"stuck": stuck, "own": own, "fast": nil} {
		if got := drain(t, s, sink); !slices.Equal(got, want) {
			t.Errorf("%s: got %d messages, want %d", sink, len(got), len(want))
		}
	}
	if u := s.Usage(); u.DamagedFiles+u.DamagedRecords > 0 {
		t.Errorf("got %+v, want no damage", u)
	}
	works(t, s)
	stop()
}
