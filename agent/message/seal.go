package message

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// The algorithms of a [Seal].
const (
	SealKey         = "hmac-sha256" // with the device's symmetric key, which the hub has too
	SealCertificate = "x509-sha256" // with the private key of the certificate beside it
)

// ErrSeal is wrapped when a signature is not that of whom it should be from.
var ErrSeal = errors.New("signature is not valid")

// Seal is a signature over the digest of a file, and what is needed to judge it.
type Seal struct {
	Algorithm   string
	Signature   []byte
	Certificate []byte // DER of the leaf, with SealCertificate
	digest      []byte
}

// Signer signs a digest.
type Signer func(digest []byte) (Seal, error)

// Verifier judges the seal of a digest. Its error wraps [ErrSeal].
type Verifier func(digest []byte, seal Seal) error

// sealed is what is signed: nothing else that this key signs begins like this.
func sealed(digest []byte) []byte { return append([]byte("sandpiper queue export 1\n"), digest...) }

// SignWithKey signs with a symmetric key.
func SignWithKey(key iothub.Key) Signer {
	return func(digest []byte) (Seal, error) {
		return Seal{Algorithm: SealKey, Signature: key.Sign(sealed(digest))}, nil
	}
}

// VerifyWithKeys accepts a signature of any of some symmetric keys.
func VerifyWithKeys(keys ...iothub.Key) Verifier {
	return func(digest []byte, s Seal) error {
		if s.Algorithm != SealKey {
			return fmt.Errorf("%w: it is signed by %.32q, want %q", ErrSeal, s.Algorithm, SealKey)
		}
		for _, key := range keys {
			if hmac.Equal(key.Sign(sealed(digest)), s.Signature) {
				return nil
			}
		}
		return fmt.Errorf("%w: no key of the identity made it", ErrSeal)
	}
}

// SignWithCertificate signs with the private key of a certificate.
func SignWithCertificate(pair tls.Certificate) Signer {
	return func(digest []byte) (Seal, error) {
		key, ok := pair.PrivateKey.(crypto.Signer)
		if !ok || len(pair.Certificate) == 0 {
			return Seal{}, errors.New("the certificate's private key cannot sign")
		}
		data, opts := sealed(digest), crypto.SignerOpts(crypto.Hash(0))
		if _, plain := key.Public().(ed25519.PublicKey); !plain {
			sum := crypto.SHA256.New()
			_, _ = sum.Write(data) // a hash takes everything
			data, opts = sum.Sum(nil), crypto.SHA256
		}
		signature, err := key.Sign(rand.Reader, data, opts)
		return Seal{Algorithm: SealCertificate, Signature: signature, Certificate: pair.Certificate[0]}, err
	}
}

// VerifyWithCertificate accepts a signature by a certificate that accept says yes to.
func VerifyWithCertificate(accept func(*x509.Certificate) error) Verifier {
	return func(digest []byte, s Seal) error {
		if s.Algorithm != SealCertificate {
			return fmt.Errorf("%w: it is signed by %.32q, want %q", ErrSeal, s.Algorithm, SealCertificate)
		}
		leaf, err := x509.ParseCertificate(s.Certificate)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrSeal, err)
		}
		if err := accept(leaf); err != nil {
			return fmt.Errorf("%w: %w", ErrSeal, err)
		}
		data := sealed(digest)
		sum := crypto.SHA256.New()
		_, _ = sum.Write(data) // a hash takes everything
		good := false
		switch key := leaf.PublicKey.(type) {
		case ed25519.PublicKey:
			good = ed25519.Verify(key, data, s.Signature)
		case *ecdsa.PublicKey:
			good = ecdsa.VerifyASN1(key, sum.Sum(nil), s.Signature)
		case *rsa.PublicKey:
			good = rsa.VerifyPKCS1v15(key, crypto.SHA256, sum.Sum(nil), s.Signature) == nil
		}
		if !good {
			return fmt.Errorf("%w: the certificate %s did not make it", ErrSeal, leaf.Subject.CommonName)
		}
		return nil
	}
}
