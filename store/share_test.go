package store

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
)

// Counting the commits of writers that merely run at the same time says how slow the disk is: here they wait in line for certain.
func TestWritersOfDocumentsThatWaitShareOneCommit(t *testing.T) {
	t.Parallel()
	s, err := Open(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	const writers = 16
	st := s.docs.state
	before := s.Usage().Commits
	var all sync.WaitGroup
	st.turn.Lock() // as one that commits
	for w := range writers {
		all.Go(func() {
			if err := s.Docs().Put(t.Context(), fmt.Sprintf("doc/%d", w), fmt.Append(nil, w)); err != nil {
				t.Error(err)
			}
		})
	}
	for inLine(st) < writers {
		runtime.Gosched()
	}
	st.turn.Unlock()
	all.Wait()
	if got := s.Usage().Commits - before; got != 1 {
		t.Errorf("got %d commits for %d changes that waited, want 1", got, writers)
	}
	for w := range writers {
		key := fmt.Sprintf("doc/%d", w)
		if got, err := s.Docs().Get(key); string(got) != fmt.Sprint(w) || err != nil {
			t.Errorf("%s: got %q, %v, want %d", key, got, err, w)
		}
	}
}

func inLine(s *state) int {
	s.line.mu.Lock()
	defer s.line.mu.Unlock()
	return len(s.line.waiting)
}
