package bundle

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/fxamacker/cbor/v2"
)

// Envelope is a decoded COSE_Sign1: the manifest's bytes and the signature over them. Its unprotected header is always empty.
type Envelope struct {
	Protected []byte // encoded header; empty when unsigned
	Payload   []byte // encoded manifest
	Signature []byte // empty when unsigned
}

const (
	contentType = "application/sandpiper-manifest+cbor"
	externalAAD = "sandpiper/bundle/v1"
	tagSign1    = 0xd2 // CBOR tag 18 in one byte
	rebuild     = "get the bundle from its publisher again"
)

// sign1 is the array inside tag 18.
type sign1 struct {
	_           struct{} `cbor:",toarray"`
	Protected   []byte
	Unprotected map[int64]cbor.RawMessage
	Payload     []byte
	Signature   []byte
}

// header is the one protected header of format 1.
type header struct {
	Algorithm int64  `cbor:"1,keyasint"`
	Type      string `cbor:"3,keyasint"`
	KeyID     []byte `cbor:"4,keyasint"`
}

// ParseEnvelope reads an envelope without checking its signature. What it accepts prints back to the same bytes.
func ParseEnvelope(b []byte) (Envelope, error) {
	if len(b) == 0 || len(b) > MaxEnvelope || b[0] != tagSign1 {
		return Envelope{}, Reject(ErrSignature, "the envelope is no COSE_Sign1: %s", rebuild)
	}
	var raw sign1
	if err := dialect().decode(b[1:], &raw); err != nil {
		return Envelope{}, &Error{Code: ErrSignature, Why: fmt.Sprintf("envelope: %v: %s", err, rebuild), Err: err}
	}
	switch {
	case raw.Protected == nil || raw.Payload == nil || raw.Signature == nil:
		return Envelope{}, Reject(ErrSignature, "envelope: a part is null: %s", rebuild)
	case raw.Unprotected == nil || len(raw.Unprotected) != 0:
		return Envelope{}, Reject(ErrSignature, "envelope: the unprotected header is not empty: %s", rebuild)
	}
	return Envelope{Protected: raw.Protected, Payload: raw.Payload, Signature: raw.Signature}, nil
}

// Encode prints the envelope.
func (e Envelope) Encode() []byte {
	array := dialect().encode(sign1{
		Protected:   notNil(e.Protected),
		Unprotected: map[int64]cbor.RawMessage{},
		Payload:     notNil(e.Payload),
		Signature:   notNil(e.Signature),
	})
	return append([]byte{tagSign1}, array...)
}

// Digest is the bundle's identity: the digest of its manifest.
func (e Envelope) Digest() Digest { return sha256.Sum256(e.Payload) }

// Signed reports whether there is a signature at all; nothing is said of its worth.
func (e Envelope) Signed() bool { return len(e.Signature) > 0 }

// Signer returns what the envelope claims about its key, unchecked. ok is false when there is no such claim.
func (e Envelope) Signer() (id KeyID, alg Algorithm, ok bool) {
	var h struct {
		Algorithm any    `cbor:"1,keyasint"`
		KeyID     []byte `cbor:"4,keyasint"`
	}
	loose, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden}.DecMode()
	if err != nil || loose.Unmarshal(e.Protected, &h) != nil || len(h.KeyID) != len(id) {
		return KeyID{}, 0, false
	}
	switch n := h.Algorithm.(type) {
	case int64:
		alg = Algorithm(n)
	case uint64:
		alg = Algorithm(min(n, 1<<32)) // no algorithm of ours is positive
	}
	return KeyID(h.KeyID), alg, true
}

// Verify finds the trusted key that the envelope names and checks the signature with it and with that key's algorithm.
func (e Envelope) Verify(trusted []PublicKey) (PublicKey, error) {
	if !e.Signed() {
		return PublicKey{}, Reject(ErrSignature, "the bundle is not signed: sign it with sandpiper-bundle sign")
	}
	id, alg, ok := e.Signer()
	if !ok {
		return PublicKey{}, Reject(ErrSignature, "envelope: the protected header names no key: %s", rebuild)
	}
	i := slices.IndexFunc(trusted, func(k PublicKey) bool { return !k.IsZero() && k.ID() == id })
	if i < 0 {
		return PublicKey{}, Reject(ErrKey, "signed by the unknown key %v, trusted are %s: add the publisher's public key file to bundles.trusted_keys", id, keyList(trusted))
	}
	key := trusted[i]
	if alg != key.Algorithm() {
		return PublicKey{}, Reject(ErrAlgorithm, "signed with %v, but key %v is for %v: %s", alg, key, key.Algorithm(), rebuild)
	}
	if !bytes.Equal(e.Protected, protectedHeader(key)) {
		return PublicKey{}, Reject(ErrSignature, "envelope: the protected header holds more or other than alg, type and kid: %s", rebuild)
	}
	if !key.verifies(e.toBeSigned(), e.Signature) {
		return PublicKey{}, Reject(ErrSignature, "the signature does not verify with key %v: the bundle was changed after it was signed; %s", key, rebuild)
	}
	return key, nil
}

// Open checks the signature, then reads the manifest, then checks that the key may sign it.
func (e Envelope) Open(trusted []PublicKey) (Manifest, PublicKey, error) {
	key, err := e.Verify(trusted)
	if err != nil {
		return Manifest{}, PublicKey{}, err
	}
	m, err := ParseManifest(e.Payload)
	if err != nil {
		return Manifest{}, PublicKey{}, err
	}
	if !slices.ContainsFunc(trusted, func(k PublicKey) bool { return !k.IsZero() && k.ID() == key.ID() && k.Allows(m.Name) }) {
		return Manifest{}, PublicKey{}, Reject(ErrRole, "key %v may not sign for module %q, only for names starting with %q: ask the publisher, or change bundles.trusted_keys", key, m.Name, key.Prefixes)
	}
	return m, key, nil
}

// Sign makes the envelope of a manifest.
func Sign(m Manifest, key PrivateKey) (Envelope, error) {
	payload, err := m.Encode()
	if err != nil {
		return Envelope{}, err
	}
	e := Envelope{Protected: protectedHeader(key.Public()), Payload: payload}
	if e.Signature, err = key.sign(e.toBeSigned()); err != nil {
		return Envelope{}, fmt.Errorf("sign manifest: %w", err)
	}
	return e, nil
}

// toBeSigned is the Sig_structure of RFC 9052, 4.4.
func (e Envelope) toBeSigned() []byte {
	return sigStructure(e.Protected, e.Payload, externalAAD)
}

func sigStructure(protected, payload []byte, aad string) []byte {
	return dialect().encode(struct {
		_         struct{} `cbor:",toarray"`
		Context   string
		Protected []byte
		AAD       []byte
		Payload   []byte
	}{Context: "Signature1", Protected: notNil(protected), AAD: []byte(aad), Payload: notNil(payload)})
}

// Unsigned makes the envelope of a manifest that is still to be signed. No device accepts it.
func Unsigned(m Manifest) (Envelope, error) {
	payload, err := m.Encode()
	return Envelope{Payload: payload}, err
}

func protectedHeader(key PublicKey) []byte {
	id := key.ID()
	return dialect().encode(header{Algorithm: int64(key.Algorithm()), Type: contentType, KeyID: id[:]})
}

func keyList(keys []PublicKey) string {
	if len(keys) == 0 {
		return "none"
	}
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.String()
	}
	return strings.Join(names, ", ")
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
