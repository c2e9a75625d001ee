package twin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Bounds on what is parsed at all, before a value is built. They leave room for $metadata, which is deeper and larger than what it is about.
const (
	maxText  = 1 << 20 // bytes of JSON text
	maxNests = 32      // open objects and arrays
)

// ParsePatch reads a merge patch or a section: one JSON object, numbers kept as written ([json.Number]), $version and $metadata of the
// root removed. Text that is too long or too deep is refused before anything is built of it. Every error is a [*LimitError]; the limits
// of a twin itself are the work of [Validate].
func ParsePatch(raw []byte) (map[string]any, error) {
	patch, _, err := parse("patch", raw)
	return patch, err
}

// parse is ParsePatch that also tells $version, 0 when absent.
func parse(what string, raw []byte) (map[string]any, int64, error) {
	if len(raw) > maxText {
		return nil, 0, &LimitError{what, fmt.Sprintf("%d bytes of JSON", len(raw)), fmt.Sprintf("at most %d", maxText)}
	}
	if nests(raw) > maxNests {
		return nil, 0, &LimitError{what, fmt.Sprintf("more than %d objects and arrays inside each other", maxNests), fmt.Sprintf("at most %d levels", MaxDepth)}
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var object map[string]any
	if err := dec.Decode(&object); err != nil {
		return nil, 0, notObject(what, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, 0, &LimitError{what, fmt.Sprintf("more text after the object at byte %d", dec.InputOffset()), "one JSON object"}
	}
	if object == nil {
		return nil, 0, &LimitError{what, "null", "one JSON object"}
	}
	version, err := versionOf(what, object)
	if err != nil {
		return nil, 0, err
	}
	delete(object, "$version")
	delete(object, "$metadata")
	return object, version, nil
}

func notObject(what string, err error) error {
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return &LimitError{what, "a JSON " + kind.Value, "one JSON object"}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &LimitError{what, "JSON text ends early", "one JSON object"}
	}
	return &LimitError{what, err.Error(), "one JSON object"}
}

func versionOf(what string, object map[string]any) (int64, error) {
	value, ok := object["$version"]
	if !ok || value == nil {
		return 0, nil
	}
	number, ok := value.(json.Number)
	if !ok {
		return 0, &LimitError{what + ".$version", fmt.Sprintf("a %T", value), "a whole number"}
	}
	version, err := number.Int64()
	if err != nil || version < 0 {
		return 0, &LimitError{what + ".$version", shorten(number.String()), "a whole number"}
	}
	return version, nil
}

// nests is the deepest nesting of brackets outside strings. It allocates nothing and does not care whether the text is JSON.
func nests(raw []byte) int {
	depth, deepest := 0, 0
	inString, escaped := false, false
	for _, c := range raw {
		switch {
		case escaped:
			escaped = false
		case inString:
			escaped = c == '\\'
			inString = c != '"'
		case c == '"':
			inString = true
		case c == '{', c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}', c == ']':
			depth--
		}
	}
	return deepest
}

// encode prints a document in one form: keys sorted, no escapes that JSON does not ask for.
func encode(value any) json.RawMessage {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		// Only values from a JSON decoder get here and those always print.
		panic("twin: " + err.Error())
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}

// withVersion adds $version to the text of an object.
func withVersion(object json.RawMessage, version int64) json.RawMessage {
	out := make([]byte, 0, len(object)+len(`,"$version":`)+20)
	out = append(out, object[:len(object)-1]...)
	if len(object) > len("{}") {
		out = append(out, ',')
	}
	out = append(out, `"$version":`...)
	out = strconv.AppendInt(out, version, 10)
	return append(out, '}')
}
