package state

import (
	"errors"
	"fmt"
	"strings"
)

// maxToken is the longest escaped token in bytes: 128 characters of three bytes each.
const maxToken = 384

// ErrToken is a token that no identifier escapes to.
var ErrToken = errors.New("not an escaped token")

// escape turns one identifier into one subject token: letters, digits, '_' and '-' stay, every other byte becomes =XX.
// The identifier "_" alone is escaped too, because a lone "_" means "no module" in a log subject.
func escape(id string) string {
	if id == "_" {
		return "=5F"
	}
	plain := true
	for i := range len(id) {
		if !tokenByte(id[i]) {
			plain = false
			break
		}
	}
	if plain {
		return id
	}
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(id) + 8)
	for i := range len(id) {
		c := id[i]
		if tokenByte(c) {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('=')
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
	return b.String()
}

// unescape is the inverse of escape. It refuses every text that escape would not have written.
func unescape(token string) (string, error) {
	if token == "" || len(token) > maxToken {
		return "", fmt.Errorf("%w: length %d", ErrToken, len(token))
	}
	if !strings.Contains(token, "=") {
		for i := range len(token) {
			if !tokenByte(token[i]) {
				return "", fmt.Errorf("%w: byte %#x at %d", ErrToken, token[i], i)
			}
		}
		if token == "_" {
			return "", fmt.Errorf("%w: a lone underscore", ErrToken)
		}
		return token, nil
	}
	out := make([]byte, 0, len(token))
	for i := 0; i < len(token); i++ {
		c := token[i]
		if tokenByte(c) {
			out = append(out, c)
			continue
		}
		if c != '=' || i+2 >= len(token) {
			return "", fmt.Errorf("%w: byte %#x at %d", ErrToken, c, i)
		}
		high, low := unhex(token[i+1]), unhex(token[i+2])
		if high < 0 || low < 0 {
			return "", fmt.Errorf("%w: bad escape at %d", ErrToken, i)
		}
		out = append(out, byte(high<<4|low))
		i += 2
	}
	id := string(out)
	if escape(id) != token {
		return "", fmt.Errorf("%w: %q has a shorter form", ErrToken, token)
	}
	return id, nil
}

func tokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// unhex reads one upper-case hexadecimal digit; -1 when it is none.
func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
