package image

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
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

func TestReferencesThatNameNoBundleAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		ref, says string
		want      bundle.Code
	}{
		"odd OCI reference": {"registry.example/Acme/filter:1.2", "lower-case", bundle.ErrReference},
		"odd OCI digest":    {"nginx@sha256:12", "64", bundle.ErrReference},
		"plain http":        {"http://example.com/x.spb", "https://", bundle.ErrReference},
		"ftp":               {"ftp://example.com/x.spb", "https://", bundle.ErrReference},
		"no host":           {"https:///x.spb", "https://", bundle.ErrReference},
		"another host":      {"file://host/x.spb", "https://", bundle.ErrReference},
		"relative file":     {"file://x.spb", "https://", bundle.ErrReference},
		"short digest":      {"bundle:sha256:1234", "64", bundle.ErrReference},
		"upper-case digest": {"bundle:sha256:" + strings.Repeat("A", 64), "64", bundle.ErrReference},
		"credentials":       {"https://me:secret@example.com/x.spb", "credentials", bundle.ErrReference},
		"odd credentials":   {"https://me:sec/ret@example.com/x.spb", "", bundle.ErrReference},
		"control character": {"https://example.com/\x00", "URL", bundle.ErrReference},
		"absent bundle":     {"bundle:sha256:" + strings.Repeat("a", 64), "not on this device", bundle.ErrAbsent},
		"absent file":       {"file:///nowhere/x.spb", "no file", bundle.ErrTransfer},
		"a directory":       {"file://" + dir, "regular file", bundle.ErrTransfer},
		"a pipe":            {"file://" + dir + "/pipe", "regular file", bundle.ErrTransfer},
		"empty":             {"", "", bundle.ErrReference},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, nil)
			_, err := s.Fetch(t.Context(), tc.ref, "", nil)
			refused(t, s, err, tc.want)
			if err != nil && (!strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "secret")) {
				t.Errorf("got %q, want something with %q and no password", err, tc.says)
			}
		})
	}
}

func TestWhatDoesNotFitThisDeviceIsRefusedBeforeAPayloadByte(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	for name, tc := range map[string]struct {
		manifest func(*bundle.Manifest)
		config   func(*Config)
		want     bundle.Code // "" = fits
	}{
		"E1 another class":         {func(m *bundle.Manifest) { m.Compatible = []string{"acme-gw2"} }, nil, bundle.ErrClass},
		"E1 this class":            {func(m *bundle.Manifest) { m.Compatible = []string{"x", "acme-gw2"} }, func(c *Config) { c.Class = "acme-gw2" }, ""},
		"E1 arm on arm64":          {func(m *bundle.Manifest) { m.Platform.Arch = "arm" }, arm64, bundle.ErrArch},
		"E1 arm64 on arm64":        {func(m *bundle.Manifest) { m.Platform.Arch = "arm64" }, arm64, ""},
		"E1 v7 on v6":              {func(m *bundle.Manifest) { m.Platform.Arch, m.Platform.Variant = "arm", "v7" }, armv6, bundle.ErrArch},
		"E1 no variant on v6":      {func(m *bundle.Manifest) { m.Platform.Arch = "arm" }, armv6, bundle.ErrArch},
		"E1 v6 on v6":              {func(m *bundle.Manifest) { m.Platform.Arch, m.Platform.Variant = "arm", "v6" }, armv6, ""},
		"E1 newer kernel":          {func(m *bundle.Manifest) { m.Platform.Kernel = "6.12" }, armv6, bundle.ErrKernel},
		"E1 older kernel":          {func(m *bundle.Manifest) { m.Platform.Kernel = "5.4" }, armv6, ""},
		"E2 missing dependency":    {func(m *bundle.Manifest) { m.Dependencies = []bundle.Dependency{{Name: "base", Min: 1}} }, nil, bundle.ErrDependsOn},
		"E3 agent bundle":          {func(m *bundle.Manifest) { m.Kind, m.Runtime, m.Compatible = bundle.KindAgent, nil, []string{"x"} }, nil, bundle.ErrRole},
		"E3 newer agent":           {func(m *bundle.Manifest) { m.MinAgent = 8 }, func(c *Config) { c.Agent = 7 }, bundle.ErrAgent},
		"D8 expired":               {func(m *bundle.Manifest) { m.Expires = uint64(now.Unix()) - 1 }, nil, bundle.ErrExpired},
		"D8 not yet":               {func(m *bundle.Manifest) { m.NotBefore = uint64(now.Unix()) + 1 }, nil, bundle.ErrEarly},
		"D8 in time":               {func(m *bundle.Manifest) { m.NotBefore, m.Expires = uint64(now.Unix()), uint64(now.Unix())+1 }, nil, ""},
		"squashfs":                 {func(m *bundle.Manifest) { m.Image.Format = bundle.FormatSquashFS }, nil, bundle.ErrImage},
		"C2 unknown signer":        {nil, func(c *Config) { c.Trusted = nil }, bundle.ErrKey},
		"C7 key for other names":   {nil, func(c *Config) { c.Trusted[0].Prefixes = []string{"acme-"} }, bundle.ErrRole},
		"I4 more than may be kept": {nil, func(c *Config) { c.MaxBytes = 1 << 20 }, bundle.ErrSpace},
		"I4 more than the disk":    {nil, func(c *Config) { c.Reserve = 1 << 60 }, bundle.ErrSpace},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, func(c *Config) {
				c.Now = func() time.Time { return now }
				if tc.config != nil {
					tc.config(c)
				}
			})
			spb := big(t, tc.manifest)
			_, err := s.Fetch(t.Context(), write(t, spb), "", nil)
			if tc.want == "" {
				if err != nil {
					t.Errorf("fetch: %v", err)
				}
				return
			}
			refused(t, s, err, tc.want)
		})
	}
}

func arm64(c *Config) { c.Machine = Machine{Arch: []string{"arm64"}, Kernel: [2]int{6, 1}} }
func armv6(c *Config) {
	c.Machine = Machine{Arch: []string{"arm"}, Variant: 6, Kernel: [2]int{6, 1}}
}

func TestDamagedFilesLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	spb := big(t, nil)
	head := int(4096)
	random := rand.New(rand.NewPCG(3, 4))
	s := open(t, nil)
	try := func(name string, b []byte, want ...bundle.Code) {
		t.Helper()
		_, err := s.Fetch(t.Context(), write(t, b), "", nil)
		if !slices.Contains(want, bundle.CodeOf(err)) {
			t.Errorf("%s: got %v, want one of %v", name, err, want)
		}
		empty(t, s)
	}
	for range 40 {
		b := clone(spb)
		b[head+random.IntN(len(b)-head)] ^= 1 << random.IntN(8)
		try("A7 flipped bit", b, bundle.ErrChunk, bundle.ErrDigest, bundle.ErrLength, bundle.ErrIndex)
		try("A5 truncated", spb[:random.IntN(len(spb))], bundle.ErrTruncated)
	}
	try("A5 empty", nil, bundle.ErrTruncated)
	try("A6 trailing byte", append(clone(spb), 0), bundle.ErrLength)
	try("C1 unsigned", unsigned(t, spb), bundle.ErrSignature)
}

func unsigned(t *testing.T, spb []byte) []byte {
	t.Helper()
	head, err := bundle.ReadHeadUnverified(strings.NewReader(string(spb)))
	if err != nil {
		t.Fatal(err)
	}
	e := bundle.Envelope{Payload: head.Envelope.Payload}
	at := head.Header.IndexOffset()
	index, err := bundle.ParseIndex(spb[at:at+int64(head.Header.Index)], head.Manifest.Image.Size, head.Manifest.Index.Payload)
	if err != nil {
		t.Fatal(err)
	}
	return append(bundle.AppendPrefix(nil, e, index), spb[head.Header.PayloadOffset():]...)
}

func TestDigestPinsTheBundle(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	_, err := s.Fetch(t.Context(), write(t, big(t, nil)), "sha256:"+strings.Repeat("0", 63)+"1", nil)
	refused(t, s, err, bundle.ErrDigest)
	_, err = s.Fetch(t.Context(), write(t, big(t, nil)), "sha256:12", nil)
	refused(t, s, err, bundle.ErrReference)
}

func TestWronglyBuiltImagesAreRefusedWhole(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*bundle.Manifest)
		want   bundle.Code
	}{
		"another image digest":  {func(m *bundle.Manifest) { m.Image.Digest[0]++ }, bundle.ErrDigest},
		"another verity digest": {func(m *bundle.Manifest) { m.Image.Verity[0]++ }, bundle.ErrDigest},
		"another image size":    {func(m *bundle.Manifest) { m.Image.Size += 4096 }, bundle.ErrIndex},
		"another index digest":  {func(m *bundle.Manifest) { m.Index.Digest[0]++ }, bundle.ErrDigest},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, nil)
			_, err := s.Fetch(t.Context(), write(t, big(t, tc.change)), "", nil)
			refused(t, s, err, tc.want)
		})
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

func TestUntrustedSignersBundleIsNotHandedOutAgain(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	img := install(t, s, big(t, nil))
	cfg := s.cfg
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, cfg, func(c *Config) { c.Trusted = []bundle.PublicKey{bundletest.Key(t, 2).Public()} })
	if _, err := s.Fetch(t.Context(), "bundle:"+img.Digest.String(), "", nil); !errors.Is(err, bundle.ErrKey) {
		t.Errorf("got %v, want %s", err, bundle.ErrKey)
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
