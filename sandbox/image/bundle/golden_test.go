package bundle_test

import (
	"bytes"
	"crypto/sha256"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

// goldenFiles is a tree with every storage form: inline, whole blocks, compressible and not, more than one chunk.
func goldenFiles() map[string]string {
	noise := make([]byte, 300<<10)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(noise)
	return map[string]string{
		"bin/run":       "#!/bin/sh\nexec /bin/app\n",
		"bin/app":       string(noise),
		"etc/app.conf":  "name = golden\n",
		"share/long":    strings.Repeat("the same line again and again\n", 9000),
		"share/é/empty": "",
	}
}

func goldenBundle(tb testing.TB) []byte {
	tb.Helper()
	return bundletest.Build(tb, bundletest.Options{
		Files: goldenFiles(),
		Manifest: func(m *bundle.Manifest) {
			m.Version, m.Sequence, m.Floor = "1.2.3", 7, 3
			m.Platform = bundle.Platform{OS: "linux", Arch: "arm", Variant: "v7", Kernel: "5.10"}
			m.Runtime = &bundle.Runtime{
				Args: []string{"/bin/run", "-v"}, Env: map[string]string{"A": "1", "LONGER": "2"},
				Cwd: "/share", User: "app:app", Stop: "SIGINT", HostView: true,
			}
			m.Dependencies = []bundle.Dependency{{Name: "base", Min: 2}}
			m.NotBefore, m.Expires, m.MinAgent = 1, 4_000_000_000, 1
			m.Build = &bundle.Build{Source: "test", Epoch: bundletest.Epoch, Tools: []string{"bundletest"}}
			m.Health = &bundle.Health{Probation: 60, Probe: "/bin/ok", MaxRestarts: 2}
		},
	})
}

// The digests below are the format. A change of either means that bundles of old tools and new tools differ: that needs a
// reason (a new version of the compressor, for instance) and a line in the changelog, never only a new number here.
const (
	goldenFile     = "sha256:bb68c9eb5cced65ff7e220b3b73dfccc0b1f9b49e4587e0792a09b7b094f86d3"
	goldenIdentity = "sha256:488f85577ba33c6b3913b9f5db38c6086e558f2ecd2047fa290ec23d11d1e43e"
)

func TestSameInputsGiveTheSameBytesOnEveryMachine(t *testing.T) {
	t.Parallel()
	spb := goldenBundle(t)
	if got := bundle.Digest(sha256.Sum256(spb)).String(); got != goldenFile {
		t.Errorf("digest of the file: got %s, want %s", got, goldenFile)
	}
	head, err := bundle.ReadHead(bytes.NewReader(spb), []bundle.PublicKey{bundletest.Key(t, 1).Public()})
	if err != nil {
		t.Fatalf("read head: %v", err)
	}
	if got := head.Digest.String(); got != goldenIdentity {
		t.Errorf("digest of the bundle: got %s, want %s", got, goldenIdentity)
	}
}

func TestWhatIsPackedComesOutTheSame(t *testing.T) {
	t.Parallel()
	spb := goldenBundle(t)
	var image bytes.Buffer
	var last int64
	head, err := bundle.Extract(&image, bytes.NewReader(spb), []bundle.PublicKey{bundletest.Key(t, 1).Public()}, func(done, _ int64) { last = done })
	if err != nil {
		t.Fatalf("extract: %v", err)
	}
	want, err := os.ReadFile(bundletest.Image(t, goldenFiles()).Name())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(image.Bytes(), want) {
		t.Errorf("image: got %d bytes, want the %d that were packed", image.Len(), len(want))
	}
	if uint64(last) != head.Manifest.Image.Size || last == 0 {
		t.Errorf("progress ended at %d, want %d", last, head.Manifest.Image.Size)
	}
	if _, err := bundle.CheckImage(bytes.NewReader(want), int64(len(want))); err != nil {
		t.Errorf("check image: %v", err)
	}
}

func TestPrefixAndPayloadPrintBackTheWholeFile(t *testing.T) {
	t.Parallel()
	spb := goldenBundle(t)
	envelope, index, payload := bundle.Parts(spb)
	var again bytes.Buffer
	if err := bundle.Write(&again, envelope, index, bytes.NewReader(payload)); err != nil {
		t.Fatalf("write: %v", err)
	}
	if !bytes.Equal(again.Bytes(), spb) {
		t.Error("a bundle taken apart and put together differs")
	}
	if err := bundle.Write(&again, envelope, index, bytes.NewReader(payload[1:])); err == nil {
		t.Error("a payload that is too short was written")
	}
}

func TestTreeNormalisesOwnerModeAndTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(dir+"/d", 0o700))
	must(os.WriteFile(dir+"/d/secret", []byte("x"), 0o600))
	must(os.WriteFile(dir+"/d/tool", []byte("x"), 0o700))
	must(os.Chmod(dir+"/d/tool", 0o700|os.ModeSetuid))
	must(os.Symlink("../../outside", dir+"/d/link"))
	must(os.Link(dir+"/d/secret", dir+"/hard"))
	write := func() []byte {
		tree, err := bundle.OpenTree(dir, time.Unix(99, 0))
		must(err)
		defer func() { must(tree.Close()) }()
		if got, want := strings.Join(tree.Stripped, " "), "d/tool"; got != want {
			t.Errorf("stripped: got %q, want %q", got, want)
		}
		f, err := os.CreateTemp(t.TempDir(), "")
		must(err)
		defer func() { must(f.Close()) }()
		must(tree.WriteImage(f))
		b, err := os.ReadFile(f.Name())
		must(err)
		return b
	}
	one := write()
	must(os.Chtimes(dir+"/d/secret", time.Unix(5, 0), time.Unix(5, 0)))
	must(os.Chmod(dir+"/d/secret", 0o640))
	if !bytes.Equal(one, write()) {
		t.Error("times and group bits of the build host are in the image")
	}
}

func TestTreeRefusesWhatAnImageCannotHold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := mkfifo(dir + "/pipe"); err != nil {
		t.Fatal(err)
	}
	_, err := bundle.OpenTree(dir, time.Unix(0, 0))
	if err == nil || !strings.Contains(err.Error(), "pipe") {
		t.Errorf("a pipe in the tree: got %v, want an error that names it", err)
	}
}

func TestTreeIsAFileSystem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/short", []byte("four"), 0o600); err != nil {
		t.Fatal(err)
	}
	tree, err := bundle.OpenTree(dir, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tree.Close() })
	if got, err := fs.ReadFile(tree, "short"); err != nil || string(got) != "four" {
		t.Errorf("read: got %q %v, want four", got, err)
	}
	if err := os.WriteFile(dir+"/short", []byte("longer"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.ReadFile(tree, "short"); err == nil {
		t.Error("a file that grew after the scan was read")
	}
	if err := os.WriteFile(dir+"/short", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.ReadFile(tree, "short"); err == nil {
		t.Error("a file that shrank after the scan was read")
	}
}
