package route

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxText is the longest route text that [Parse] looks at, in bytes: that of a whole desired section.
const MaxText = 32768

// ParseError says where a route text stops making sense.
type ParseError struct {
	Offset int    // bytes from the start of the text
	What   string // what stands there, quoted or described
	Want   string // what would have been right
}

// Error prints place, finding and expectation in one line.
func (e *ParseError) Error() string {
	return fmt.Sprintf("route text at %d: %s, want %s", e.Offset, e.What, e.Want)
}

// lexer walks over a route text. Its words depend on where it is, so there is no token list: the parser asks for
// what may come next.
type lexer struct {
	text string
	at   int
}

// space skips white space.
func (l *lexer) space() {
	for l.at < len(l.text) && strings.IndexByte(" \t\r\n", l.text[l.at]) >= 0 {
		l.at++
	}
}

// fail describes what stands at the cursor.
func (l *lexer) fail(want string) error { return l.failAt(l.at, want) }

func (l *lexer) failAt(at int, want string) error {
	what := "the text ends"
	if at < len(l.text) {
		word := l.text[at:]
		if end := strings.IndexAny(word, " \t\r\n"); end > 0 {
			word = word[:end]
		}
		if len(word) > 40 {
			word = word[:40] + "…"
		}
		what = "found " + strconv.Quote(word)
	}
	return &ParseError{Offset: at, What: what, Want: want}
}

// keyword takes the word, in any case, if it comes next as a whole word.
func (l *lexer) keyword(word string) bool {
	l.space()
	end := l.at + len(word)
	if end > len(l.text) || !strings.EqualFold(l.text[l.at:end], word) {
		return false
	}
	if end < len(l.text) && wordByte(l.text[end]) {
		return false
	}
	l.at = end
	return true
}

// byte takes c if it comes next.
func (l *lexer) byte(c byte) bool {
	l.space()
	if l.at < len(l.text) && l.text[l.at] == c {
		l.at++
		return true
	}
	return false
}

// path takes everything up to white space.
func (l *lexer) path() string {
	l.space()
	start := l.at
	if end := strings.IndexAny(l.text[start:], " \t\r\n"); end >= 0 {
		l.at += end
	} else {
		l.at = len(l.text)
	}
	return l.text[start:l.at]
}

// quoted takes a string in single or double quotes and resolves its escapes.
func (l *lexer) quoted() (string, error) {
	l.space()
	start := l.at
	if start >= len(l.text) || l.text[start] != '\'' && l.text[start] != '"' {
		return "", l.fail("a string in quotes")
	}
	quote := l.text[start]
	l.at++
	var b strings.Builder
	for l.at < len(l.text) {
		c := l.text[l.at]
		switch c {
		case quote:
			l.at++
			return b.String(), nil
		case '\\':
			r, err := l.escape()
			if err != nil {
				return "", err
			}
			b.WriteRune(r)
		default:
			b.WriteByte(c)
			l.at++
		}
	}
	return "", l.failAt(start, "the closing quote of this string")
}

// escape takes a backslash and what it stands for.
func (l *lexer) escape() (rune, error) {
	start := l.at
	l.at++
	if l.at >= len(l.text) {
		return 0, l.fail("a character behind the backslash")
	}
	c := l.text[l.at]
	l.at++
	switch c {
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case '\\', '\'', '"', '/':
		return rune(c), nil
	case 'u':
		high, err := l.unit(start)
		if err != nil {
			return 0, err
		}
		if high < 0xd800 || high > 0xdfff {
			return high, nil
		}
		if high < 0xdc00 && strings.HasPrefix(l.text[l.at:], `\u`) {
			l.at += 2
			low, err := l.unit(start)
			if err != nil {
				return 0, err
			}
			if low >= 0xdc00 && low <= 0xdfff {
				return 0x10000 + (high-0xd800)<<10 + (low - 0xdc00), nil
			}
		}
		return 0, l.failAt(start, "a pair of surrogates")
	}
	return 0, l.failAt(start, `one of \b \f \n \r \t \\ \' \" \/ \uXXXX`)
}

// unit takes the four hex digits of one UTF-16 unit.
func (l *lexer) unit(start int) (rune, error) {
	if l.at+4 > len(l.text) {
		return 0, l.failAt(start, "four hex digits behind \\u")
	}
	n, err := strconv.ParseUint(l.text[l.at:l.at+4], 16, 16)
	if err != nil {
		return 0, l.failAt(start, "four hex digits behind \\u")
	}
	l.at += 4
	return rune(n), nil
}

// wordByte tells the bytes that a bare word consists of.
func wordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf
}

// appendQuoted prints a string literal in double quotes, which quoted reads back.
func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r < 0x20 || r == 0x7f:
			dst = fmt.Appendf(dst, `\u%04x`, r)
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}
