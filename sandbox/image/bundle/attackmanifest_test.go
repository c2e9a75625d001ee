package bundle_test

import (
	"bytes"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

func TestBManifestsThatAreNotTheOneEncodingAreRefused(t *testing.T) {
	t.Parallel()
	refusesAll(t, bundletest.Manifests(t))
}

func TestB3ExtensionsAreKeptAndIgnored(t *testing.T) {
	t.Parallel()
	key := bundletest.Key(t, 1)
	spb := bundletest.Build(t, bundletest.Options{Manifest: func(m *bundle.Manifest) {
		m.Extensions = map[uint64]cbor.RawMessage{1500: bundle.EncodeCBOR(map[string]any{"a": []int{1, 2}}), 1000: {0xf9, 0x3c, 0}}
	}})
	head, err := bundle.ReadHead(bytes.NewReader(spb), []bundle.PublicKey{key.Public()})
	if err != nil {
		t.Fatalf("a bundle with extensions: %v", err)
	}
	if n := len(head.Manifest.Extensions); n != 2 {
		t.Errorf("got %d extensions, want 2", n)
	}
}
