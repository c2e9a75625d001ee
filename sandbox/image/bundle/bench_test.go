package bundle_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

// BenchmarkHead is what an install costs before its first payload byte: signature, manifest, index.
func BenchmarkHead(b *testing.B) {
	spb := goldenBundle(b)
	trusted := []bundle.PublicKey{bundletest.Key(b, 1).Public()}
	for b.Loop() {
		r := bytes.NewReader(spb)
		head, err := bundle.ReadHead(r, trusted)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := head.ReadIndex(r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkExtract is the check of a whole bundle; bytes are image bytes.
func BenchmarkExtract(b *testing.B) {
	spb := bundletest.Build(b, bundletest.Options{Files: map[string]string{"noise": string(noise(4<<20, 1)), "zeros": string(make([]byte, 4<<20))}})
	trusted := []bundle.PublicKey{bundletest.Key(b, 1).Public()}
	for b.Loop() {
		head, err := bundle.Extract(io.Discard, bytes.NewReader(spb), trusted, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(head.Manifest.Image.Size))
	}
}

// BenchmarkContent is the check of an image at each mount: SHA-256 and the fs-verity tree in one pass.
func BenchmarkContent(b *testing.B) {
	image := noise(8<<20, 1)
	b.SetBytes(int64(len(image)))
	for b.Loop() {
		c := bundle.NewContent()
		_, _ = c.Write(image)
		if c.Info(bundle.FormatEROFS).Size == 0 {
			b.Fatal("nothing counted")
		}
	}
}

// BenchmarkPack is what a build costs after the image is written.
func BenchmarkPack(b *testing.B) {
	image := append(noise(4<<20, 1), make([]byte, 4<<20)...)
	b.SetBytes(int64(len(image)))
	for b.Loop() {
		if _, err := bundle.Pack(bytes.NewReader(image), bundle.FormatEROFS, io.Discard, nil); err != nil {
			b.Fatal(err)
		}
	}
}
