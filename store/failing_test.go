package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// pull makes every further write to the tail's journal, and to those that are
// ready, fail as a card does that came loose.
func pull(t *testing.T, s *Store) {
	t.Helper()
	s.queue.tail.mu.Lock()
	defer s.queue.tail.mu.Unlock()
	if err := s.queue.tail.draft.journal.Close(); err != nil {
		t.Fatal(err)
	}
	p := s.queue.tail.journals
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, j := range p.free {
		p.dropLocked(j)
	}
	p.free = nil
}

func numbered(n int) Record {
	return Record{Body: fmt.Appendf(nil, "%04d", n), Entries: []Entry{{Sink: "x"}}}
}

// A flush that failed may seem to succeed when it is tried again: the kernel has
// forgotten the pages. So the next file takes over, and nobody is told a lie.
func TestAFailedCommitGoesToAnotherJournal(t *testing.T) {
	t.Parallel()
	cfg := crashConfig(t.TempDir())
	var book bytes.Buffer
	cfg.Logger = slog.New(slog.NewTextHandler(&book, nil))
	s, stop := start(t, cfg)
	var want []string
	for n := range 30 {
		if n%10 == 5 {
			pull(t, s)
		}
		if err := s.Queue().Append(t.Context(), numbered(n)); err != nil {
			t.Fatalf("message %d: %v", n, err)
		}
		want = append(want, string(numbered(n).Body))
	}
	if got := s.Usage(); got.Segments != 4 || got.Failing || got.Full {
		t.Errorf("got %+v, want 4 segments and no failure", got)
	}
	stop()
	if got := strings.Count(book.String(), "going on in another"); got != 3 {
		t.Errorf("got %d lines about it, want 3:\n%s", got, book.String())
	}
	s, stop = start(t, cfg)
	if got := drain(t, s, "x"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	works(t, s)
	stop()
}

// When no file takes anything producers are refused, once in the log, until it
// is over.
func TestADiskThatTakesNothingRefusesProducers(t *testing.T) {
	t.Parallel()
	cfg := crashConfig(t.TempDir())
	var book bytes.Buffer
	cfg.Logger = slog.New(slog.NewTextHandler(&book, nil))
	s, stop := start(t, cfg)
	if err := s.Queue().Append(t.Context(), numbered(0)); err != nil {
		t.Fatal(err)
	}
	folder, away := s.dir.journals(), s.dir.journals()+".away"
	if err := os.Rename(folder, away); err != nil { // first: the sealer may be making the next journal
		t.Fatal(err)
	}
	pull(t, s)
	for n := range 5 {
		if err := s.Queue().Append(t.Context(), numbered(n+100)); err == nil || errors.Is(err, ErrFull) {
			t.Errorf("got %v, want what is wrong", err)
		}
	}
	if got := s.Usage(); !got.Failing {
		t.Errorf("got %+v, want it failing", got)
	}
	if err := os.Rename(away, folder); err != nil {
		t.Fatal(err)
	}
	if err := s.Queue().Append(t.Context(), numbered(1)); err != nil {
		t.Errorf("after it is over: %v", err)
	}
	if got := s.Usage(); got.Failing {
		t.Errorf("got %+v, want it well", got)
	}
	if got := drain(t, s, "x"); !slices.Equal(got, []string{"0000", "0001"}) {
		t.Errorf("got %q, want what was acknowledged and nothing else", got)
	}
	stop()
	if got := strings.Count(book.String(), "\n"); got != 2 {
		t.Errorf("got %d lines, want one when it began and one when it ended:\n%s", got, book.String())
	}
}

// After a failed write state.db takes no more until it was looked at afresh.
func TestAStateThatFailedIsNotTrusted(t *testing.T) {
	t.Parallel()
	cfg := crashConfig(t.TempDir())
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Docs().Put(t.Context(), "k", []byte("old")); err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(s.dir.state())
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	// bbolt's descriptor now only reads.
	if err := unix.Dup3(int(reader.Fd()), int(s.state.file.Fd()), unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		err := s.Docs().Put(t.Context(), "k", []byte("new"))
		if err == nil || !strings.Contains(err.Error(), "restart the agent") {
			t.Errorf("got %v, want that it failed and what to do", err)
		}
	}
	if got, err := s.Docs().Get("k"); string(got) != "old" || err != nil {
		t.Errorf("reading: got %q, %v, want old", got, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err) // there was no cursor to be written
	}
	s, stop := start(t, cfg)
	if got, err := s.Docs().Get("k"); string(got) != "old" || err != nil {
		t.Errorf("opened again: got %q, %v, want old", got, err)
	}
	works(t, s)
	stop()
}
