package bundle

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// Digest is a SHA-256. Its text form is "sha256:" and 64 lower-case hexadecimal digits.
type Digest [32]byte

const digestPrefix = "sha256:"

// ParseDigest reads the text form, and nothing else.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	digits, ok := strings.CutPrefix(s, digestPrefix)
	if !ok || len(digits) != 2*len(d) || strings.ToLower(digits) != digits {
		return Digest{}, fmt.Errorf("digest %q: want sha256: and 64 lower-case hexadecimal digits", s)
	}
	if _, err := hex.Decode(d[:], []byte(digits)); err != nil {
		return Digest{}, fmt.Errorf("digest %q: want sha256: and 64 lower-case hexadecimal digits", s)
	}
	return d, nil
}

// String returns the text form.
func (d Digest) String() string { return digestPrefix + d.Hex() }

// Hex returns the digits alone, as file names use them.
func (d Digest) Hex() string { return hex.EncodeToString(d[:]) }

// IsZero reports the zero value, which no content has.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText is String, for JSON.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is ParseDigest, for JSON.
func (d *Digest) UnmarshalText(text []byte) error {
	v, err := ParseDigest(string(text))
	if err == nil {
		*d = v
	}
	return err
}
