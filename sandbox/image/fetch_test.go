package image

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func TestFetchInstallsOnceAndTheNextStoreFindsIt(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	spb := big(t, func(m *bundle.Manifest) { m.Version, m.Sequence = "2.1", 9 })
	url := write(t, spb)
	var seen []Progress
	img, err := s.Fetch(t.Context(), url, "", func(p Progress) { seen = append(seen, p) })
	if err != nil {
		t.Fatalf("fetch: %v", err)
	}
	if img.Name != "demo" || img.Version != "2.1" || img.Sequence != 9 || !slices.Equal(img.Runtime.Args, []string{"/bin/run"}) {
		t.Errorf("image: got %+v", img)
	}
	last := seen[len(seen)-1]
	if seen[0].Phase != PhaseCheck || last.Phase != PhaseVerify || last.Done != img.Size || last.Total != img.Size || last.Image != "demo 2.1" {
		t.Errorf("progress: first %+v, last %+v, want check first and %d verified last", seen[0], last, img.Size)
	}
	if left := names(t, s.stage()); len(left) != 0 {
		t.Errorf("left in stage: %v", left)
	}
	r, err := s.record(img.Digest)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{r.manifest.Image.Digest.Hex() + ".img", img.Digest.Hex() + ".spm"}
	slices.Sort(want)
	if got := names(t, s.blobs()); !slices.Equal(got, want) {
		t.Errorf("blobs: got %v, want %v", got, want)
	}
	if info, err := os.Stat(s.imagePath(r.manifest.Image.Digest)); err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("image file: %v %v, want mode 0400", info.Mode(), err)
	}
	if err := os.Remove(strings.TrimPrefix(url, "file://")); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{url, "bundle:" + img.Digest.String()} { // neither needs the source any more
		again, err := s.Fetch(t.Context(), ref, img.Digest.String(), nil)
		if err != nil || again.Digest != img.Digest {
			t.Errorf("fetch %s again: %v %v", ref, again.Digest, err)
		}
	}
	cfg := s.cfg
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fetch(t.Context(), "bundle:"+img.Digest.String(), "", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("fetch after close: got %v, want %v", err, ErrClosed)
	}
	next := reopen(t, cfg, nil)
	if got, ok := next.Lookup(img.Digest); !ok || got.Name != "demo" || got.Size != img.Size || got.Signer != img.Signer {
		t.Errorf("after a restart: got %+v, want %+v", got, img)
	}
	if err := next.Verify(t.Context(), img); err != nil {
		t.Errorf("verify: %v", err)
	}
}

func TestD1OldSequencesAreRefusedAfterCommitAndInstalledOnesStay(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	build := func(seq, floor uint64, args string) []byte {
		return big(t, func(m *bundle.Manifest) { m.Sequence, m.Floor, m.Runtime.Args[0] = seq, floor, args })
	}
	old := install(t, s, build(4, 0, "/bin/run"))
	now := install(t, s, build(7, 5, "/bin/run"))
	if got := s.Floor("demo"); got != 0 {
		t.Errorf("floor before commit: got %d, want 0", got)
	}
	older := build(3, 0, "/bin/run")
	if _, err := s.Fetch(t.Context(), write(t, build(7, 0, "/bin/other")), "", nil); !errors.Is(err, bundle.ErrSequence) {
		t.Errorf("the same sequence with another digest: got %v, want %s", err, bundle.ErrSequence)
	}
	for range 2 {
		if err := s.Commit(now.Digest); err != nil {
			t.Fatalf("commit: %v", err)
		}
	}
	if err := s.Commit(old.Digest); err != nil {
		t.Fatalf("commit of an older one: %v", err)
	}
	cfg := s.cfg
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, cfg, nil)
	if got := s.Floor("demo"); got != 5 {
		t.Errorf("floor after a restart: got %d, want the manifest's 5", got)
	}
	if _, err := s.Fetch(t.Context(), write(t, older), "", nil); !errors.Is(err, bundle.ErrSequence) {
		t.Errorf("below the floor: got %v, want %s", err, bundle.ErrSequence)
	}
	if _, err := s.Fetch(t.Context(), "bundle:"+old.Digest.String(), "", nil); err != nil {
		t.Errorf("an installed one below the floor: %v", err)
	}
	if _, err := s.GC(t.Context(), nil); err != nil {
		t.Fatalf("gc: %v", err)
	}
	if _, err := s.Fetch(t.Context(), write(t, build(7, 0, "/bin/other")), "", nil); !errors.Is(err, bundle.ErrSequence) {
		t.Errorf("a committed sequence with another digest, after gc: got %v, want %s", err, bundle.ErrSequence)
	}
	install(t, s, build(5, 0, "/bin/run"))
}

func TestBundleOfTheSameImageNeedsNoPayload(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	install(t, s, big(t, nil))
	second := big(t, func(m *bundle.Manifest) { m.Sequence, m.Runtime.Args = 2, []string{"/bin/run", "-x"} })
	img := install(t, s, second)
	if got := len(names(t, s.blobs())); got != 3 || img.Sequence != 2 {
		t.Errorf("blobs: got %d files, want one image and two .spm", got)
	}
	if left := names(t, s.stage()); len(left) != 0 {
		t.Errorf("left in stage: %v", left)
	}
}

func TestI6SecondAgentOnOneDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	if _, err := Open(s.cfg); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("second open: got %v, want a refusal", err)
	}
}

func TestDamagedStateIsNoticedAtOpen(t *testing.T) {
	t.Parallel()
	spb := big(t, nil)
	for name, tc := range map[string]struct {
		damage    func(s *Store, r record) error
		installed bool
		opens     bool
	}{
		"nothing":      {func(*Store, record) error { return nil }, true, true},
		".spm cut":     {func(s *Store, r record) error { return os.Truncate(s.metaPath(r.Digest), 100) }, false, true},
		".spm renamed": {func(s *Store, r record) error { return os.Rename(s.metaPath(r.Digest), s.metaPath(bundle.Digest{1})) }, false, true},
		"image gone":   {func(s *Store, r record) error { return os.Remove(s.imagePath(r.manifest.Image.Digest)) }, false, true},
		"image cut": {func(s *Store, r record) error {
			path := s.imagePath(r.manifest.Image.Digest)
			return errors.Join(os.Chmod(path, 0o600), os.Truncate(path, 4096)) // who is not root may not write to it as it is
		}, false, true},
		"floors nonsense": {func(s *Store, _ record) error { return os.WriteFile(s.floorsPath(), []byte("{"), 0o600) }, false, false},
		"floors of v2": {func(s *Store, _ record) error {
			return os.WriteFile(s.floorsPath(), []byte(`{"version":2,"modules":{}}`), 0o600)
		}, false, false},
	} {
		s := open(t, nil)
		r, err := s.record(install(t, s, spb).Digest)
		if err != nil {
			t.Fatal(err)
		}
		cfg := s.cfg
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := tc.damage(s, r); err != nil {
			t.Fatal(err)
		}
		next, err := Open(cfg)
		if (err == nil) != tc.opens {
			t.Errorf("%s: open: %v, want opens=%v", name, err, tc.opens)
		}
		if err != nil {
			continue
		}
		if got := len(next.List()) == 1; got != tc.installed {
			t.Errorf("%s: installed %v, want %v", name, got, tc.installed)
		}
		install(t, next, spb) // whatever happened, it can be fetched again
		if err := next.Verify(t.Context(), next.List()[0]); err != nil {
			t.Errorf("%s: after fetching again: %v", name, err)
		}
		if err := next.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestGCRemovesWhatNobodyNeedsAndNothingElse(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	one := install(t, s, big(t, nil))
	two := install(t, s, big(t, func(m *bundle.Manifest) { m.Sequence = 2 })) // the same image
	three := install(t, s, bundletest.Build(t, bundletest.Options{Manifest: func(m *bundle.Manifest) { m.Name = "other" }}))
	junk := []string{filepath.Join(s.blobs(), "x.new"), filepath.Join(s.stage(), "old.part"), filepath.Join(s.stage(), "fresh.part")}
	for _, path := range junk {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	week := time.Now().Add(-8 * 24 * time.Hour)
	if err := os.Chtimes(junk[1], week, week); err != nil {
		t.Fatal(err)
	}
	keep := []bundle.Digest{two.Digest}
	plan, err := s.Garbage(keep)
	if err != nil || len(plan) != 2 {
		t.Errorf("garbage: got %v %v, want %s and %s", plan, err, one.Digest, three.Digest)
	}
	removed, err := s.GC(t.Context(), keep)
	if err != nil || len(removed) != 2 {
		t.Errorf("gc: got %v %v, want two", removed, err)
	}
	if got := len(names(t, s.blobs())); got != 2 {
		t.Errorf("blobs: got %v, want the kept bundle and its image", names(t, s.blobs()))
	}
	if got := names(t, s.stage()); !slices.Equal(got, []string{"fresh.part"}) {
		t.Errorf("stage: got %v, want fresh.part", got)
	}
	if err := s.Verify(t.Context(), two); err != nil {
		t.Errorf("the kept one: %v", err)
	}
}

func TestEndedFetchGoesOnInTheNextStore(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	spb := big(t, nil)
	url := write(t, spb)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.Fetch(ctx, url, "", func(p Progress) {
		if p.Phase == PhaseVerify {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("ended fetch: got %v, want %v", err, context.Canceled)
	}
	if len(names(t, s.stage())) != 1 || len(s.List()) != 0 {
		t.Fatalf("stage %v, installed %v, want a part file and nothing installed", names(t, s.stage()), s.List())
	}
	cfg := s.cfg
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, cfg, nil)
	chunks := 0
	if _, err := s.Fetch(t.Context(), url, "", func(p Progress) {
		if p.Phase == PhaseTransfer {
			chunks++
		}
	}); err != nil {
		t.Fatalf("second fetch: %v", err)
	}
	if chunks != 0 {
		t.Errorf("%d chunks were read again, want none", chunks)
	}
}

func BenchmarkInstallAndVerify(b *testing.B) {
	spb := big(b, nil)
	s := open(b, nil)
	url := write(b, spb)
	for b.Loop() {
		img, err := s.Fetch(b.Context(), url, "", nil)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(img.Size)
		if _, err := s.GC(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
	}
}
