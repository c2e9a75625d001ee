package bundle

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"slices"
	"strings"
)

// Algorithm is a signature algorithm, by its COSE number.
type Algorithm int64

// The algorithms of format 1.
const (
	EdDSA Algorithm = -8 // Ed25519, the default
	ES256 Algorithm = -7 // ECDSA P-256 with SHA-256, for keys in hardware
)

// ParseAlgorithm reads the word that String prints.
func ParseAlgorithm(s string) (Algorithm, error) {
	switch s {
	case "ed25519":
		return EdDSA, nil
	case "es256":
		return ES256, nil
	}
	return 0, fmt.Errorf("algorithm %q: want ed25519 or es256", s)
}

// String prints the algorithm's word.
func (a Algorithm) String() string {
	switch a {
	case EdDSA:
		return "ed25519"
	case ES256:
		return "es256"
	}
	return fmt.Sprintf("algorithm %d", int64(a))
}

// KeyID names a public key: the first half of its RFC 9679 thumbprint.
type KeyID [16]byte

// String prints the id in hexadecimal.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText is String, for JSON.
func (id KeyID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// PublicKey is a key that may be trusted, and for what. The zero value verifies nothing.
type PublicKey struct {
	Name     string   // for messages: where the key came from
	Prefixes []string // module-name prefixes it may sign; none = every module
	key      crypto.PublicKey
}

// pemLimit bounds a key file, in bytes; ours have about 120.
const pemLimit = 8 << 10

// ParsePublicKey reads a public key file. See the package doc for its format.
func ParsePublicKey(text []byte) (PublicKey, error) {
	der, err := onlyBlock(text, "PUBLIC KEY")
	if err != nil {
		return PublicKey{}, fmt.Errorf("public key: %w", err)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return PublicKey{}, fmt.Errorf("public key: %w", err)
	}
	if algorithmOf(key) == 0 {
		return PublicKey{}, fmt.Errorf("public key: a %T, want Ed25519 or ECDSA P-256", key)
	}
	return PublicKey{key: key}, nil
}

// Marshal prints the key as its file.
func (k PublicKey) Marshal() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k.key)
	if err != nil {
		return nil, fmt.Errorf("marshal public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// IsZero reports whether there is no key.
func (k PublicKey) IsZero() bool { return k.key == nil }

// Algorithm returns the one algorithm the key is used with, 0 for the zero key.
func (k PublicKey) Algorithm() Algorithm { return algorithmOf(k.key) }

// Allows reports whether the key may sign for the module name.
func (k PublicKey) Allows(module string) bool {
	return len(k.Prefixes) == 0 || slices.ContainsFunc(k.Prefixes, func(p string) bool { return strings.HasPrefix(module, p) })
}

// String prints the name and the id: a public key is no secret.
func (k PublicKey) String() string {
	if k.IsZero() {
		return "no key"
	}
	if k.Name == "" {
		return k.ID().String()
	}
	return fmt.Sprintf("%s (%s)", k.Name, k.ID())
}

// ID returns the key's id, zero for the zero key.
func (k PublicKey) ID() KeyID {
	var members any
	switch key := k.key.(type) {
	case ed25519.PublicKey:
		members = struct {
			Type  int    `cbor:"1,keyasint"`
			Curve int    `cbor:"-1,keyasint"`
			X     []byte `cbor:"-2,keyasint"`
		}{coseOKP, coseEd25519, key}
	case *ecdsa.PublicKey:
		point, err := key.Bytes() // uncompressed: 4, x, y
		if err != nil {
			return KeyID{}
		}
		members = struct {
			Type  int    `cbor:"1,keyasint"`
			Curve int    `cbor:"-1,keyasint"`
			X     []byte `cbor:"-2,keyasint"`
			Y     []byte `cbor:"-3,keyasint"`
		}{coseEC2, coseP256, point[1:33], point[33:65]}
	default:
		return KeyID{}
	}
	sum := sha256.Sum256(dialect().encode(members))
	return KeyID(sum[:len(KeyID{})])
}

// verifies reports whether the signature is the key's over the message: for ES256 r and s of 32 bytes each, as COSE has them.
func (k PublicKey) verifies(message, signature []byte) bool {
	switch key := k.key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(key, message, signature)
	case *ecdsa.PublicKey:
		if len(signature) != 2*coordinate {
			return false
		}
		sum := sha256.Sum256(message)
		return ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(signature[:coordinate]), new(big.Int).SetBytes(signature[coordinate:]))
	}
	return false
}

// coordinate is the length of a P-256 number, in bytes.
const coordinate = 32

// Numbers of the COSE registries.
const (
	coseOKP     = 1
	coseEC2     = 2
	coseP256    = 1
	coseEd25519 = 6
)

// PrivateKey signs manifests. It prints as nothing but a word.
type PrivateKey struct{ signer crypto.Signer }

// GenerateKey makes a private key.
func GenerateKey(a Algorithm) (PrivateKey, error) {
	switch a {
	case EdDSA:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return PrivateKey{key}, err
	case ES256:
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		return PrivateKey{key}, err
	}
	return PrivateKey{}, fmt.Errorf("generate key: %v is not supported", a)
}

// NewPrivateKey wraps a signer, for instance of a hardware token. The key must be Ed25519 or ECDSA P-256.
func NewPrivateKey(s crypto.Signer) (PrivateKey, error) {
	if algorithmOf(s.Public()) == 0 {
		return PrivateKey{}, fmt.Errorf("private key: a %T, want Ed25519 or ECDSA P-256", s.Public())
	}
	return PrivateKey{s}, nil
}

// ParsePrivateKey reads a private key file. See the package doc for its format.
func ParsePrivateKey(text []byte) (PrivateKey, error) {
	der, err := onlyBlock(text, "PRIVATE KEY")
	if err != nil {
		return PrivateKey{}, fmt.Errorf("private key: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("private key: not a PKCS #8 key") // the parser's words may quote the key
	}
	s, ok := key.(crypto.Signer)
	if !ok {
		return PrivateKey{}, fmt.Errorf("private key: a %T, want Ed25519 or ECDSA P-256", key)
	}
	return NewPrivateKey(s)
}

// Marshal prints the key as its file: a secret.
func (k PrivateKey) Marshal() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.signer)
	if err != nil {
		return nil, fmt.Errorf("marshal private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Public returns the public half.
func (k PrivateKey) Public() PublicKey {
	if k.signer == nil {
		return PublicKey{}
	}
	return PublicKey{key: k.signer.Public()}
}

// Format hides the key from every verb of fmt.
func (PrivateKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[private key]") }

// LogValue hides the key from slog.
func (PrivateKey) LogValue() slog.Value { return slog.StringValue("[private key]") }

// MarshalText hides the key from JSON and TOML.
func (PrivateKey) MarshalText() ([]byte, error) { return []byte("[private key]"), nil }

// sign makes a signature over the message. ECDSA is deterministic (RFC 6979) where the key can do without chance, so that the same
// manifest and key give the same bundle; a key in a token may insist on its own.
func (k PrivateKey) sign(message []byte) ([]byte, error) {
	if k.Public().Algorithm() == EdDSA {
		return k.signer.Sign(rand.Reader, message, crypto.Hash(0))
	}
	sum := sha256.Sum256(message)
	chance := rand.Reader
	if _, ok := k.signer.(*ecdsa.PrivateKey); ok {
		chance = nil
	}
	der, err := k.signer.Sign(chance, sum[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var point struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &point); err != nil || len(rest) != 0 || point.R.Sign() <= 0 || point.S.Sign() <= 0 ||
		point.R.BitLen() > 8*coordinate || point.S.BitLen() > 8*coordinate {
		return nil, fmt.Errorf("the key gave no ECDSA signature of P-256")
	}
	signature := make([]byte, 2*coordinate)
	point.R.FillBytes(signature[:coordinate])
	point.S.FillBytes(signature[coordinate:])
	return signature, nil
}

func algorithmOf(key crypto.PublicKey) Algorithm {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return EdDSA
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return ES256
		}
	}
	return 0
}

func onlyBlock(text []byte, kind string) ([]byte, error) {
	if len(text) > pemLimit {
		return nil, fmt.Errorf("a file of %d bytes, want a PEM block %q", len(text), kind)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != kind || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("want one PEM block %q and nothing else", kind)
	}
	return block.Bytes, nil
}
