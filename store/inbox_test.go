package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/store"
	"github.com/sandpiper-edge/sandpiper/store/storetest"
)

func TestDoneIsCalledInTheOrderOfArrival(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Config{})
	refused := record("x", to("x", 11))
	var got []int
	all := make(chan struct{})
	const n = 3000
	for i := range n {
		rec := record(fmt.Sprint(i), to("x", 0))
		switch i % 10 {
		case 3:
			rec = refused
		case 5:
			rec = store.Record{}
		}
		s.Queue().Enqueue(rec, func(err error) {
			if (err != nil) != (i%10 == 3) {
				t.Errorf("record %d: got %v", i, err)
			}
			if got = append(got, i); len(got) == n {
				close(all)
			}
		})
	}
	<-all
	if !slices.IsSorted(got) {
		t.Error("callbacks came out of order")
	}
	if got, want := len(storetest.Bodies(t, s, "x")), n*8/10; got != want {
		t.Errorf("got %d messages stored, want %d", got, want)
	}
}

func TestARecordThatCannotBeKeptIsRefusedAlone(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		rec  store.Record
		want error // nil: any
	}{
		"priority beyond the lowest": {rec: record("a", to("x", store.Lowest+1))},
		"negative time to live":      {rec: record("a", store.Entry{Sink: "x", TTL: -1})},
		"sink without a name":        {rec: record("a", to("", 0))},
		"sink with an endless name":  {rec: record("a", to(strings.Repeat("x", 1025), 0))},
		"body too large":             {rec: record(strings.Repeat("x", store.MaxBody+1), to("x", 0)), want: store.ErrTooLarge},
	}
	s := storetest.Open(t, store.Config{})
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good := record("good", to(name, 0))
			err := s.Queue().Append(t.Context(), good, tt.rec, good)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("got %v, want an error (%v)", err, tt.want)
			}
			if got := len(storetest.Bodies(t, s, name)); got != 2 {
				t.Errorf("got %d of the good ones, want 2", got)
			}
		})
	}
}

func TestBodiesOfEverySizeComeBack(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Config{MaxBytes: 64 << 20})
	sizes := []int{0, 1, 255, 4000, 4096, 70_000, store.MaxBody, 3, store.MaxBody, store.MaxBody, 12, store.MaxBody}
	for round := range 4 {
		for i, size := range sizes {
			mustAppend(t, s, record(strings.Repeat(string(rune('a'+i)), size), to("x", 0), to("y", uint8(round))))
		}
	}
	for _, sink := range []string{"x", "y"} {
		for i, body := range storetest.Bodies(t, s, sink) {
			want := strings.Repeat(string(rune('a'+i%len(sizes))), sizes[i%len(sizes)])
			if body != want {
				t.Fatalf("%s, message %d: got %d bytes, want %d", sink, i, len(body), len(want))
			}
		}
	}
}

func TestAppendBeforeRunWaits(t *testing.T) {
	t.Parallel()
	s, err := store.Open(store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	appended := make(chan error, 1)
	go func() { appended <- s.Queue().Append(t.Context(), record("a", to("x", 0))) }()
	cancel()
	if err := s.Queue().Append(ctx, record("b", to("x", 0))); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that the context ended", err)
	}
	select {
	case err := <-appended:
		t.Errorf("Append came back with %v before anything could commit", err)
	default:
	}
	ran := make(chan error, 1)
	run, end := context.WithCancel(t.Context())
	go func() { ran <- s.Run(run) }()
	if err := <-appended; err != nil {
		t.Error(err)
	}
	end()
	if err := <-ran; err != nil {
		t.Errorf("run: %v", err)
	}
	if err := s.Queue().Append(t.Context(), record("c", to("x", 0))); !errors.Is(err, store.ErrClosed) {
		t.Errorf("after Run: got %v, want ErrClosed", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestCloseRefusesWhatCannotBeStored(t *testing.T) {
	t.Parallel()
	s, err := store.Open(store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	var got error
	s.Queue().Enqueue(record("a", to("x", 0)), func(err error) { got = err })
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(got, store.ErrClosed) {
		t.Errorf("handed over before: got %v, want ErrClosed", got)
	}
	got = nil
	s.Queue().Enqueue(record("a", to("x", 0)), func(err error) { got = err })
	if !errors.Is(got, store.ErrClosed) {
		t.Errorf("handed over after: got %v, want ErrClosed", got)
	}
	_, _, err = s.Queue().Peek("x", store.Cursor{}, 1, 0)
	for name, err := range map[string]error{
		"Peek": err, "Ack": s.Queue().Ack("x"),
	} {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s: got %v, want ErrClosed", name, err)
		}
	}
	_, getting := s.Docs().Get("k")
	_, listing := s.Docs().Keys("")
	for name, err := range map[string]error{
		"Get": getting, "Keys": listing, "Put": s.Docs().Put(t.Context(), "k", nil),
		"Update": s.Docs().Update(t.Context(), func(store.DocsTx) error { return nil }),
	} {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s: got %v, want ErrClosed", name, err)
		}
	}
	if err := s.Run(t.Context()); err != nil {
		t.Errorf("Run after Close: got %v, want nil", err)
	}
}
