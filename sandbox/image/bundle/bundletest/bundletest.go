// Package bundletest makes small bundles for tests: of this room, and of any room whose tests install a module.
//
// [Build] turns a few files into a signed bundle with fixed times and a fixed [Key], so that equal calls give equal bytes. It
// owns nothing after it returns.
//
// The trap: the keys are public knowledge. Nothing but a test may trust them.
package bundletest

import (
	"bytes"
	"crypto/ed25519"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// Epoch is the time of every entry in a test's image.
const Epoch = 1_700_000_000

// Options of a test bundle. The zero value is module "demo" 1.0.0, sequence 1, for any architecture, with one small file.
type Options struct {
	Files    map[string]string      // content by slash path; "#!" or an ELF header at the start makes it executable
	Manifest func(*bundle.Manifest) // changes the manifest before it is signed
	Image    func([]byte) []byte    // changes the image before it is packed
	Key      bundle.PrivateKey      // default Key(tb, 1)
}

// Key returns a fixed Ed25519 key for each seed.
func Key(tb testing.TB, seed byte) bundle.PrivateKey {
	tb.Helper()
	key, err := bundle.NewPrivateKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		tb.Fatalf("key: %v", err)
	}
	return key
}

// Build returns the bytes of a signed bundle.
func Build(tb testing.TB, o Options) []byte {
	tb.Helper()
	if o.Files == nil {
		o.Files = map[string]string{"bin/run": "#!/bin/sh\nexit 0\n"}
	}
	if o.Key.Public().IsZero() {
		o.Key = Key(tb, 1)
	}
	packed, payload := pack(tb, o)
	m := bundle.Manifest{
		Schema: 1, Name: "demo", Version: "1.0.0", Sequence: 1, Kind: bundle.KindModule,
		Compatible: []string{bundle.AnyClass},
		Platform:   bundle.Platform{OS: "linux", Arch: bundle.AnyArch},
		Image:      packed.Image,
		Index:      packed.Info,
		Runtime:    &bundle.Runtime{Args: []string{"/bin/run"}},
	}
	if o.Manifest != nil {
		o.Manifest(&m)
	}
	envelope, err := bundle.Sign(m, o.Key)
	if err != nil {
		tb.Fatalf("sign: %v", err)
	}
	var out bytes.Buffer
	if err := bundle.Write(&out, envelope, packed.Index, bytes.NewReader(payload)); err != nil {
		tb.Fatalf("write bundle: %v", err)
	}
	return out.Bytes()
}

// HostArch sets the manifest's platform to this machine's.
func HostArch(m *bundle.Manifest) { m.Platform.Arch = runtime.GOARCH }

// Image writes the image that Build would pack, into a file under the test's directory.
func Image(tb testing.TB, files map[string]string) *os.File {
	tb.Helper()
	dir := tb.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, "tree", filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			tb.Fatal(err)
		}
		mode := os.FileMode(0o600)
		if strings.HasPrefix(content, "#!") || strings.HasPrefix(content, "\x7fELF") {
			mode = 0o700
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			tb.Fatal(err)
		}
	}
	tree, err := bundle.OpenTree(filepath.Join(dir, "tree"), time.Unix(Epoch, 0))
	if err != nil {
		tb.Fatalf("open tree: %v", err)
	}
	defer func() { _ = tree.Close() }()
	img, err := os.Create(filepath.Join(dir, "image"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = img.Close() })
	if err := tree.WriteImage(img); err != nil {
		tb.Fatalf("write image: %v", err)
	}
	return img
}

func pack(tb testing.TB, o Options) (bundle.Packed, []byte) {
	tb.Helper()
	img := Image(tb, o.Files)
	if _, err := img.Seek(0, 0); err != nil {
		tb.Fatal(err)
	}
	whole, err := io.ReadAll(img)
	if err != nil {
		tb.Fatal(err)
	}
	if o.Image != nil {
		whole = o.Image(whole)
	}
	var payload bytes.Buffer
	packed, err := bundle.Pack(bytes.NewReader(whole), bundle.FormatEROFS, &payload, nil)
	if err != nil {
		tb.Fatalf("pack: %v", err)
	}
	return packed, payload.Bytes()
}
