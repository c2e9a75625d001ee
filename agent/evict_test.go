package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/agent/route"
	"github.com/sandpiper-edge/sandpiper/store"
)

func TestAFullStoreKeepsTheNewestOfEachKeyOfTheRouteThatSaysSo(t *testing.T) {
	t.Parallel()
	s, err := store.Open(store.Config{Dir: t.TempDir(), MaxBytes: 8 << 20, MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(context.Background()) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-ended); err != nil {
			t.Error(err)
		}
	})
	up, err := route.Parse("FROM /messages/* INTO $upstream")
	if err != nil {
		t.Fatal(err)
	}
	rules := []route.Rule{{Name: "up", Route: up, Priority: route.Lowest, Terms: route.Terms{Eviction: route.Eviction{Key: "sensor"}}}}
	e := &evictor{
		queue: s.Queue(), usage: s.Usage, rules: func() []route.Rule { return rules }, logger: slog.New(slog.DiscardHandler),
		evicted: map[string]uint64{},
	}
	put := func(n int, bag iothub.Bag, priority uint8) error {
		m, err := message.FromPublish(iothub.ID{Device: "edge1", Module: "m"}, append(bag, iothub.Property{Key: "n", Value: fmt.Sprint(n)}), make([]byte, 100<<10), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return s.Queue().Append(t.Context(), store.Record{Body: m.Append(nil), Entries: []store.Entry{{Sink: "upstream/m", Priority: priority}}})
	}
	stored := 0
	for ; err == nil; stored++ { // the first has no key, every other one is of one of three sensors
		var bag iothub.Bag
		if stored > 0 {
			bag = iothub.Bag{{Key: "sensor", Value: fmt.Sprint(stored % 3)}}
		}
		err = put(stored, bag, route.Lowest)
	}
	if stored--; !errors.Is(err, store.ErrFull) || stored < 10 || !s.Usage().Full {
		t.Fatalf("got %d stored and %v, want a full store", stored, err)
	}
	n, err := e.makeRoom(t.Context())
	if err != nil || n != stored-4 || e.count("upstream/m 10") != uint64(n) {
		t.Fatalf("got %d evicted, %v, %d counted, want all but four of %d", n, err, e.count("upstream/m 10"), stored)
	}
	items, _, err := s.Queue().Peek("upstream/m", store.Cursor{}, 100, 0)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, it := range items {
		m, err := message.Decode(it.Body)
		if err != nil {
			t.Fatal(err)
		}
		n, _ := m.Bag.Get("n")
		left = append(left, n)
	}
	want := []string{"0", fmt.Sprint(stored - 3), fmt.Sprint(stored - 2), fmt.Sprint(stored - 1)}
	if !slices.Equal(left, want) {
		t.Errorf("got %q left, want %q: the one without a key and the newest of each", left, want)
	}
	if n, err := e.makeRoom(t.Context()); n != 0 || err != nil {
		t.Errorf("again: got %d, %v, want nothing", n, err)
	}
	// A route that lets the oldest go: the lowest priority first, whatever its age.
	rules[0].Terms.Eviction = route.Eviction{OldestFirst: true}
	rules = append(rules, route.Rule{Name: "hot", Route: up, Priority: 2, Terms: route.Terms{Eviction: route.Eviction{OldestFirst: true}}})
	if err := put(1000, nil, 2); err != nil && !errors.Is(err, store.ErrFull) {
		t.Fatal(err)
	}
	if n, err := e.makeRoom(t.Context()); err != nil || n < 4 {
		t.Fatalf("oldest first: got %d evicted, %v, want the four of the lowest priority at least", n, err)
	}
	if got := e.count("upstream/m 10"); got != uint64(stored) {
		t.Errorf("got %d of the lowest priority evicted, want all %d before a better one", got, stored)
	}
	rules = nil
	if err := put(1001, nil, 5); err != nil {
		t.Errorf("there is room now: got %v", err)
	}
	if n, err := e.makeRoom(t.Context()); n != 0 || err != nil {
		t.Errorf("no route lets anything go: got %d, %v", n, err)
	}
}

func TestKeysThatAModuleMakesUpTakeNoSpaceWithoutBound(t *testing.T) {
	t.Parallel()
	var known newest
	found, most := 0, 0
	for i := range uint64(100_000) {
		if _, there := known.replace(fmt.Sprintf("%0200d", i), store.Item{Seq: i}); there {
			t.Fatalf("key %d was there", i)
		}
		if _, there := known.replace("often", store.Item{Seq: i}); there {
			found++
		}
		most = max(most, len(known.seen))
	}
	if limit := newestMost / newestEntry; most > limit || found < 99_000 {
		t.Errorf("got up to %d keys remembered, want at most %d; %d pairs found, want nearly all of 100000", most, limit, found)
	}
}
