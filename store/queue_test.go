package store_test

import (
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
