package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/route"
	"github.com/sandpiper-edge/sandpiper/store"
)

// pacerRig is a pacer over a real store, in a bubble.
func pacerRig(t *testing.T, max int64, test func(t *testing.T, p *pacer, s *store.Store)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := store.Open(store.Config{Dir: t.TempDir(), MaxBytes: max})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- s.Run(context.Background()) }()
		test(t, newPacer(s.Queue(), slog.New(slog.DiscardHandler)), s)
		if err := errors.Join(s.Close(), <-ended); err != nil {
			t.Error(err)
		}
	})
}

func rec(body string) store.Record {
	return store.Record{Body: []byte(body), Entries: []store.Entry{{Sink: "upstream/m"}}}
}

func (p *pacer) bodies(t *testing.T) string {
	t.Helper()
	items, _, err := p.queue.Peek("upstream/m", store.Cursor{}, 1000, 0)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, it := range items {
		list = append(list, string(it.Body[:1]))
	}
	return strings.Join(list, "")
}

var relaxed = route.Durability{Window: 5 * time.Second}

func TestARelaxedMessageIsAcknowledgedAtOnceAndOnDiskWithinItsWindow(t *testing.T) {
	t.Parallel()
	pacerRig(t, 0, func(t *testing.T, p *pacer, s *store.Store) {
		acked := make(chan error, 3)
		for _, body := range []string{"a", "b", "c"} {
			if got := p.Put(rec(body), relaxed, func(err error) { acked <- err }); got != relaxed {
				t.Errorf("got %s, want what was asked for", got)
			}
			if err := <-acked; err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if got := s.Usage().Records; got != 0 {
			t.Errorf("got %d records on disk at once, want none", got)
		}
		<-time.After(5 * time.Second)
		synctest.Wait()
		if got, commits := p.bodies(t), s.Usage().Records; got != "abc" || commits != 3 {
			t.Errorf("after the window: got %q on disk, want abc", got)
		}
	})
}

func TestAStrictMessageOvertakesNothingAndTakesTheRestAlong(t *testing.T) {
	t.Parallel()
	pacerRig(t, 0, func(t *testing.T, p *pacer, _ *store.Store) {
		done := make(chan error, 3)
		p.Put(rec("a"), relaxed, func(err error) { done <- err })
		p.Put(rec("b"), relaxed, func(err error) { done <- err })
		if got := p.Put(rec("c"), route.Durability{}, func(err error) { done <- err }); got.Relaxed() {
			t.Errorf("got %s, want strict", got)
		}
		for range 3 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if got := p.bodies(t); got != "abc" {
			t.Errorf("got %q, want abc", got)
		}
		if strict, relaxed := p.strict.Load(), p.relaxed.Load(); strict != 1 || relaxed != 2 {
			t.Errorf("got %d strict and %d relaxed counted, want 1 and 2", strict, relaxed)
		}
	})
}

func TestTheEndWaitsForWhatWasAcknowledgedFromMemory(t *testing.T) {
	t.Parallel()
	pacerRig(t, 0, func(t *testing.T, p *pacer, _ *store.Store) {
		p.Put(rec("a"), relaxed, func(error) {})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if got := p.bodies(t); got != "a" {
			t.Errorf("got %q, want a", got)
		}
	})
}

func TestAFullStoreEndsTheAcknowledgementsFromMemoryAndLosesNone(t *testing.T) {
	t.Parallel()
	pacerRig(t, 8<<20, func(t *testing.T, p *pacer, s *store.Store) {
		body := strings.Repeat("x", 200<<10)
		acked := 0
		for {
			var got error
			p.Put(rec(body), relaxed, func(err error) { got = err })
			synctest.Wait()
			if got != nil {
				break
			}
			if acked++; acked > 1000 {
				t.Fatal("a full store takes everything")
			}
		}
		if _, err := p.queue.Purge(t.Context(), "upstream/m"); err != nil {
			t.Fatal(err)
		}
		gone := s.Usage().Records
		<-time.After(10 * time.Second)
		synctest.Wait()
		if got := len(p.bodies(t)); uint64(got)+gone != uint64(acked) || got == 0 {
			t.Errorf("got %d more after there was room, %d before, want the %d acknowledged", got, gone, acked)
		}
		if err := p.failing(); err != nil {
			t.Errorf("got %v, want it to take messages again", err)
		}
	})
}

func TestTheOperatorChoosesWhatAUsedUpBudgetDoes(t *testing.T) {
	t.Parallel()
	put := func(p *pacer, asked route.Durability) (route.Durability, chan error) {
		done := make(chan error, 1)
		return p.Put(rec("a"), asked, func(err error) { done <- err }), done
	}
	pacerRig(t, 0, func(t *testing.T, p *pacer, s *store.Store) {
		p.limit.Store(&limit{at: AtLimitRefuse})
		if _, done := put(p, relaxed); !errors.Is(<-done, errDailyWrites) {
			t.Error("refuse: got it taken")
		}
		p.limit.Store(&limit{at: AtLimitRelaxed})
		got, done := put(p, route.Durability{})
		if err := <-done; err != nil || got.Window != limitWindow || s.Usage().Records != 0 {
			t.Errorf("relaxed: got %s, %v, want it acknowledged from memory and said so", got, err)
		}
		p.flush()
		p.limit.Store(&limit{at: AtLimitLinger, linger: time.Second})
		start := time.Now()
		got, done = put(p, route.Durability{})
		if err := <-done; err != nil || got.Relaxed() || time.Since(start) < time.Second {
			t.Errorf("linger: got %s, %v after %s, want it strict after a second", got, err, time.Since(start))
		}
	})
	for name, c := range map[string]struct {
		written int64
		want    time.Duration
	}{
		"below": {99, 0}, "at": {100, limitLinger}, "a fifth beyond": {120, 4 * limitLinger}, "far beyond": {1000, limitLingerMost},
	} {
		got := limitOf(AtLimitLinger, c.written, 100)
		if (got == nil) != (c.want == 0) || got != nil && got.linger != c.want {
			t.Errorf("%s the budget: got %+v, want %s", name, got, c.want)
		}
	}
}
