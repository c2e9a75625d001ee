package bundle_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

func digestOf(b []byte) bundle.Digest { return sha256.Sum256(b) }

func TestKeyFilesPrintBackTheSame(t *testing.T) {
	t.Parallel()
	for _, alg := range []bundle.Algorithm{bundle.EdDSA, bundle.ES256} {
		key, err := bundle.GenerateKey(alg)
		if err != nil {
			t.Fatal(err)
		}
		secret, err := key.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := bundle.ParsePrivateKey(secret)
		if err != nil || again.Public().ID() != key.Public().ID() {
			t.Errorf("%v private key: got %v %v, want %v", alg, again.Public(), err, key.Public())
		}
		text, err := key.Public().Marshal()
		if err != nil {
			t.Fatal(err)
		}
		pub, err := bundle.ParsePublicKey(text)
		if err != nil || pub.ID() != key.Public().ID() || pub.Algorithm() != alg {
			t.Errorf("%v public key: got %v %v %v, want %v", alg, pub, pub.Algorithm(), err, key.Public())
		}
		if _, err := bundle.ParsePublicKey(secret); err == nil {
			t.Errorf("%v: a private key file passed as a public one", alg)
		}
		if _, err := bundle.ParsePublicKey(append(text, text...)); err == nil {
			t.Errorf("%v: two keys in one file passed", alg)
		}
	}
}

// The key and the thumbprint are the example of RFC 9679, section 6.
func TestKeyIDIsTheThumbprintOfRFC9679(t *testing.T) {
	t.Parallel()
	number := func(s string) *big.Int {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return new(big.Int).SetBytes(b)
	}
	pub := &ecdsa.PublicKey{
		Curve: elliptic.P256(),
		X:     number("65eda5a12577c2bae829437fe338701a10aaa375e1bb5b5de108de439c08551d"),
		Y:     number("1e52ed75701163f7f9e40ddf9f341b3dc9ba860af7e0ca7ca7e9eecd0084d19c"),
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	key, err := bundle.ParsePublicKey(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := key.ID().String(), "496bd8afadf307e5b08c64b0421bf9dc"; got != want {
		t.Errorf("key id: got %s, want %s", got, want)
	}
}

func TestKeysOfOtherKindsAreRefused(t *testing.T) {
	t.Parallel()
	der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: big.NewInt(0).Lsh(big.NewInt(1), 2047), E: 65537})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"RSA":        pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		"no PEM":     []byte("ssh-ed25519 AAAA"),
		"empty":      nil,
		"not a key":  pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}),
		"a whole MB": make([]byte, 1<<20),
	} {
		if _, err := bundle.ParsePublicKey(text); err == nil {
			t.Errorf("%s: parsed as a public key", name)
		}
	}
}

func TestPrivateKeysDoNotPrint(t *testing.T) {
	t.Parallel()
	key := bundletest.Key(t, 9)
	text, err := json.Marshal(struct{ K bundle.PrivateKey }{key})
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{
		fmt.Sprint(key), fmt.Sprintf("%+v", key), fmt.Sprintf("%#v", key), fmt.Sprintf("%x", key), fmt.Sprintf("%d", key),
		fmt.Sprintf("%v", &key), fmt.Sprintf("%+v", struct{ K bundle.PrivateKey }{key}), slog.AnyValue(key).Resolve().String(), string(text),
	} {
		if !strings.Contains(got, "[private key]") || strings.Contains(got, "0909") || strings.Contains(got, "9 9") {
			t.Errorf("a private key prints as %q", got)
		}
	}
}

// A text that is a key prints back to one that is the same key.
func FuzzKeyFile(f *testing.F) {
	key := bundletest.Key(f, 1)
	public, err := key.Public().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	private, err := key.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(public)
	f.Add(private)
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if k, err := bundle.ParsePublicKey(text); err == nil {
			again, err := k.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if same, err := bundle.ParsePublicKey(again); err != nil || same.ID() != k.ID() {
				t.Errorf("got %v, %v, want %v", same.ID(), err, k.ID())
			}
		}
		if k, err := bundle.ParsePrivateKey(text); err == nil && k.Public().IsZero() {
			t.Error("a private key without its public half")
		}
	})
}
