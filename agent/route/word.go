package route

import (
	"errors"
	"strconv"
	"strings"
)

// tokenKind tells the words of a condition apart.
type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenMark
	tokenWord
	tokenKeyword
	tokenText
	tokenNumber
	tokenSystem
)

// token is one word of a condition.
type token struct {
	kind   tokenKind
	at     int     // where it begins
	text   string  // mark, keyword in upper case, word or name as written, or the text of a string
	number float64 // tokenNumber
}

// The longest match decides, as in edgeHub: nearly every printable character may be part of a property's name, so
// "a+b" and "-x" are names, whereas "a + b" and "- x" are sums and negations.
const (
	notInWord = "()<>@,;:\\\"/[]?={} \t\r\n"
	notInPath = "()<>@,;:\\\"/?={} \t\r\n"
)

// run is the length of the word at the cursor.
func (l *lexer) run(stop string) int {
	if n := strings.IndexAny(l.text[l.at:], stop); n >= 0 {
		return n
	}
	return len(l.text) - l.at
}

// token takes the next word of a condition.
func (l *lexer) token() (token, error) {
	l.space()
	t := token{at: l.at}
	if l.at >= len(l.text) {
		return t, nil
	}
	if mark := l.mark(); mark != "" {
		l.at += len(mark)
		t.kind, t.text = tokenMark, mark
		return t, nil
	}
	c, n := l.text[l.at], l.run(notInWord)
	if c == '"' || c == '\'' {
		var err error
		t.kind = tokenText
		t.text, err = l.quoted()
		return t, err
	}
	if c == '$' {
		if path := l.run(notInPath); path > 1 {
			t.kind, t.text = tokenSystem, l.text[l.at:l.at+path]
			l.at += path
			return t, nil
		}
	}
	if n == 0 {
		return token{}, l.fail("a condition")
	}
	t.text = l.text[l.at : l.at+n]
	l.at += n
	if !t.classify() {
		return token{}, l.failAt(t.at, "a number that fits 64 bits")
	}
	return t, nil
}

// mark returns the operator or bracket at the cursor.
func (l *lexer) mark() string {
	rest := l.text[l.at:]
	for _, mark := range [...]string{"<=", ">=", "<>", "??", "(", ")", "{", "}", ",", "<", ">", "=", "/"} {
		if strings.HasPrefix(rest, mark) {
			return mark
		}
	}
	switch word := rest[:l.run(notInWord)]; {
	case word == "!" && strings.HasPrefix(rest, "!="):
		return "!="
	case word == "*", word == "+", word == "-", word == "%", word == "||":
		return word
	}
	return ""
}

// classify tells numbers and keywords from names; false is a number that does not fit.
func (t *token) classify() bool {
	t.kind = tokenWord
	switch upper := strings.ToUpper(t.text); upper {
	case "AND", "OR", "NOT", "SELECT", "FROM", "WHERE", "INTO":
		t.kind, t.text = tokenKeyword, upper
		return true
	}
	switch t.text {
	case "true", "false", "null", "undefined":
		t.kind = tokenKeyword
		return true
	}
	n, is, fits := literalNumber(t.text)
	if is {
		t.kind, t.number = tokenNumber, n
	}
	return fits
}

// literalNumber reads a decimal or hexadecimal number. A word that is none is a name, and fits.
func literalNumber(word string) (n float64, is, fits bool) {
	if digits := word[min(2, len(word)):]; digits != "" && (word[:2] == "0x" || word[:2] == "0X") {
		if strings.Trim(digits, "0123456789abcdefABCDEF") != "" {
			return 0, false, true
		}
		whole, err := strconv.ParseUint(digits, 16, 63)
		return float64(whole), true, err == nil
	}
	if strings.Trim(word, "0123456789+-.eE") != "" || strings.IndexByte("+eE", word[0]) >= 0 ||
		strings.HasSuffix(word, ".") || strings.Contains(strings.ToLower(word), ".e") {
		return 0, false, true
	}
	n, err := strconv.ParseFloat(word, 64)
	if errors.Is(err, strconv.ErrRange) {
		return 0, true, false
	}
	return n, err == nil, true
}
