package iothub

import (
	"strings"
	"unicode/utf8"
)

const upperHex = "0123456789ABCDEF"

// unreserved tells the bytes that are never percent-encoded (RFC 3986 §2.3).
func unreserved(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return c == '-' || c == '.' || c == '_' || c == '~'
}

// named tells the bytes that stand as they are in an input's or method's name. Node compares such a name as
// received and Python decodes it first, so only what would break the topic is encoded.
func named(c byte) bool {
	return c > 0x1f && c != 0x7f && strings.IndexByte("/+#%?", c) < 0
}

// appendEscaped appends s with every byte percent-encoded that keep does not name.
func appendEscaped(dst []byte, s string, keep func(byte) bool) []byte {
	for i := range len(s) {
		if c := s[i]; keep(c) {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return dst
}

// escape percent-encodes everything but unreserved characters, with upper-case hex.
func escape(s string) string {
	return string(appendEscaped(make([]byte, 0, len(s)+16), s, unreserved))
}

// unescape decodes percent-escapes, either hex case. What is not an escape stays as it is, and a text whose
// decoded form would not be UTF-8 stays whole, as .NET's decoder (edgeHub's) leaves such sequences alone: a
// message is not lost because its sender forgot to encode a percent sign. It does not allocate when s has no '%'.
func unescape(s string) string {
	first := strings.IndexByte(s, '%')
	if first < 0 {
		return s
	}
	out := make([]byte, first, len(s))
	copy(out, s)
	for i := first; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			hi, lo := unhex(s[i+1]), unhex(s[i+2])
			if hi >= 0 && lo >= 0 {
				out = append(out, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	if !utf8.Valid(out) {
		return s
	}
	return string(out)
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
