package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// fullStore takes nothing while it is full.
type fullStore struct {
	full     atomic.Bool
	messages [][]pinSample
}

func (s *fullStore) send(_ context.Context, list []pinSample) error {
	if s.full.Load() {
		return errors.New("the store is full")
	}
	s.messages = append(s.messages, append([]pinSample(nil), list...))
	return nil
}

func (s *fullStore) box() *pinOutbox {
	return &pinOutbox{module: "pins", send: s.send, log: slog.New(slog.DiscardHandler)}
}

func TestReadingsWaitForAFullStoreAndTheFirstLeftSaysHowManyAreGone(t *testing.T) {
	t.Parallel()
	s := &fullStore{}
	s.full.Store(true)
	box := s.box()
	const all = maxPinQueue + 1500
	for i := range all {
		box.list = append(box.list, pinSample{N: "level", T: float64(i)})
		if i%100 == 0 {
			box.flush(t.Context())
		}
	}
	box.flush(t.Context())
	if len(box.list) != maxPinQueue {
		t.Fatalf("%d wait, want %d", len(box.list), maxPinQueue)
	}
	s.full.Store(false)
	box.flush(t.Context())
	next, lost := float64(all-maxPinQueue), uint64(0)
	for _, m := range s.messages {
		if len(m) > maxPinMessage {
			t.Errorf("a message of %d samples", len(m))
		}
		for _, sample := range m {
			if sample.T != next {
				t.Fatalf("got sample %v, want %v", sample.T, next)
			}
			next++
			lost += sample.Lost
		}
	}
	if lost != all-maxPinQueue || s.messages[0][0].Lost != lost {
		t.Errorf("%d samples are said to be gone, %d of them by the first; want %d", lost, s.messages[0][0].Lost, all-maxPinQueue)
	}
	if len(box.list) != 0 || next != all {
		t.Errorf("%d wait still, the last was %v", len(box.list), next-1)
	}
}

// fewEdges has these and then none any more.
type fewEdges []hal.Event

func (e *fewEdges) Next(ctx context.Context, into []hal.Event) (int, error) {
	if n := copy(into, *e); n > 0 {
		*e = (*e)[n:]
		return n, nil
	}
	<-ctx.Done()
	return 0, ctx.Err()
}

func TestAnEdgeThatAFullStoreRefusedIsStoredThoughNoOtherFollows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &fullStore{}
		s.full.Store(true)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- forward(ctx, &fewEdges{{Seq: 1, Edge: hal.Rising}, {Seq: 2, Edge: hal.Falling}}, pinPublish{Watch: "door"}, s.box())
		}()
		synctest.Wait()
		s.full.Store(false)
		time.AfterFunc(pinRetryTime+time.Second, stop)
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the end of the context", err)
		}
		if len(s.messages) != 1 || len(s.messages[0]) != 2 || s.messages[0][1].Seq != 2 {
			t.Errorf("got %+v, want both edges in one message", s.messages)
		}
	})
}

func TestEdgesCloserThanTheLeastIntervalGoAsOneTheNewestOfAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &fullStore{}
		var all fewEdges
		for i := range 300 {
			all = append(all, hal.Event{Seq: uint64(2*i + 2), Lost: 1, Merged: 2, Edge: hal.Rising})
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		if err := forward(ctx, &all, pinPublish{Watch: "door", MinInterval: hal.Duration(time.Second)}, s.box()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the end of the context", err)
		}
		if len(s.messages) != 1 || len(s.messages[0]) != 1 {
			t.Fatalf("got %d messages, want one of one sample", len(s.messages))
		}
		if got := s.messages[0][0]; got.Seq != 600 || got.Lost != 300 || got.Merged != 600 {
			t.Errorf("got %+v, want the last with what is missing before all", got)
		}
	})
}
