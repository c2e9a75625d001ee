package image

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

func TestRottenChunksAreFetchedInTheirPlaceAndNothingElse(t *testing.T) {
	t.Parallel()
	spb := three(t).of[1]
	w := newWeb(map[string][]byte{"x.spb": spb})
	base, s := w.on(t, nil)
	img, err := s.Fetch(t.Context(), base+"x.spb", "", nil)
	verified(t, s, img, err)
	if n, err := s.Repair(t.Context(), img.Digest); n != 0 || err != nil {
		t.Errorf("a good image: %d chunks replaced, %v", n, err)
	}
	rot(t, s, img, 300<<10)
	rot(t, s, img, 900<<10)
	before := w.total()
	n, err := s.Repair(t.Context(), img.Digest)
	if n != 2 || err != nil {
		t.Errorf("two rotten chunks: %d replaced, %v", n, err)
	}
	if came := w.total() - before; came > 2*bundle.MaxChunk+firstBytes {
		t.Errorf("%d bytes came for two chunks", came)
	}
	verified(t, s, img, nil)
	if info, err := os.Stat(s.imagePath(recordOf(t, s, img).manifest.Image.Digest)); err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("the repaired image: %v %v, want mode 0400", info.Mode(), err)
	}
}

func recordOf(t testing.TB, s *Store, img Image) record {
	t.Helper()
	r, err := s.record(img.Digest)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestH2ModuleReadsTheRightBytesAfterARepair(t *testing.T) {
	t.Parallel()
	spb := three(t).of[1]
	w := newWeb(map[string][]byte{"x.spb": spb})
	url, s := server(t, w.ServeHTTP, nil)
	asRoot(t)
	noLeaks(t)
	img, err := s.Fetch(t.Context(), url, "", nil)
	verified(t, s, img, err)
	dir := mountIt(t, s, img)
	open, err := os.Open(filepath.Join(dir, "d/data"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = open.Close() }()
	rot(t, s, img, 900<<10)
	if n, err := s.Repair(t.Context(), img.Digest); n != 1 || err != nil {
		t.Fatalf("repair: %d, %v", n, err)
	}
	if got, err := io.ReadAll(open); err != nil || string(got) != string(noise(600<<10, 8)) {
		t.Errorf("the module reads %d bytes, %v, want those of the bundle", len(got), err)
	}
	if where, ok := s.Mounted(img); !ok || where != dir {
		t.Errorf("mounted %v at %s, want still at %s", ok, where, dir)
	}
}

func TestWhatCannotBeRepairedStaysAndSaysWhy(t *testing.T) {
	t.Parallel()
	r := three(t)
	w := newWeb(map[string][]byte{"x.spb": r.of[1]})
	base, s := w.on(t, nil)
	img, err := s.Fetch(t.Context(), base+"x.spb", "", nil)
	verified(t, s, img, err)
	rot(t, s, img, 300<<10)
	w.files["x.spb"] = r.of[2]
	if _, err := s.Repair(t.Context(), img.Digest); !errors.Is(err, bundle.ErrDigest) {
		t.Errorf("another bundle is there: got %v, want %s", err, bundle.ErrDigest)
	}
	delete(w.files, "x.spb")
	if _, err := s.Repair(t.Context(), img.Digest); !errors.Is(err, bundle.ErrTransfer) {
		t.Errorf("nothing is there: got %v, want %s", err, bundle.ErrTransfer)
	}
	if _, ok := s.Lookup(img.Digest); !ok {
		t.Error("the image is gone")
	}
	w.files["x.spb"] = r.of[1]
	if n, err := s.Scrub(t.Context(), 0); n != 1 || err != nil {
		t.Errorf("scrub: %d damaged, %v, want 1", n, err)
	}
	verified(t, s, img, nil)
}

func TestScrubReadsWhatWasNotReadForLong(t *testing.T) {
	t.Parallel()
	now := time.Now()
	r := three(t)
	w := newWeb(map[string][]byte{"1.spb": r.of[1], "2.spb": r.of[2]})
	base, s := w.on(t, func(c *Config) { c.Now = func() time.Time { return now } })
	one, err := s.Fetch(t.Context(), base+"1.spb", "", nil)
	verified(t, s, one, err)
	now = now.Add(5 * 24 * time.Hour)
	two, err := s.Fetch(t.Context(), base+"2.spb", "", nil)
	verified(t, s, two, err)
	rot(t, s, one, 300<<10)
	rot(t, s, two, 300<<10)
	now = now.Add(4 * 24 * time.Hour)
	const week = 7 * 24 * time.Hour
	if n, err := s.Scrub(t.Context(), week); n != 1 || err != nil {
		t.Errorf("after nine and four days: %d damaged, %v, want only the older one", n, err)
	}
	verified(t, s, one, nil)
	if n, err := s.Scrub(t.Context(), week); n != 0 || err != nil {
		t.Errorf("again: %d damaged, %v, want none that is due", n, err)
	}
	cfg := s.cfg
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	now = now.Add(4 * 24 * time.Hour)
	s = reopen(t, cfg, nil)
	if n, err := s.Scrub(t.Context(), week); n != 1 || err != nil {
		t.Errorf("by the next agent: %d damaged, %v, want the other one", n, err)
	}
	verified(t, s, two, nil)
}

func TestPinnedImagesOutliveGCAndRestarts(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	img := install(t, s, three(t).of[1])
	if err := s.Pin(img.Digest, true); err != nil {
		t.Fatal(err)
	}
	cfg := s.cfg
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, cfg, nil)
	if removed, err := s.GC(t.Context(), nil); err != nil || len(removed) != 0 {
		t.Errorf("gc removed %v, %v, want nothing", removed, err)
	}
	if err := s.Pin(img.Digest, false); err != nil {
		t.Fatal(err)
	}
	if removed, err := s.GC(t.Context(), nil); err != nil || len(removed) != 1 {
		t.Errorf("gc removed %v, %v, want the image", removed, err)
	}
	if err := s.Pin(img.Digest, true); !errors.Is(err, bundle.ErrAbsent) {
		t.Errorf("pin of what is not here: got %v, want %s", err, bundle.ErrAbsent)
	}
}

func TestDamagedNotesCostPinsAndNothingElse(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	img := install(t, s, three(t).of[1])
	cfg := s.cfg
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.notesPath(), []byte(`{"version":1,"imag`), 0o600); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, cfg, nil)
	verified(t, s, img, nil)
	if err := s.Pin(img.Digest, true); err != nil {
		t.Error(err)
	}
}

func TestGCKeepsWhatAModuleNeededBeforeAsTheWayBack(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	r := three(t)
	one, two, last := install(t, s, r.of[1]), install(t, s, r.of[2]), install(t, s, r.of[3])
	collect := func(step string, keep []bundle.Digest, want ...Image) {
		t.Helper()
		if dry, err := s.Garbage(keep); err != nil || len(dry) < len(want) {
			t.Errorf("%s: garbage %v, %v, want at least what goes", step, dry, err)
		}
		removed, err := s.GC(t.Context(), keep)
		if err != nil || len(removed) != len(want) {
			t.Fatalf("%s: gc removed %v, %v, want %v", step, removed, err, want)
		}
		for i := range want {
			if removed[i].Digest != want[i].Digest {
				t.Errorf("%s: gc removed %v, want %v", step, removed[i].Version, want[i].Version)
			}
		}
	}
	collect("two side by side", []bundle.Digest{one.Digest, two.Digest, last.Digest})
	collect("the oldest is replaced", []bundle.Digest{two.Digest, last.Digest})
	cfg := s.cfg
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, cfg, nil)
	collect("again, by the next agent", []bundle.Digest{two.Digest, last.Digest})
	if is := s.Standing(one); !is.Previous || is.Active {
		t.Errorf("the replaced one is %+v, want the way back", is)
	}
	collect("another is replaced, and is the way back now", []bundle.Digest{last.Digest}, one)
	collect("back to it", []bundle.Digest{two.Digest})
	if is := s.Standing(last); !is.Previous {
		t.Errorf("what was gone back from is %+v, want kept", is)
	}
	collect("the module is gone", nil, two, last)
}

func TestScrubOfGoodImagesEnds(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	all := three(t)
	for _, v := range all.of[1:] {
		install(t, s, v)
	}
	if n, err := s.Scrub(t.Context(), 0); n != 0 || err != nil {
		t.Errorf("scrub of good images: %d damaged, %v", n, err)
	}
}
