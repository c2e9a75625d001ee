package image

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

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
