package iothub

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Property is one member of a [Bag], decoded.
type Property struct{ Key, Value string }

// Bag is the properties of a message in the order in which they were sent, keys and values decoded. A nil Bag is
// empty. The methods that change a bag return another and leave the receiver alone, so bags may be shared.
type Bag []Property

// ParseBag reads "k=v&k2=v2" as it stands at the end of a topic. Keys and values are percent-decoded ("%24.on" is
// "$.on"), a plus is a plus, one trailing '/' and one leading '?' are dropped, empty members are skipped, a key
// without '=' has the empty value. Keys may repeat. At most [MaxBag] bytes and [MaxProperties] members; the text
// must be UTF-8. The bag shares memory with s.
func ParseBag(s string) (Bag, error) {
	if len(s) > MaxBag {
		return nil, syntax("bag", s, "longer than 256 KiB")
	}
	if !utf8.ValidString(s) {
		return nil, syntax("bag", s, "not UTF-8")
	}
	return parseBag(strings.TrimPrefix(strings.TrimSuffix(s, "/"), "?"))
}

// parseBag is ParseBag after the length, the encoding and the ornaments.
func parseBag(s string) (Bag, error) {
	n := 0
	for rest := s; rest != ""; {
		var pair string
		pair, rest, _ = strings.Cut(rest, "&")
		if pair != "" {
			n++
		}
	}
	if n == 0 {
		return nil, nil
	}
	if n > MaxProperties {
		return nil, syntax("bag", s, "more than 1024 properties")
	}
	bag := make(Bag, 0, n)
	for rest := s; rest != ""; {
		var pair string
		pair, rest, _ = strings.Cut(rest, "&")
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		bag = append(bag, Property{Key: unescape(key), Value: unescape(value)})
	}
	return bag, nil
}

// String prints the bag as it stands in a topic, without ornaments; [ParseBag] reads it back.
func (b Bag) String() string {
	if len(b) == 0 {
		return ""
	}
	return string(b.appendTo(make([]byte, 0, b.room())))
}

// room guesses the printed size, so that printing allocates once.
func (b Bag) room() int {
	n := 0
	for _, p := range b {
		n += len(p.Key) + len(p.Value) + 8
	}
	return n
}

func (b Bag) appendTo(dst []byte) []byte {
	for i, p := range b {
		if i > 0 {
			dst = append(dst, '&')
		}
		dst = appendEscaped(dst, p.Key, unreserved)
		dst = append(dst, '=') // always: Node shows a key without it as "undefined", Python as None
		dst = appendEscaped(dst, p.Value, unreserved)
	}
	return dst
}

// Get returns the value of the first property with that key.
func (b Bag) Get(key string) (string, bool) {
	for _, p := range b {
		if p.Key == key {
			return p.Value, true
		}
	}
	return "", false
}

// Set returns a bag in which key has value once: in the place of the first property with that key, or at the end.
func (b Bag) Set(key, value string) Bag {
	out := make(Bag, 0, len(b)+1)
	done := false
	for _, p := range b {
		if p.Key != key {
			out = append(out, p)
			continue
		}
		if !done {
			out = append(out, Property{Key: key, Value: value})
			done = true
		}
	}
	if !done {
		out = append(out, Property{Key: key, Value: value})
	}
	return out
}

// Without returns a bag that has none of the keys.
func (b Bag) Without(keys ...string) Bag {
	var out Bag
	for _, p := range b {
		if !slices.Contains(keys, p.Key) {
			out = append(out, p)
		}
	}
	return out
}

// Size is the bytes of all keys and values, decoded, as the service counts them against [MaxMessage].
func (b Bag) Size() int {
	n := 0
	for _, p := range b {
		n += len(p.Key) + len(p.Value)
	}
	return n
}
