package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// appendAll writes bodies 0..n-1 of one device in one order and waits for all.
func appendAll(t *testing.T, l *Log, device, module string, n int) {
	t.Helper()
	a := l.Appender()
	var g sync.WaitGroup
	for i := range n {
		g.Add(1)
		e := Event{Device: device, Module: module, Kind: EventTelemetry, Body: fmt.Append(nil, i), Properties: "n=" + fmt.Sprint(i)}
		err := a.Append(t.Context(), e, func(err error) {
			defer g.Done()
			if err != nil {
				t.Errorf("append %d of %s: %v", i, device, err)
			}
		})
		if err != nil {
			t.Errorf("append %d of %s: %v", i, device, err)
			g.Done()
		}
	}
	g.Wait()
}

func readAll(t *testing.T, l *Log, q Query) []Entry {
	t.Helper()
	var entries []Entry
	if err := l.Read(t.Context(), q, nil, func(e Entry) error { entries = append(entries, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return entries
}

func TestOneDevicesEventsStayInOrder(t *testing.T) {
	t.Parallel()
	for name, batches := range map[string]bool{"in batches": true, "one by one": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := open(t, Config{NoBatches: !batches})
			const devices, each = 8, 300
			var g sync.WaitGroup
			for d := range devices {
				g.Go(func() { appendAll(t, s.Log(), fmt.Sprintf("dev%d", d), "", each) })
			}
			g.Wait()
			for d := range devices {
				device := fmt.Sprintf("dev%d", d)
				entries := readAll(t, s.Log(), Query{Shard: s.Docs().Shard(device), Device: device})
				var got []string
				for _, e := range entries {
					got = append(got, string(e.Body))
				}
				var want []string
				for i := range each {
					want = append(want, fmt.Sprint(i))
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s: got %d events %.60q, want %d in order", device, len(got), got, each)
				}
			}
		})
	}
}

func TestReadFiltersByDeviceModuleKindOffsetAndTime(t *testing.T) {
	t.Parallel()
	s, _ := open(t, Config{Shards: 1})
	l := s.Log()
	appendAll(t, l, "edge1", "", 2)
	appendAll(t, l, "edge1", "$edgeAgent", 2)
	appendAll(t, l, "edge1", "_", 1)
	appendAll(t, l, "edge2", "", 2)
	all := readAll(t, l, Query{})
	tests := map[string]struct {
		q    Query
		want int
	}{
		"everything":        {Query{}, 7},
		"one device":        {Query{Device: "edge1"}, 5},
		"one module":        {Query{Device: "edge1", Module: "$edgeAgent"}, 2},
		"module _":          {Query{Device: "edge1", Module: "_"}, 1},
		"unknown device":    {Query{Device: "edge"}, 0},
		"kind":              {Query{Kinds: []EventKind{EventTelemetry, EventWill}}, 7},
		"another kind":      {Query{Kinds: []EventKind{EventTwin}}, 0},
		"from an offset":    {Query{From: all[5].Offset}, 2},
		"since a time":      {Query{Since: all[3].Enqueued}, 4},
		"since later":       {Query{Since: time.Now().Add(time.Hour)}, 0},
		"beyond the end":    {Query{From: all[6].Offset + 5}, 0},
		"offset and device": {Query{Device: "edge2", From: all[1].Offset}, 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := readAll(t, l, tt.q); len(got) != tt.want {
				t.Errorf("Read(%+v): got %d events, want %d", tt.q, len(got), tt.want)
			}
		})
	}
	e := all[2]
	if e.Device != "edge1" || e.Module != "$edgeAgent" || e.Kind != EventTelemetry || e.Properties != "n=0" || e.ID == "" {
		t.Errorf("entry: got %+v", e)
	}
}

func TestAFollowingReadGoesOn(t *testing.T) {
	t.Parallel()
	s, _ := open(t, Config{Shards: 1})
	appendAll(t, s.Log(), "edge1", "", 3)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	idle, seen, ended := make(chan struct{}), make(chan string, 16), make(chan error, 1)
	go func() {
		ended <- s.Log().Read(ctx, Query{Follow: true}, func() { close(idle) }, func(e Entry) error { seen <- string(e.Body); return nil })
	}()
	<-idle
	appendAll(t, s.Log(), "edge1", "", 2)
	var got []string
	for range 5 {
		got = append(got, <-seen)
	}
	if want := []string{"0", "1", "2", "0", "1"}; !slices.Equal(got, want) {
		t.Errorf("followed: got %q, want %q", got, want)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("end: got %v, want %v", err, context.Canceled)
	}
}

// An event that is not stored takes those behind it along, or a sender that repeats would see its events swapped.
func TestAfterAFailureAnAppenderStoresNothing(t *testing.T) {
	t.Parallel()
	s, _ := open(t, Config{Shards: 1})
	fail := errors.New("disk went away")
	a := s.Log().Appender()
	*a.broken = fail
	got := make(chan error, 1)
	if err := a.Append(t.Context(), Event{Device: "edge1", Kind: EventTelemetry}, func(err error) { got <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-got; !errors.Is(err, fail) {
		t.Errorf("append behind a failure: got %v, want %v", err, fail)
	}
	appendAll(t, s.Log(), "edge1", "", 1)
	if got := len(readAll(t, s.Log(), Query{})); got != 1 {
		t.Errorf("stored: got %d events, want 1", got)
	}
}

func TestAQueueHoldsBackASubjectUsedTwice(t *testing.T) {
	t.Parallel()
	s, _ := open(t, Config{})
	q := newQueue()
	add := func(keys ...string) {
		var puts []Put
		for _, k := range keys {
			puts = append(puts, Put{Key: Key{Device: "d", Name: k, Kind: KindService}, Value: []byte("x")})
		}
		messages, _, err := s.Docs().messages(puts)
		if err != nil {
			t.Fatal(err)
		}
		if err := q.add(t.Context(), newChange(messages, nil)); err != nil {
			t.Fatal(err)
		}
	}
	add("a")
	add("b")
	add("a", "c")
	add("c") // behind the change held back, so it is held back too
	add("d")
	if got := count(q.take(true)); got != 3 {
		t.Errorf("first take: got %d messages, want a, b and d", got)
	}
	if got := count(q.take(true)); got != 2 {
		t.Errorf("second take: got %d messages, want a and c", got)
	}
	if got := count(q.take(true)); got != 1 {
		t.Errorf("third take: got %d messages, want c", got)
	}
	if got := count(q.take(true)); got != 0 {
		t.Errorf("fourth take: got %d messages, want none", got)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, connections := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("connections=%d", connections), func(b *testing.B) {
			s, err := Open(b.Context(), Config{Hub: "bench", Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx) }()
			defer func() { cancel(); <-ended; s.Close() }()
			body := make([]byte, 256)
			var g sync.WaitGroup
			b.ResetTimer()
			for c := range connections {
				g.Go(func() {
					a := s.Log().Appender()
					window := make(chan struct{}, 64)
					for range b.N / connections {
						window <- struct{}{}
						_ = a.Append(ctx, Event{Device: fmt.Sprint("d", c), Kind: EventTelemetry, Body: body}, func(error) { <-window })
					}
					for range cap(window) {
						window <- struct{}{}
					}
				})
			}
			g.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}
