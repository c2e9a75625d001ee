package image

import (
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
)

func TestAPullThatIsCutGoesOnWhereItWasOverRestarts(t *testing.T) {
	t.Parallel()
	r := registryOf(t, &ocitest.Registry{})
	whole := open(t, trusting(r))
	want, err := whole.Fetch(t.Context(), r.Host()+"/team/app:1", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	once := r.Sent.Load()
	const cuts = 20
	dir := t.TempDir()
	cfg := Config{
		Dir: filepath.Join(dir, "state"), MountDir: filepath.Join(dir, "run"), Reserve: 1, Retry: whole.cfg.Retry,
	}
	r.Sent.Store(0)
	seed := mathrand.Uint64()
	places := mathrand.New(mathrand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	for range cuts {
		at := r.Sent.Load() + 1 + places.Int64N(once/cuts)
		r.Cut.Store(at)
		s, err := Open(withClient(cfg, r))
		if err != nil {
			t.Fatal(err)
		}
		if img, err := s.Fetch(t.Context(), r.Host()+"/team/app:1", "", nil); err == nil {
			t.Fatalf("got %v although the link was cut at byte %d of %d", img.Digest, at, once)
		}
		if err := s.Close(); err != nil { // and the next agent goes on
			t.Fatal(err)
		}
	}
	r.Cut.Store(0)
	s, err := Open(withClient(cfg, r))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := s.Fetch(t.Context(), r.Host()+"/team/app:1", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if sent := r.Sent.Load(); float64(sent) > 1.1*float64(once) {
		t.Errorf("got %d bytes over %d cuts, one run takes %d", sent, cuts, once)
	}
	a, err := whole.record(want.Digest)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.record(got.Digest)
	if err != nil || a.manifest.Image != b.manifest.Image {
		t.Errorf("got %+v, %v, want %+v", b.manifest.Image, err, a.manifest.Image)
	}
	t.Logf("%d bytes over %d cuts, %d in one run", r.Sent.Load(), cuts, once)
}

func withClient(cfg Config, r *ocitest.Registry) Config {
	trusting(r)(&cfg)
	return cfg
}

func TestARottenPartOfALayerIsFetchedAgain(t *testing.T) {
	t.Parallel()
	r := registryOf(t, &ocitest.Registry{})
	s := open(t, trusting(r))
	r.Cut.Store(200 << 10)
	if _, err := s.Fetch(t.Context(), r.Host()+"/team/app:1", "", nil); err == nil {
		t.Fatal("got an image over a cut link")
	}
	r.Cut.Store(0)
	parts, err := filepath.Glob(filepath.Join(s.stage(), "*"+blobSuffix))
	if err != nil || len(parts) != 1 {
		t.Fatalf("got %q, %v, want one part", parts, err)
	}
	raw, err := os.ReadFile(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err := os.WriteFile(parts[0], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fetch(t.Context(), r.Host()+"/team/app:1", "", nil); err != nil {
		t.Error(err)
	}
}
