package storetest

import (
	"context"
	"testing"

	"github.com/sandpiper-edge/sandpiper/store"
)

// Open opens and runs a store until the test ends. An empty Dir is a folder of
// the test; a MaxBytes of 0 is 256 MiB. After the test the store is opened once
// more: it must have no damage.
func Open(tb testing.TB, cfg store.Config) *store.Store {
	tb.Helper()
	cfg = withDefaults(tb, cfg)
	s, stop := Start(tb, cfg)
	tb.Cleanup(func() {
		stop()
		Check(tb, cfg)
	})
	return s
}

// Start opens and runs a store until stop is called, at the latest when the test
// ends. Cfg is used as in [Open]. A test that restarts the store gives a Dir.
func Start(tb testing.TB, cfg store.Config) (s *store.Store, stop func()) {
	tb.Helper()
	s, err := store.Open(withDefaults(tb, cfg))
	if err != nil {
		tb.Fatalf("open store: %v", err)
	}
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

// Check opens a closed store, reads all of it, and reports damage.
func Check(tb testing.TB, cfg store.Config) {
	tb.Helper()
	s, err := store.Open(withDefaults(tb, cfg))
	if err != nil {
		tb.Errorf("open store to check it: %v", err)
		return
	}
	defer func() {
		if err := s.Close(); err != nil {
			tb.Errorf("close store: %v", err)
		}
	}()
	for _, lane := range s.Queue().Stats() {
		Bodies(tb, s, lane.Sink)
	}
	if u := s.Usage(); u.DamagedFiles+u.DamagedRecords+u.DamagedDocuments > 0 || u.Recovered {
		tb.Errorf("store is damaged: %+v", u)
	}
}

// Bodies returns what a sink has to deliver, in order, up to 4096 messages of
// each priority, and acknowledges nothing.
func Bodies(tb testing.TB, s *store.Store, sink string) []string {
	tb.Helper()
	var bodies []string
	var at store.Cursor
	for {
		items, next, err := s.Queue().Peek(sink, at, 1000, 1<<20)
		if err != nil {
			tb.Fatalf("peek %s: %v", sink, err)
		}
		if len(items) == 0 {
			return bodies
		}
		for _, item := range items {
			bodies = append(bodies, string(item.Body))
		}
		at = next
	}
}

func withDefaults(tb testing.TB, cfg store.Config) store.Config {
	if cfg.Dir == "" {
		cfg.Dir = tb.TempDir()
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 256 << 20
	}
	if cfg.MinFree == 0 {
		cfg.MinFree = 1
	}
	return cfg
}
