package route

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
)

// body is a JSON object in UTF-8 that is known to be valid, so that walking over it needs no checks; nil text is none.
// It is not decoded as a whole: one condition needs one member of it, and a device has little memory.
type body struct{ text []byte }

// openBody takes the body of a message, if its content type is exactly application/json, its encoding is one of three,
// and it holds an object. "application/json;charset=utf-8" does not satisfy edgeHub, and does not here.
func openBody(m *message.Message) body {
	contentType, _ := m.Bag.Get(iothub.PropContentType)
	if !strings.EqualFold(contentType, "application/json") {
		return body{}
	}
	encoding, _ := m.Bag.Get(iothub.PropContentEncoding)
	text := m.Body
	switch strings.ToLower(encoding) {
	case "utf-8":
	case "utf-16":
		text = fromUTF16(text)
	case "utf-32":
		text = fromUTF32(text)
	default:
		return body{}
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if start := bytes.TrimLeft(text, " \t\r\n"); len(start) == 0 || start[0] != '{' || !json.Valid(text) {
		return body{}
	}
	return body{text: text}
}

func fromUTF16(text []byte) []byte {
	var units []uint16
	for ; len(text) >= 2; text = text[2:] {
		units = append(units, binary.LittleEndian.Uint16(text))
	}
	return []byte(string(utf16.Decode(units)))
}

func fromUTF32(text []byte) []byte {
	var out []byte
	for ; len(text) >= 4; text = text[4:] {
		r := binary.LittleEndian.Uint32(text)
		if r > utf8.MaxRune {
			r = utf8.RuneError
		}
		out = utf8.AppendRune(out, rune(r))
	}
	return out
}

// lookup is the value at the path; what is missing, an object or an array is undefined.
func (b body) lookup(path []step) value {
	raw := b.find(path)
	if raw == nil {
		return value{}
	}
	switch raw[0] {
	case '"':
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return value{}
		}
		return textValue(s)
	case 't', 'f':
		return boolValue(raw[0] == 't')
	case 'n':
		return value{kind: null}
	case '{', '[':
		return value{}
	}
	n, err := strconv.ParseFloat(string(raw), 64)
	if err != nil {
		return value{} // beyond what a float holds
	}
	return numberValue(n)
}

// find is the JSON text at the path, nil when there is none. Of members with one name the last counts.
func (b body) find(path []step) []byte {
	if b.text == nil || len(path) == 0 {
		return nil
	}
	raw := b.text
	for _, s := range path {
		if raw = member(raw, s.member); raw == nil {
			return nil
		}
		if s.index >= 0 {
			if raw = element(raw, s.index); raw == nil {
				return nil
			}
		}
	}
	return raw
}

// member is the text of a member of an object.
func member(object []byte, name string) []byte {
	c := walker{text: object}
	if !c.open('{') {
		return nil
	}
	var found []byte
	for !c.close('}') {
		key := c.value()
		if item := c.value(); isKey(key, name) {
			found = item
		}
	}
	return found
}

// isKey compares a key, in its quotes, with a name.
func isKey(key []byte, name string) bool {
	inner := key[1 : len(key)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner) == name
	}
	var s string
	return json.Unmarshal(key, &s) == nil && s == name
}

// element is the text of an element of an array.
func element(array []byte, index int) []byte {
	c := walker{text: array}
	if !c.open('[') {
		return nil
	}
	for i := 0; !c.close(']'); i++ {
		if item := c.value(); i == index {
			return item
		}
	}
	return nil
}

// walker steps over valid JSON.
type walker struct {
	text []byte
	at   int
}

// space stands on the next character that is no white space, comma or colon: in valid JSON those need no checks.
func (c *walker) space() byte {
	for {
		switch b := c.text[c.at]; b {
		case ' ', '\t', '\r', '\n', ',', ':':
			c.at++
		default:
			return b
		}
	}
}

func (c *walker) open(bracket byte) bool {
	if c.space() != bracket {
		return false
	}
	c.at++
	return true
}

func (c *walker) close(bracket byte) bool { return c.space() == bracket }

// value steps over one value and returns its text.
func (c *walker) value() []byte {
	first := c.space()
	start, depth := c.at, 0
	for ; c.at < len(c.text); c.at++ {
		switch c.text[c.at] {
		case '"':
			c.quoted()
			if depth == 0 {
				c.at++
				return c.text[start:c.at]
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return c.text[start:c.at] // of what is around a bare word
			}
			if depth--; depth == 0 {
				c.at++
				return c.text[start:c.at]
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 && first != '"' {
				return c.text[start:c.at]
			}
		}
	}
	return c.text[start:c.at]
}

// quoted stands on the closing quote of the string that begins here.
func (c *walker) quoted() {
	for c.at++; c.text[c.at] != '"'; c.at++ {
		if c.text[c.at] == '\\' {
			c.at++
		}
	}
}
