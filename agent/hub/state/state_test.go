package state

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"
)

// open starts a state in a directory and runs it until the test ends or stop is called.
func open(t *testing.T, cfg Config) (s *State, stop func()) {
	t.Helper()
	if cfg.Hub == "" {
		cfg.Hub = "testhub"
	}
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ended, s.Close()); err != nil {
			t.Errorf("end state: %v", err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}

func TestDocumentsChangeTogetherOrNotAtAll(t *testing.T) {
	t.Parallel()
	s, _ := open(t, Config{})
	docs, ctx := s.Docs(), t.Context()
	id, svc := Key{Device: "edge1", Kind: KindIdentity}, Key{Device: "edge1", Kind: KindService}

	revisions, err := docs.Change(ctx, Put{Key: id, Value: []byte("a")}, Put{Key: svc, Value: []byte("b")})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []Doc{{Key: id, Value: []byte("a")}, {Key: svc, Value: []byte("b")}} {
		got, err := docs.Get(ctx, want.Key)
		if err != nil || string(got.Value) != string(want.Value) || got.Revision != revisions[i] {
			t.Errorf("Get(%s): got %q revision %d, %v, want %q revision %d", want.Key, got.Value, got.Revision, err, want.Value, revisions[i])
		}
	}

	_, err = docs.Change(ctx, Put{Key: id, Expect: revisions[0], Value: []byte("c")}, Put{Key: svc, Expect: 99, Value: []byte("d")})
	if !errors.Is(err, ErrConflict) {
		t.Errorf("Change with one stale revision: got %v, want %v", err, ErrConflict)
	}
	if got, err := docs.Get(ctx, id); err != nil || string(got.Value) != "a" {
		t.Errorf("after a conflict: got %q, %v, want %q", got.Value, err, "a")
	}
}

func TestADeletedDocumentCanBeCreatedAnew(t *testing.T) {
	t.Parallel()
	s, _ := open(t, Config{})
	docs, ctx := s.Docs(), t.Context()
	key := Key{Device: "edge1", Name: "$edgeAgent", Kind: KindIdentity}
	first, err := docs.Change(ctx, Put{Key: key, Value: []byte("a")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := docs.Change(ctx, Put{Key: key, Expect: first[0]}); err != nil {
		t.Fatal(err)
	}
	gone, err := docs.Get(ctx, key)
	if err != nil || gone.Exists() || gone.Revision <= first[0] {
		t.Errorf("after the deletion: got %+v, %v, want an absent document with a newer revision", gone, err)
	}
	if _, err := docs.Change(ctx, Put{Key: key, Value: []byte("b")}); !errors.Is(err, ErrConflict) {
		t.Errorf("creation expecting 0 over a deletion: got %v, want %v", err, ErrConflict)
	}
	if _, err := docs.Change(ctx, Put{Key: key, Expect: gone.Revision, Value: []byte("b")}); err != nil {
		t.Errorf("creation expecting the deletion: got %v", err)
	}
}

func TestImpossibleChangesAreRefused(t *testing.T) {
	t.Parallel()
	s, _ := open(t, Config{})
	docs := s.Docs()
	key := Key{Device: "a", Kind: KindIdentity}
	other := key
	for i := range 100 { // find a device of another shard
		other.Device = "b" + strconv.Itoa(i)
		if docs.Shard(other.Device) != docs.Shard(key.Device) {
			break
		}
	}
	tests := map[string][]Put{
		"none":           nil,
		"a key twice":    {{Key: key, Value: []byte("1")}, {Key: key, Value: []byte("2")}},
		"two shards":     {{Key: key, Value: []byte("1")}, {Key: other, Value: []byte("2")}},
		"far too many":   make([]Put, changeMessages+1),
		"hub and device": {{Key: key, Value: []byte("1")}, {Key: Key{Kind: KindPolicy, Name: "p"}, Value: []byte("2")}},
	}
	for name, puts := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := docs.Change(t.Context(), puts...); !errors.Is(err, ErrChange) {
				t.Errorf("got %v, want %v", err, ErrChange)
			}
		})
	}
}

// Many writers of few keys: every compare-and-set that was answered with success counts exactly once.
func TestConcurrentChangesLoseNothing(t *testing.T) {
	t.Parallel()
	s, _ := open(t, Config{})
	docs, ctx := s.Docs(), t.Context()
	const writers, rounds, keys = 32, 20, 3
	var g sync.WaitGroup
	for w := range writers {
		g.Go(func() {
			for r := range rounds {
				key := Key{Device: "edge1", Name: fmt.Sprint((w + r) % keys), Kind: KindReported}
				for {
					doc, err := docs.Get(ctx, key)
					if err != nil {
						t.Error(err)
						return
					}
					n, _ := strconv.Atoi(string(doc.Value))
					_, err = docs.Change(ctx, Put{Key: key, Expect: doc.Revision, Value: []byte(strconv.Itoa(n + 1))})
					if err == nil {
						break
					}
					if !errors.Is(err, ErrConflict) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	g.Wait()
	total := 0
	for k := range keys {
		doc, err := docs.Get(ctx, Key{Device: "edge1", Name: fmt.Sprint(k), Kind: KindReported})
		if err != nil {
			t.Fatal(err)
		}
		n, _ := strconv.Atoi(string(doc.Value))
		total += n
	}
	if total != writers*rounds {
		t.Errorf("sum of counters: got %d, want %d", total, writers*rounds)
	}
}

func TestLeaderAndDirectReadsAgree(t *testing.T) {
	t.Parallel()
	s, _ := open(t, Config{})
	docs, ctx := s.Docs(), t.Context()
	leader := *docs
	leader.leader = true
	there, gone := Key{Device: "a", Kind: KindIdentity}, Key{Device: "a", Kind: KindService}
	revisions, err := docs.Change(ctx, Put{Key: there, Value: []byte("1")}, Put{Key: gone, Value: []byte("2")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := docs.Change(ctx, Put{Key: gone, Expect: revisions[1]}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []Key{there, gone, {Device: "b", Kind: KindIdentity}} {
		direct, err1 := docs.Get(ctx, key)
		led, err2 := leader.Get(ctx, key)
		if err1 != nil || err2 != nil || string(direct.Value) != string(led.Value) || direct.Revision != led.Revision || direct.Exists() != led.Exists() {
			t.Errorf("%s: direct %+v, %v; leader %+v, %v", key, direct, err1, led, err2)
		}
	}
}

func TestAWatchShowsWhatIsThereThenWhatChanges(t *testing.T) {
	t.Parallel()
	s, _ := open(t, Config{})
	docs := s.Docs()
	device, module := Key{Device: "edge1", Kind: KindService}, Key{Device: "edge1", Name: "m", Kind: KindService}
	put := func(key Key, expect uint64, value string) uint64 {
		revisions, err := docs.Change(t.Context(), Put{Key: key, Expect: expect, Value: []byte(value)})
		if err != nil {
			t.Fatal(err)
		}
		return revisions[0]
	}
	first := put(device, 0, "1")
	put(Key{Device: "edge1", Kind: KindReported}, 0, "not watched")

	ctx, cancel := context.WithCancel(t.Context())
	ready, seen, ended := make(chan struct{}), make(chan Doc, 16), make(chan error, 1)
	go func() {
		ended <- docs.Watch(ctx, docs.Shard("edge1"), []string{KindIdentity, KindService}, func() { close(ready) }, func(d Doc) { seen <- d })
	}()
	<-ready
	// One at a time: a reader may be shown the newest revision only.
	next := func(want string) {
		d := <-seen
		got := d.Key.String() + "=" + string(d.Value)
		if !d.Exists() {
			got = d.Key.String() + " deleted"
		}
		if got != want {
			t.Errorf("watch: got %q, want %q", got, want)
		}
	}
	next("edge1.svc=1")
	put(module, 0, "2")
	next("edge1.m.m.svc=2")
	second := put(device, first, "3")
	next("edge1.svc=3")
	if _, err := docs.Change(t.Context(), Put{Key: device, Expect: second}); err != nil {
		t.Fatal(err)
	}
	next("edge1.svc deleted")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("end of the watch: got %v, want %v", err, context.Canceled)
	}
}

func TestStateSurvivesReopening(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, stop := open(t, Config{Dir: dir})
	key := Key{Device: "edge1", Kind: KindIdentity}
	if _, err := s.Docs().Change(t.Context(), Put{Key: key, Value: []byte("a")}); err != nil {
		t.Fatal(err)
	}
	stop()
	s, _ = open(t, Config{Dir: dir})
	if got, err := s.Docs().Get(t.Context(), key); err != nil || string(got.Value) != "a" {
		t.Errorf("after reopening: got %q, %v, want %q", got.Value, err, "a")
	}
}

func TestADirectoryIsOpenedOnceAndByItsOwnHub(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, stop := open(t, Config{Dir: dir})
	if _, err := Open(t.Context(), Config{Hub: "testhub", Dir: dir}); !errors.Is(err, ErrInUse) {
		t.Errorf("second process: got %v, want %v", err, ErrInUse)
	}
	stop()
	if _, err := Open(t.Context(), Config{Hub: "another", Dir: dir}); !errors.Is(err, ErrOtherHub) {
		t.Errorf("another hub: got %v, want %v", err, ErrOtherHub)
	}
	if _, err := Open(t.Context(), Config{Hub: "testhub", Dir: dir, Shards: 8}); !errors.Is(err, ErrShards) {
		t.Errorf("other shards: got %v, want %v", err, ErrShards)
	}
	_, stop = open(t, Config{Dir: dir})
	stop()
}

func TestAFullDiskRefusesWritesAndSaysSo(t *testing.T) {
	t.Parallel()
	s, _ := open(t, Config{MinFree: 1 << 60})
	if err := s.Writable(); !errors.Is(err, ErrDiskFull) {
		t.Errorf("Writable: got %v, want %v", err, ErrDiskFull)
	}
	if _, err := s.Docs().Change(t.Context(), Put{Key: Key{Device: "a", Kind: KindIdentity}, Value: []byte("1")}); !errors.Is(err, ErrDiskFull) {
		t.Errorf("Change: got %v, want %v", err, ErrDiskFull)
	}
	stored := make(chan error, 1)
	if err := s.Log().Appender().Append(t.Context(), Event{Device: "a", Kind: EventTelemetry}, func(err error) { stored <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-stored; !errors.Is(err, ErrDiskFull) {
		t.Errorf("Append: got %v, want %v", err, ErrDiskFull)
	}
}

func TestPresenceTheNewestClaimWins(t *testing.T) {
	t.Parallel()
	s, _ := open(t, Config{})
	p, ctx := s.Presence(), t.Context()
	if _, ok, err := p.Get(ctx, "edge1", "m"); ok || err != nil {
		t.Errorf("before any claim: got %v, %v", ok, err)
	}
	first, previous, err := p.Claim(ctx, "edge1", "m", Owner{Replica: "r1", Since: time.Unix(1, 0).UTC()})
	if err != nil || previous.Replica != "" {
		t.Fatalf("first claim: got previous %+v, %v", previous, err)
	}
	second, previous, err := p.Claim(ctx, "edge1", "m", Owner{Replica: "r2"})
	if err != nil || previous != first || second.Generation <= first.Generation {
		t.Errorf("second claim: got %+v over %+v, %v, want it over %+v", second, previous, err, first)
	}
	if stood, err := p.Release(ctx, "edge1", "m", first); stood || err != nil {
		t.Errorf("late release of the first claim: got %v, %v, want it ignored", stood, err)
	}
	if got, ok, err := p.Get(ctx, "edge1", "m"); !ok || err != nil || got != second {
		t.Errorf("owner: got %+v, %v, %v, want %+v", got, ok, err, second)
	}
	if stood, err := p.Release(ctx, "edge1", "m", second); !stood || err != nil {
		t.Errorf("release: got %v, %v", stood, err)
	}
	type answer struct {
		owner Owner
		err   error
	}
	waiting := make(chan answer, 1)
	go func() {
		owner, err := p.Await(ctx, "edge1", "m", 0)
		waiting <- answer{owner, err}
	}()
	third, _, err := p.Claim(ctx, "edge1", "m", Owner{Replica: "r1"})
	if err != nil || third.Generation <= second.Generation {
		t.Errorf("third claim: got %+v, %v, want a generation above %d", third, err, second.Generation)
	}
	if got := <-waiting; got.err != nil || got.owner != third {
		t.Errorf("Await: got %+v, want %+v", got, third)
	}
}

func TestTheBusAnswersOrSaysNobodyIsThere(t *testing.T) {
	t.Parallel()
	s, _ := open(t, Config{})
	if _, err := s.Bus().Ask(t.Context(), "r.nobody", []byte("?")); !errors.Is(err, ErrNobody) {
		t.Errorf("Ask without a server: got %v, want %v", err, ErrNobody)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- s.Bus().Serve(ctx, "r.one", func(_ context.Context, q []byte) []byte { return append([]byte("re: "), q...) })
	}()
	for {
		got, err := s.Bus().Ask(t.Context(), "r.one", []byte("hello"))
		if errors.Is(err, ErrNobody) {
			continue // not subscribed yet
		}
		if err != nil || string(got) != "re: hello" {
			t.Errorf("Ask: got %q, %v, want %q", got, err, "re: hello")
		}
		break
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("end of Serve: got %v, want %v", err, context.Canceled)
	}
}
