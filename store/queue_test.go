package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/store"
	"github.com/sandpiper-edge/sandpiper/store/storetest"
)

func record(body string, entries ...store.Entry) store.Record {
	return store.Record{Body: []byte(body), Entries: entries}
}

func to(sink string, priority uint8) store.Entry {
	return store.Entry{Sink: sink, Priority: priority}
}

func mustAppend(t *testing.T, s *store.Store, recs ...store.Record) {
	t.Helper()
	if err := s.Queue().Append(t.Context(), recs...); err != nil {
		t.Fatalf("append: %v", err)
	}
}

func mustPeek(t *testing.T, s *store.Store, sink string, after store.Cursor, most int) ([]store.Item, store.Cursor) {
	t.Helper()
	items, next, err := s.Queue().Peek(sink, after, most, 0)
	if err != nil {
		t.Fatalf("peek %s: %v", sink, err)
	}
	return items, next
}

func bodies(items []store.Item) string {
	var all []string
	for _, item := range items {
		all = append(all, string(item.Body))
	}
	return strings.Join(all, " ")
}

func TestDeliveryIsByPriorityThenAge(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Config{})
	mustAppend(t, s,
		record("c", to("x", 10)), record("a", to("x", 0)), record("d", to("x", 10), to("y", 3)),
		record("b", to("x", 5)), record("e", to("y", 3), to("y", 3)))
	if got, want := strings.Join(storetest.Bodies(t, s, "x"), " "), "a b c d"; got != want {
		t.Errorf("sink x: got %q, want %q", got, want)
	}
	if got, want := strings.Join(storetest.Bodies(t, s, "y"), " "), "d e"; got != want {
		t.Errorf("sink y: got %q, want %q", got, want)
	}
	if got := storetest.Bodies(t, s, "z"); len(got) > 0 {
		t.Errorf("sink z: got %q, want nothing", got)
	}
}

func TestCursorReadsAheadAndMeetsWhatIsMoreUrgent(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Config{})
	mustAppend(t, s, record("1", to("x", 5)), record("2", to("x", 5)), record("3", to("x", 5)))
	first, at := mustPeek(t, s, "x", store.Cursor{}, 2)
	mustAppend(t, s, record("urgent", to("x", 0)))
	second, at := mustPeek(t, s, "x", at, 9)
	if got, want := bodies(first)+"|"+bodies(second), "1 2|urgent 3"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if more, _ := mustPeek(t, s, "x", at, 9); len(more) > 0 {
		t.Errorf("behind the end: got %q, want nothing", bodies(more))
	}
	if err := s.Queue().Ack("x", first[1], second[0]); err != nil {
		t.Fatal(err)
	}
	again, _ := mustPeek(t, s, "x", store.Cursor{}, 9)
	if got, want := bodies(again), "1 3"; got != want {
		t.Errorf("from the head: got %q, want what is not acknowledged, %q", got, want)
	}
}

func TestPeekKeepsItsLimits(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		most, bytes int
		want        string
	}{
		"a count":                        {most: 2, want: "aaaa bb"},
		"bytes":                          {most: 9, bytes: 7, want: "aaaa bb"},
		"bytes to the brim":              {most: 9, bytes: 10, want: "aaaa bb cccc"},
		"one item however large":         {most: 9, bytes: 1, want: "aaaa"},
		"no limit of bytes":              {most: 9, want: "aaaa bb cccc"},
		"a count below one means one":    {most: -1, want: "aaaa"},
		"a higher count than there are":  {most: 1 << 30, want: "aaaa bb cccc"},
		"a lower priority is not pulled": {most: 9, bytes: 6, want: "aaaa bb"},
	}
	s := storetest.Open(t, store.Config{})
	mustAppend(t, s, record("aaaa", to("x", 1)), record("bb", to("x", 1)), record("cccc", to("x", 2)))
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			items, _, err := s.Queue().Peek("x", store.Cursor{}, tt.most, tt.bytes)
			if got := bodies(items); err != nil || got != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestAcknowledgedStaysAcknowledgedAfterClose(t *testing.T) {
	t.Parallel()
	cfg := store.Config{Dir: t.TempDir()}
	s, stop := storetest.Start(t, cfg)
	for i := range 10 {
		mustAppend(t, s, record(fmt.Sprint(i), to("x", 3), to("y", 0)))
	}
	items, _ := mustPeek(t, s, "x", store.Cursor{}, 5)
	if err := s.Queue().Ack("x", items[4], items[0], items[1], items[1]); err != nil {
		t.Fatal(err)
	}
	stop()

	s, _ = storetest.Start(t, cfg)
	if got, want := strings.Join(storetest.Bodies(t, s, "x"), " "), "2 3 4 5 6 7 8 9"; got != want {
		t.Errorf("got %q, want %q: the prefix is remembered, what is ahead of it comes again", got, want)
	}
	if got := len(storetest.Bodies(t, s, "y")); got != 10 {
		t.Errorf("the other sink: got %d messages, want 10", got)
	}
	mustAppend(t, s, record("new", to("x", 3)))
	if got := storetest.Bodies(t, s, "x"); got[len(got)-1] != "new" {
		t.Errorf("got %q, want the new message last", got)
	}
}

func TestStatsCountWhatWaits(t *testing.T) {
	t.Parallel()
	cfg := store.Config{Dir: t.TempDir()}
	s, stop := storetest.Start(t, cfg)
	before := time.Now().Add(-time.Second)
	mustAppend(t, s, record("12345", to("x", 3), to("y", 0)), record("123", to("x", 3)))
	items, _ := mustPeek(t, s, "x", store.Cursor{}, 1)
	if err := s.Queue().Ack("x", items...); err != nil {
		t.Fatal(err)
	}
	want := []store.SinkStats{{Sink: "x", Priority: 3, Messages: 1, Bytes: 3}, {Sink: "y", Messages: 1, Bytes: 5}}
	check := func() {
		t.Helper()
		got := s.Queue().Stats()
		for i := range got {
			if got[i].Oldest.Before(before) || got[i].Oldest.After(time.Now()) {
				t.Errorf("oldest: got %s, want about now", got[i].Oldest)
			}
			got[i].Oldest = time.Time{}
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		if u := s.Usage(); u.Pending != 8 || u.Segments != 1 {
			t.Errorf("usage: got %d bytes in %d segments, want 8 in 1", u.Pending, u.Segments)
		}
	}
	check()
	stop()
	s, _ = storetest.Start(t, cfg)
	check()
}

func TestPurgeIsDurableAndCounted(t *testing.T) {
	t.Parallel()
	cfg := store.Config{Dir: t.TempDir()}
	s, stop := storetest.Start(t, cfg)
	for i := range 6 {
		mustAppend(t, s, record(fmt.Sprint(i), to("x", uint8(i%2)), to("y", 0)))
	}
	items, _ := mustPeek(t, s, "x", store.Cursor{}, 2)
	if n, err := s.Queue().Purge(t.Context(), "x"); n != 6 || err != nil {
		t.Errorf("got %d, %v, want 6 messages", n, err)
	}
	if err := s.Queue().Ack("x", items...); err != nil { // they were in flight
		t.Error(err)
	}
	mustAppend(t, s, record("later", to("x", 0)))
	stop()
	s, _ = storetest.Start(t, cfg)
	if got := storetest.Bodies(t, s, "x"); !slices.Equal(got, []string{"later"}) {
		t.Errorf("got %q, want only what came later", got)
	}
	if got := len(storetest.Bodies(t, s, "y")); got != 6 {
		t.Errorf("the other sink: got %d messages, want 6", got)
	}
	if got := s.Queue().Stats()[0]; got.Purged != 3 || got.Messages != 1 {
		t.Errorf("got %+v, want 3 purged and 1 left", got)
	}
}

func TestReadyNeverMissesAMessage(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Config{})
	const messages = 2000
	go func() {
		for i := range messages {
			s.Queue().Enqueue(record(fmt.Sprint(i), to("x", uint8(i%11))), nil)
		}
	}()
	ready := s.Queue().Ready("x")
	var at store.Cursor
	for got := 0; got < messages; {
		items, next := mustPeek(t, s, "x", at, 7)
		if len(items) == 0 {
			select {
			case <-ready:
			case <-t.Context().Done():
				t.Fatalf("no token came and %d of %d messages did", got, messages)
			}
			continue
		}
		got += len(items)
		if err := s.Queue().Ack("x", items...); err != nil {
			t.Fatal(err)
		}
		at = next
	}
}

func TestReadyHasATokenForABacklog(t *testing.T) {
	t.Parallel()
	cfg := store.Config{Dir: t.TempDir()}
	s, stop := storetest.Start(t, cfg)
	mustAppend(t, s, record("a", to("x", 0)))
	stop()
	s, _ = storetest.Start(t, cfg)
	select {
	case <-s.Queue().Ready("x"):
	default:
		t.Error("got no token after a restart with a backlog")
	}
	select {
	case <-s.Queue().Ready("y"):
		t.Error("got a token for a sink without messages")
	default:
	}
}

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

func TestAReaderThatNeverAcknowledgesIsHeldBack(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Config{})
	recs := make([]store.Record, 5000)
	for i := range recs {
		recs[i] = record(fmt.Sprint(i), to("x", 0))
	}
	mustAppend(t, s, recs...)
	var at store.Cursor
	var all []store.Item
	for {
		items, next := mustPeek(t, s, "x", at, 1000)
		if len(items) == 0 {
			break
		}
		all, at = append(all, items...), next
	}
	if len(all) != 4096 {
		t.Fatalf("got %d items without an acknowledgement, want 4096", len(all))
	}
	if err := s.Queue().Ack("x", all[2000:]...); err != nil {
		t.Fatal(err)
	}
	items, _ := mustPeek(t, s, "x", at, 1000)
	if len(items) == 0 || string(items[0].Body) != "4096" {
		t.Errorf("after acknowledgements: got %d items, want message 4096 and on", len(items))
	}
}

// Everything at once, for the race detector.
func TestManyAtOnceLoseAndDoubleNothing(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Config{MaxBytes: 64 << 20})
	const producers, each = 6, 400
	sinks := []string{"x", "y"}
	var producing, consuming sync.WaitGroup
	for p := range producers {
		producing.Go(func() {
			for i := range each {
				body := fmt.Sprintf("%d %04d %s", p, i, strings.Repeat(".", i%7*300))
				if err := s.Queue().Append(t.Context(), record(body, to("x", uint8(p)), to("y", 4))); err != nil {
					t.Error(err)
				}
				if err := s.Docs().Put(t.Context(), fmt.Sprintf("doc/%d", p), []byte(body)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, sink := range sinks {
		consuming.Go(func() {
			last := map[byte]string{}
			var at store.Cursor
			for got := 0; got < producers*each; {
				items, next, err := s.Queue().Peek(sink, at, 16, 1<<16)
				if err != nil {
					t.Error(err)
					return
				}
				if len(items) == 0 {
					<-s.Queue().Ready(sink)
				}
				for _, item := range items {
					if p := item.Body[0]; last[p] >= string(item.Body[:6]) {
						t.Errorf("%s: %q came behind %q", sink, item.Body[:6], last[p])
					} else {
						last[p] = string(item.Body[:6])
					}
				}
				slices.Reverse(items)
				if err := s.Queue().Ack(sink, items...); err != nil {
					t.Error(err)
				}
				got, at = got+len(items), next
				s.Queue().Stats()
				s.Usage()
			}
		})
	}
	producing.Wait()
	consuming.Wait()
	for _, sink := range sinks {
		if got := storetest.Bodies(t, s, sink); len(got) > 0 {
			t.Errorf("%s: %d messages are left, want 0", sink, len(got))
		}
	}
}

func TestCursorsAreOnDiskAfterTwoSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := store.Config{Dir: t.TempDir()}
		s, stop := storetest.Start(t, cfg)
		mustAppend(t, s, record("a", to("x", 0)), record("b", to("x", 0)))
		items, _ := mustPeek(t, s, "x", store.Cursor{}, 1)
		before := s.Usage().Commits
		if err := s.Queue().Ack("x", items...); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := s.Usage().Commits - before; got != 0 {
			t.Errorf("at once: got %d commits, want 0", got)
		}
		<-time.After(2*time.Second + time.Millisecond)
		synctest.Wait()
		if got := s.Usage().Commits - before; got != 1 {
			t.Errorf("after two seconds: got %d commits, want 1", got)
		}
		stop()
	})
}

// Field report Azure/iotedge#3982 and promise 1: a wrong clock loses nothing.
func TestTimeToLiveCountsTimeSwitchedOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := store.Config{Dir: t.TempDir(), MaxBytes: 64 << 20}
		live := func(sink string) store.Entry { return store.Entry{Sink: sink, TTL: time.Hour} }
		s, stop := storetest.Start(t, cfg)
		mustAppend(t, s, record("short", live("x")), record("ever", to("x", 0)))
		<-time.After(40 * time.Minute)
		mustAppend(t, s, record("later", live("x"), live("y")))
		stop()
		<-time.After(365 * 24 * time.Hour) // switched off

		s, stop = storetest.Start(t, cfg)
		if got, want := strings.Join(storetest.Bodies(t, s, "x"), " "), "short ever later"; got != want {
			t.Errorf("after a year switched off: got %q, want %q", got, want)
		}
		<-time.After(21 * time.Minute)
		if got, want := strings.Join(storetest.Bodies(t, s, "x"), " "), "ever later"; got != want {
			t.Errorf("after 61 minutes switched on: got %q, want %q", got, want)
		}
		<-time.After(42 * time.Minute)
		if got, want := strings.Join(storetest.Bodies(t, s, "x"), " "), "ever"; got != want {
			t.Errorf("after 103 minutes switched on: got %q, want %q", got, want)
		}
		synctest.Wait()
		stats := s.Queue().Stats()
		if got := []uint64{stats[0].Expired, stats[1].Expired}; !slices.Equal(got, []uint64{2, 1}) {
			t.Errorf("expired: got %v, want [2 1], the second without anybody reading", got)
		}
		stop()
	})
}
