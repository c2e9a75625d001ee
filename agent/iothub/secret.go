package iothub

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
)

// hidden stands wherever a secret would have been printed.
const hidden = "[secret]"

// Secret is text that must not be printed: a token, a connection string. Every way of printing it by accident (fmt,
// slog, encoding/json, text marshalling) gives a placeholder; [Secret.Reveal] is the one way to the text.
//
// The trap of this type and of [Key]: fmt cannot call methods on an unexported field, so a struct that keeps a
// secret in one needs a String method of its own, or must not be printed.
type Secret string

// Reveal returns the text.
func (s Secret) Reveal() string { return string(s) }

// String hides the text.
func (s Secret) String() string { return hidden }

// GoString hides the text.
func (s Secret) GoString() string { return hidden }

// Format hides the text under every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// LogValue hides the text.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides the text, in JSON too. What must be written to a file says Reveal.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Key is a symmetric key. It hides like [Secret], with the same trap; [Key.Text] is the one way to its base64. In
// JSON it is read from base64 like any []byte.
type Key []byte

// keySize is the length of keys made here: what HMAC-SHA256 puts out, and what the service makes.
const keySize = 32

// NewKey makes a key of 32 random bytes.
func NewKey() Key {
	key := make(Key, keySize)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the program rather than return an error
	return key
}

// ParseKey reads a key from base64, at most [MaxKeyText] characters. An empty key is an error.
func ParseKey(text string) (Key, error) {
	if len(text) > MaxKeyText {
		return nil, syntax("key", "", "longer than 1024 characters")
	}
	key, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, syntax("key", "", "not base64")
	}
	if len(key) == 0 {
		return nil, syntax("key", "", "empty")
	}
	return key, nil
}

// Text is the key as base64.
func (k Key) Text() string { return base64.StdEncoding.EncodeToString(k) }

// Sign returns the HMAC-SHA256 of data, 32 bytes.
func (k Key) Sign(data []byte) []byte {
	mac := hmac.New(sha256.New, k)
	_, _ = mac.Write(data)
	return mac.Sum(nil)
}

// Signer returns [Key.Sign] in the form that [MintToken] takes.
func (k Key) Signer() func(data []byte) ([]byte, error) {
	return func(data []byte) ([]byte, error) { return k.Sign(data), nil }
}

// String hides the key.
func (k Key) String() string { return hidden }

// GoString hides the key.
func (k Key) GoString() string { return hidden }

// Format hides the key under every verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// LogValue hides the key.
func (k Key) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalJSON hides the key. What must be written to a file says Text.
func (k Key) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }
