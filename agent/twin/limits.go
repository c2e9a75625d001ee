package twin

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// Section is one part of a twin.
type Section uint8

// The sections. Tags are never visible to clients.
const (
	Desired Section = iota
	Reported
	Tags
)

// String is the name the section has in documents and errors.
func (s Section) String() string {
	switch s {
	case Desired:
		return "desired"
	case Reported:
		return "reported"
	case Tags:
		return "tags"
	}
	return "section " + strconv.Itoa(int(s))
}

// MaxSize is how much a section may hold, in bytes as [Validate] counts them.
func (s Section) MaxSize() int {
	if s == Tags {
		return 8 << 10
	}
	return 32 << 10
}

// The limits of a twin, as IoT Hub and edgeHub enforce them.
const (
	MaxKey     = 1024              // bytes of UTF-8 in a key
	MaxString  = 4096              // bytes of UTF-8 in a string value
	MaxInteger = 4503599627370495  // largest integer
	MinInteger = -4503599627370496 // smallest integer
	MaxDepth   = 10                // objects and arrays below the root of a section
)

// LimitError says which rule of twin documents a patch breaks and where. Over MQTT it is answered with status 400.
type LimitError struct {
	Path string // dotted, from the section's name: "reported.a.list[2]"
	Why  string // what is there
	Want string // what would be right
}

// Error is one line: where, what, what would be right.
func (e *LimitError) Error() string { return e.Path + ": " + e.Why + "; want " + e.Want }

// Validate checks a patch, or a whole section, against the limits of a twin and returns a [*LimitError] or nil. Size counts each
// key and string in bytes, a number as 8, a boolean as 4 and a null as 0.
func Validate(section Section, patch map[string]any) error {
	root := section.String()
	if err := validateObject(root, patch, 0, false); err != nil {
		return err
	}
	if n := sizeOf(patch); n > section.MaxSize() {
		return tooLarge(section, n)
	}
	return nil
}

func tooLarge(section Section, size int) error {
	return &LimitError{section.String(), fmt.Sprintf("%d bytes", size), fmt.Sprintf("at most %d", section.MaxSize())}
}

func validateObject(path string, object map[string]any, depth int, inArray bool) error {
	if depth > MaxDepth {
		return tooDeep(path)
	}
	for key, value := range object {
		if err := validateKey(path, key); err != nil {
			return err
		}
		if err := validateValue(path+"."+key, value, depth, inArray); err != nil {
			return err
		}
	}
	return nil
}

func validateKey(path, key string) error {
	if len(key) > MaxKey {
		return &LimitError{path, fmt.Sprintf("key of %d bytes", len(key)), fmt.Sprintf("at most %d", MaxKey)}
	}
	for _, r := range key {
		if r == '.' || r == '$' || r == '#' || unicode.IsControl(r) || unicode.IsSpace(r) {
			return &LimitError{path, fmt.Sprintf("key %q holds %q", key, r), "no control character, whitespace, '.', '$' or '#' in keys"}
		}
	}
	return nil
}

func validateValue(path string, value any, depth int, inArray bool) error {
	switch v := value.(type) {
	case nil:
		if inArray {
			return &LimitError{path, "null inside an array", "null only to delete a member"}
		}
	case bool:
	case string:
		if len(v) > MaxString {
			return &LimitError{path, fmt.Sprintf("string of %d bytes", len(v)), fmt.Sprintf("at most %d", MaxString)}
		}
	case json.Number:
		return validateNumber(path, v)
	case map[string]any:
		return validateObject(path, v, depth+1, inArray)
	case []any:
		if depth+1 > MaxDepth {
			return tooDeep(path)
		}
		for i, element := range v {
			if err := validateValue(path+"["+strconv.Itoa(i)+"]", element, depth+1, true); err != nil {
				return err
			}
		}
	default:
		return &LimitError{path, fmt.Sprintf("a %T", value), "bool, number, string, object, array or null"}
	}
	return nil
}

func validateNumber(path string, n json.Number) error {
	text := n.String()
	if strings.ContainsAny(text, ".eE") {
		if _, err := strconv.ParseFloat(text, 64); err != nil {
			return &LimitError{path, "number " + shorten(text), "a number that fits 64-bit floating point"}
		}
		return nil
	}
	i, err := strconv.ParseInt(text, 10, 64)
	if err != nil || i < MinInteger || i > MaxInteger {
		return &LimitError{path, "integer " + shorten(text), fmt.Sprintf("%d to %d", int64(MinInteger), int64(MaxInteger))}
	}
	return nil
}

func tooDeep(path string) error {
	return &LimitError{path, fmt.Sprintf("more than %d levels deep", MaxDepth), fmt.Sprintf("at most %d", MaxDepth)}
}

// shorten keeps an error to one line however long the number is.
func shorten(text string) string {
	if len(text) > 40 {
		return text[:40] + "…"
	}
	return text
}

// sizeOf counts a value as the size limit does.
func sizeOf(value any) int {
	switch v := value.(type) {
	case string:
		return len(v)
	case bool:
		return 4
	case json.Number:
		return 8
	case map[string]any:
		n := 0
		for key, member := range v {
			n += len(key) + sizeOf(member)
		}
		return n
	case []any:
		n := 0
		for _, element := range v {
			n += sizeOf(element)
		}
		return n
	}
	return 0
}
