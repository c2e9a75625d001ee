package bundle_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

func TestCSignaturesThatAreNotTheKeysAreRefused(t *testing.T) {
	t.Parallel()
	refusesAll(t, bundletest.Signatures(t))
}

func TestC7KeySignsOnlyItsNames(t *testing.T) {
	t.Parallel()
	spb := bundletest.Build(t, bundletest.Options{})
	open := func(prefixes ...[]string) error {
		var trusted []bundle.PublicKey
		for _, p := range prefixes {
			k := bundletest.Key(t, 1).Public()
			k.Prefixes = p
			trusted = append(trusted, k)
		}
		_, err := bundle.ReadHead(bytes.NewReader(spb), trusted)
		return err
	}
	if err := open([]string{"acme-", "filter"}); !errors.Is(err, bundle.ErrRole) {
		t.Errorf("outside its prefixes: got %v, want %s", err, bundle.ErrRole)
	}
	if err := open([]string{"acme-", "de"}); err != nil {
		t.Errorf("inside a prefix: %v", err)
	}
	if err := open([]string{"acme-"}, []string{"demo"}); err != nil {
		t.Errorf("the key listed twice, once with the name: %v", err)
	}
	if err := open(nil); err != nil {
		t.Errorf("without prefixes: %v", err)
	}
	if err := open(); !errors.Is(err, bundle.ErrKey) {
		t.Errorf("no trusted key at all: got %v, want %s", err, bundle.ErrKey)
	}
}

func TestES256BundlesVerifyAndAreReproducible(t *testing.T) {
	t.Parallel()
	key, err := bundle.GenerateKey(bundle.ES256)
	if err != nil {
		t.Fatal(err)
	}
	one := bundletest.Build(t, bundletest.Options{Key: key})
	if _, err := bundle.Extract(io.Discard, bytes.NewReader(one), []bundle.PublicKey{key.Public()}, nil); err != nil {
		t.Errorf("extract: %v", err)
	}
	if !bytes.Equal(one, bundletest.Build(t, bundletest.Options{Key: key})) {
		t.Error("two signatures of one manifest with one key differ")
	}
}
