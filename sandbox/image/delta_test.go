package image

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

func TestTier1FetchesOnlyChunksThatAreNotHere(t *testing.T) {
	t.Parallel()
	old, next := three(t).of[1], three(t).of[2]
	w := newWeb(map[string][]byte{"2.spb": next})
	base, s := w.on(t, nil)
	install(t, s, old)
	img, err := s.Fetch(t.Context(), base+"2.spb", "", nil)
	verified(t, s, img, err)
	t.Logf("%d of %d bytes in %d requests", w.total(), len(next), w.requests["2.spb"])
	if got, most := w.total(), int64(len(next)/8); got > most {
		t.Errorf("%d bytes came over the network, want at most %d", got, most)
	}
}

func TestTier1TakesChunksOfAnyModuleAndAnyAge(t *testing.T) {
	t.Parallel()
	next := release(t, 4)
	w := newWeb(map[string][]byte{"4.spb": next})
	base, s := w.on(t, nil)
	install(t, s, three(t).of[1])
	install(t, s, three(t).of[3])
	install(t, s, bundletest.Build(t, bundletest.Options{
		Files:    map[string]string{"other": string(noise(1500<<10, 5))},
		Manifest: func(m *bundle.Manifest) { m.Name = "other" },
	}))
	img, err := s.Fetch(t.Context(), base+"4.spb", "", nil)
	verified(t, s, img, err)
	if got, most := w.total(), int64(len(next)/8); got > most {
		t.Errorf("%d bytes came over the network, want at most %d", got, most)
	}
}

func TestTier1OverAServerWithoutRangesIsOneStream(t *testing.T) {
	t.Parallel()
	next := three(t).of[2]
	var requests atomic.Int32
	url, s := server(t, func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.Header().Set("Content-Length", fmt.Sprint(len(next)))
		_, _ = w.Write(next)
	}, nil)
	install(t, s, three(t).of[1])
	img, err := s.Fetch(t.Context(), url, "", nil)
	verified(t, s, img, err)
	if n := requests.Load(); n > 2 { // one of them asks for a delta
		t.Errorf("%d requests, want the bundle in one", n)
	}
}

func TestTier2TakesADeltaWhereThereIsOne(t *testing.T) {
	t.Parallel()
	r := three(t)
	old, next := r.of[1], r.of[2]
	name, spd := r.deltas[[2]int{1, 2}].name, r.deltas[[2]int{1, 2}].spd
	w := newWeb(map[string][]byte{"2.spb": next, name: spd})
	base, s := w.on(t, nil)
	install(t, s, old)
	img, err := s.Fetch(t.Context(), base+"2.spb", "", nil)
	verified(t, s, img, err)
	t.Logf("delta of %d bytes, %d bytes of %d in all", len(spd), w.total(), len(next))
	if w.requests[name] != 1 || w.bytes["2.spb"] > firstBytes {
		t.Errorf("the delta was asked for %d times and %d bytes of the bundle came, want once and its start", w.requests[name], w.bytes["2.spb"])
	}
}

func TestG4G5DeltasThatAreNotRightCostTheirBytesAndNothingElse(t *testing.T) {
	t.Parallel()
	r := three(t)
	old, next := r.of[1], r.of[2]
	name := r.deltas[[2]int{1, 2}].name
	for what, b := range badDeltas(t) {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWeb(map[string][]byte{"2.spb": next, name: b})
			base, s := w.on(t, nil)
			install(t, s, old)
			img, err := s.Fetch(t.Context(), base+"2.spb", "", nil)
			verified(t, s, img, err)
			if w.requests[name] != 1 {
				t.Errorf("the delta was asked for %d times, want once", w.requests[name])
			}
		})
	}
}

func TestDeltaLargerThanTheChunksIsNotFetched(t *testing.T) {
	t.Parallel()
	r := three(t)
	old, next, name := r.of[1], r.of[2], r.deltas[[2]int{1, 2}].name
	w := newWeb(map[string][]byte{"2.spb": next, name: noise(8<<20, 1)})
	base, s := w.on(t, nil)
	install(t, s, old)
	img, err := s.Fetch(t.Context(), base+"2.spb", "", nil)
	verified(t, s, img, err)
	if got := w.total() - w.bytes[name]; got > int64(len(next)/8) {
		t.Errorf("%d bytes of the bundle came, want a few chunks", got)
	}
}

func TestG5RottenDonorCostsBytesOnly(t *testing.T) {
	t.Parallel()
	r := three(t)
	old, next := r.of[1], r.of[2]
	name, spd := r.deltas[[2]int{1, 2}].name, r.deltas[[2]int{1, 2}].spd
	for what, files := range map[string]map[string][]byte{"chunks": {"2.spb": next}, "delta": {"2.spb": next, name: spd}} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWeb(files)
			base, s := w.on(t, nil)
			img := install(t, s, old)
			rot(t, s, img, 700<<10)
			img, err := s.Fetch(t.Context(), base+"2.spb", "", nil)
			verified(t, s, img, err)
		})
	}
}

// TestCutsAtRandomBytesOverRestartsCostATenth cuts 20 transfers at a random byte, every second one with a new agent after it.
func TestCutsAtRandomBytesOverRestartsCostATenth(t *testing.T) {
	t.Parallel()
	r := three(t)
	old, next := r.of[1], r.of[2]
	large := bundletest.Build(t, bundletest.Options{ // whose delta is more than what a connection costs
		Files:    map[string]string{"b/data": string(noise(600<<10, 5)), "new": string(noise(150<<10, 9))},
		Manifest: func(m *bundle.Manifest) { m.Sequence = 2 },
	})
	name, spd := deltaBetween(t, old, large)
	for what, tc := range map[string]struct {
		before []byte
		files  map[string][]byte
	}{
		"whole": {nil, map[string][]byte{"2.spb": next}},
		"tier1": {old, map[string][]byte{"2.spb": next}},
		"tier2": {old, map[string][]byte{"2.spb": large, name: spd}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(8, uint64(len(what))))
			run := func(cut int64, restart bool) int64 {
				w := newWeb(tc.files)
				base, s := w.on(t, nil)
				if tc.before != nil {
					install(t, s, tc.before)
				}
				ctx, end := context.WithCancel(t.Context())
				defer end()
				w.cut = func(string) (int, func()) {
					var sum int64
					for _, n := range w.bytes {
						sum += n
					}
					if cut == 0 || cut < sum {
						return -1, nil
					}
					n := int(cut - sum)
					return n, func() {
						w.mu.Lock()
						cut = 0
						w.mu.Unlock()
						if restart {
							end()
						}
					}
				}
				for {
					img, err := s.Fetch(ctx, base+"2.spb", "", nil)
					if ctx.Err() == nil {
						verified(t, s, img, err)
						return w.read.Load()
					}
					if err == nil {
						return w.read.Load() // the cut came too late
					}
					cfg := s.cfg
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					s = reopen(t, cfg, nil)
					ctx = t.Context() //nolint:fatcontext // the next agent's life
				}
			}
			whole := run(0, false)
			var sum int64
			const rounds = 20
			for i := range rounds {
				sum += run(1+random.Int64N(whole*9/10), i%2 == 0)
			}
			t.Logf("%d bytes in one run, %d on average with a cut", whole, sum/rounds)
			if sum > whole*rounds*11/10 {
				t.Errorf("%d bytes on average with a cut, want at most a tenth more than %d", sum/rounds, whole)
			}
		})
	}
}

func TestA7WrongChunkIsFetchedFromAnotherMirrorFirst(t *testing.T) {
	t.Parallel()
	spb := big(t, nil)
	bad := clone(spb)
	bad[len(bad)/2] ^= 1
	for what, first := range map[string][]byte{"a flipped bit": bad, "gone": nil, "a page": []byte("<html>  </html>  <!-- a page of more bytes than a header -->"), "cut short": spb[:len(spb)/2], "unsigned": unsigned(t, spb)} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			one, two := newWeb(map[string][]byte{"x.spb": first}), newWeb(map[string][]byte{"x.spb": spb})
			if first == nil {
				delete(one.files, "x.spb")
			}
			mirror := httptest.NewTLSServer(two)
			t.Cleanup(mirror.Close)
			base, s := one.on(t, nil)
			s.cfg.Mirrors = Mirrors{{Prefix: base, URLs: []string{mirror.URL + "/copies/"}}}
			img, err := s.Fetch(t.Context(), base+"x.spb", "", nil)
			verified(t, s, img, err)
			if what == "a flipped bit" && two.total() > int64(len(spb)*6/10) {
				t.Errorf("%d bytes came from the mirror, want those from the wrong chunk on", two.total())
			}
		})
	}
}

func TestMirrorsAreHTTPSAndEndInASlash(t *testing.T) {
	t.Parallel()
	good := Mirrors{{Prefix: "https://a/b/", URLs: []string{"https://c/"}}}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for _, bad := range []Mirror{{Prefix: "http://a/"}, {Prefix: "https://a"}, {Prefix: "https://u:p@a/"}, {Prefix: "https://a/", URLs: []string{"ftp://x/"}}, {Prefix: "https://a/?q=/"}} {
		if err := (Mirrors{bad}).Validate(); err == nil || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%v: got %v, want a refusal without a password", bad, err)
		}
	}
}

func TestReplacedBundleWithoutAnETagIsFetchedAgain(t *testing.T) {
	t.Parallel()
	build := func(version uint64) []byte {
		return bundletest.Build(t, bundletest.Options{
			Files:    map[string]string{"data": string(noise(400<<10, byte(version)))},
			Manifest: func(m *bundle.Manifest) { m.Sequence = version },
		})
	}
	one, two := build(1), build(2)
	w := newWeb(map[string][]byte{"x.spb": one})
	w.etag = false
	tries := 0
	w.cut = func(string) (int, func()) {
		if tries++; tries == 1 {
			return len(one) / 2, func() {
				w.mu.Lock()
				w.files["x.spb"] = two
				w.mu.Unlock()
			}
		}
		return -1, nil
	}
	base, s := w.on(t, nil)
	img, err := s.Fetch(t.Context(), base+"x.spb", "", nil)
	verified(t, s, img, err)
	if img.Sequence != 2 {
		t.Errorf("sequence %d was installed, want the one that is there now", img.Sequence)
	}
}

func TestRateHoldsTransfersBack(t *testing.T) {
	t.Parallel()
	spb := big(t, nil)
	w := newWeb(map[string][]byte{"x.spb": spb})
	base, s := w.on(t, func(c *Config) { c.Rate = 2 << 20 })
	start := time.Now()
	img, err := s.Fetch(t.Context(), base+"x.spb", "", nil)
	verified(t, s, img, err)
	if got, least := time.Since(start), time.Duration(float64(len(spb))/(2<<20)*0.9*float64(time.Second)); got < least {
		t.Errorf("%d bytes at 2 MiB/s took %v, want at least %v", len(spb), got, least)
	}
}

func TestMonthlyCapHoldsOverRestartsAndEndsWithTheMonth(t *testing.T) {
	t.Parallel()
	spb := big(t, nil)
	w := newWeb(map[string][]byte{"x.spb": spb})
	now := time.Date(2030, 1, 31, 0, 0, 0, 0, time.UTC)
	base, s := w.on(t, func(c *Config) {
		c.Metered, c.Monthly, c.Now = []string{"wwan0", "lo"}, 300<<10, func() time.Time { return now }
	})
	_, err := s.Fetch(t.Context(), base+"x.spb", "", nil)
	if bundle.CodeOf(err) != bundle.ErrMetered || bundle.ErrMetered.Final() {
		t.Fatalf("got %v, want %s, not final", err, bundle.ErrMetered)
	}
	if got := s.meter.used.Bytes; got < 300<<10 || got > 300<<10+mostAtOnce {
		t.Errorf("%d bytes were counted, 300 KiB may come", got)
	}
	cfg := s.cfg
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, cfg, nil)
	before := w.total()
	if _, err := s.Fetch(t.Context(), base+"x.spb", "", nil); bundle.CodeOf(err) != bundle.ErrMetered || w.total() != before {
		t.Errorf("the next agent: got %v after %d bytes, want %s before the first", err, w.total()-before, bundle.ErrMetered)
	}
	s.meter.metered = []string{"wwan0"} // another link
	img, err := s.Fetch(t.Context(), base+"x.spb", "", nil)
	verified(t, s, img, err)
	if err := s.meter.count(0); bundle.CodeOf(err) != bundle.ErrMetered {
		t.Errorf("the same month: got %v, want %s", err, bundle.ErrMetered)
	}
	now = now.AddDate(0, 0, 1)
	if err := s.meter.count(1); err != nil {
		t.Errorf("the next month: %v", err)
	}
}

func TestProgressSaysBytesRateAndTimeLeft(t *testing.T) {
	t.Parallel()
	spb := three(t).of[1]
	w := newWeb(map[string][]byte{"x.spb": spb})
	base, s := w.on(t, func(c *Config) { c.Rate = 600 << 10 })
	seen := false
	_, err := s.Fetch(t.Context(), base+"x.spb", "", func(p Progress) {
		now, ok := s.Fetching()
		if !ok || now != p {
			t.Errorf("status says %v %v while %v is reported", now, ok, p)
		}
		if p.Phase == PhaseTransfer && p.Rate > 0 && p.Left > 0 && p.Done < p.Total && p.Received > 0 && p.Image == "demo 1" {
			seen = true
		}
	})
	if err != nil || !seen {
		t.Errorf("%v, want a report with bytes, rate and time left", err)
	}
	if _, ok := s.Fetching(); ok {
		t.Error("a fetch runs after its end")
	}
}

func FuzzParseResume(f *testing.F) {
	spb := bundletest.Build(f, bundletest.Options{})
	head, _ := imageOf(f, spb)
	f.Add(append([]byte(`{"version":1,"reference":"https://a/b","validator":"\"1\""}`+"\n"), spb[:head.Header.PayloadOffset()]...))
	f.Add(append([]byte(`{"version":1,"reference":"https://a/b","bare":true}`+"\n"), spb[:head.Header.IndexOffset()]...))
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseResume(newReader(b))
		if err == nil && (len(r.index) == 0 != r.Bare || r.head.Digest.IsZero()) {
			t.Errorf("accepted %q as %v", b, r)
		}
	})
}

func newReader(b []byte) *bufio.Reader {
	return bufio.NewReaderSize(io.Reader(bytes.NewReader(b)), resumeLine)
}
