package identity

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

const sealKey = "identity/seal"

// sealVersion is the first byte of every ciphertext.
const sealVersion = 1

const nonceSize = 12

// ErrSealed is returned for a ciphertext that was made by another module, generation, vector or device, or was altered.
var ErrSealed = errors.New("ciphertext does not open for this module, generation and initialization vector")

// sealDoc is the durable form of the device's master key. Version 1.
type sealDoc struct {
	V   int    `json:"v"`
	Key []byte `json:"key"` // 32 random bytes
}

// vault encrypts for modules. From the master key it derives one key per module and generation, so a ciphertext opens only
// for the identity it was made for. Callers choose the initialization vector and are known to repeat it, which would break
// plain GCM; so the nonce is a MAC of vector and plaintext: equal inputs give equal outputs and nothing else is given away.
type vault struct{ master []byte }

func openVault(ctx context.Context, docs Docs) (*vault, error) {
	var doc sealDoc
	found, err := load(docs, sealKey, &doc)
	if err != nil {
		return nil, err
	}
	if !found {
		doc = sealDoc{V: 1, Key: make([]byte, 32)}
		rand.Read(doc.Key) // never fails: it ends the process instead
		if err := save(ctx, docs, sealKey, doc); err != nil {
			return nil, err
		}
	}
	if doc.V != 1 || len(doc.Key) != 32 {
		return nil, fmt.Errorf("master key in the store: version %d with %d bytes is not known here; was it written by a newer agent?", doc.V, len(doc.Key))
	}
	return &vault{master: doc.Key}, nil
}

// Format hides the key under every verb.
func (v *vault) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("vault")) }

// Seal encrypts plaintext for one module and generation. The vector must be given again to open it.
func (r *Registry) Seal(module, generation string, vector, plaintext []byte) ([]byte, error) {
	return r.vault.seal(module, generation, vector, plaintext)
}

// Open decrypts what [Registry.Seal] made for the same module, generation and vector; else [ErrSealed].
func (r *Registry) Open(module, generation string, vector, ciphertext []byte) ([]byte, error) {
	return r.vault.open(module, generation, vector, ciphertext)
}

func (v *vault) seal(module, generation string, vector, plaintext []byte) ([]byte, error) {
	aead, mac, err := v.keys(module, generation)
	if err != nil {
		return nil, err
	}
	nonce := synthetic(mac, vector, plaintext)
	out := append([]byte{sealVersion}, nonce...)
	return aead.Seal(out, nonce, plaintext, bind(module, generation, string(vector))), nil
}

func (v *vault) open(module, generation string, vector, ciphertext []byte) ([]byte, error) {
	if len(ciphertext) < 1+nonceSize || ciphertext[0] != sealVersion {
		return nil, ErrSealed
	}
	aead, _, err := v.keys(module, generation)
	if err != nil {
		return nil, err
	}
	nonce, body := ciphertext[1:1+nonceSize], ciphertext[1+nonceSize:]
	plaintext, err := aead.Open(nil, nonce, body, bind(module, generation, string(vector)))
	if err != nil {
		return nil, ErrSealed
	}
	return plaintext, nil
}

// keys derives the encryption key and the nonce key of one module and generation.
func (v *vault) keys(module, generation string) (cipher.AEAD, []byte, error) {
	both, err := hkdf.Key(sha256.New, v.master, nil, string(bind("sandpiper workload", module, generation)), 64)
	if err != nil {
		return nil, nil, err
	}
	block, err := aes.NewCipher(both[:32])
	if err != nil {
		return nil, nil, err
	}
	aead, err := cipher.NewGCM(block)
	return aead, both[32:], err
}

// synthetic is the nonce for this vector and plaintext.
func synthetic(key, vector, plaintext []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(bind(string(vector)))
	mac.Write(plaintext)
	return mac.Sum(nil)[:nonceSize]
}

// bind joins parts so that no two lists give the same bytes: each part follows its length.
func bind(parts ...string) []byte {
	var out []byte
	for _, part := range parts {
		out = binary.BigEndian.AppendUint32(out, uint32(len(part)))
		out = append(out, part...)
	}
	return out
}
