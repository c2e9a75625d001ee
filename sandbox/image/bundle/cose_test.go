package bundle_test

import (
	"testing"

	"github.com/veraison/go-cose"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

// TestEnvelopesAreCOSEForOthers holds our few lines of COSE against a library that knows all of it, in both directions.
func TestEnvelopesAreCOSEForOthers(t *testing.T) {
	t.Parallel()
	es256, err := bundle.GenerateKey(bundle.ES256)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]bundle.PrivateKey{"ed25519": bundletest.Key(t, 1), "es256": es256} {
		e, _, _ := bundle.Parts(bundletest.Build(t, bundletest.Options{Key: key}))
		alg := cose.Algorithm(key.Public().Algorithm())
		verifier, err := cose.NewVerifier(alg, bundle.Crypto(key.Public()))
		if err != nil {
			t.Fatal(err)
		}
		var theirs cose.Sign1Message
		if err := theirs.UnmarshalCBOR(e.Encode()); err != nil {
			t.Fatalf("%s: our envelope: %v", name, err)
		}
		if err := theirs.Verify([]byte(bundle.ExternalAAD), verifier); err != nil {
			t.Errorf("%s: our signature: %v", name, err)
		}
		signer, err := cose.NewSigner(alg, bundle.Signer(key))
		if err != nil {
			t.Fatal(err)
		}
		if err := theirs.Sign(nil, []byte(bundle.ExternalAAD), signer); err == nil {
			t.Errorf("%s: a message was signed twice", name)
		}
		theirs.Signature = nil
		if err := theirs.Sign(nil, []byte(bundle.ExternalAAD), signer); err != nil {
			t.Fatal(err)
		}
		raw, err := theirs.MarshalCBOR()
		if err != nil {
			t.Fatal(err)
		}
		back, err := bundle.ParseEnvelope(raw)
		if err != nil {
			t.Fatalf("%s: their envelope: %v", name, err)
		}
		if _, _, err := back.Open([]bundle.PublicKey{key.Public()}); err != nil {
			t.Errorf("%s: their signature: %v", name, err)
		}
	}
}
