package deployment

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parser keeps the first error, so that reading a document is straight-line code. After an error every value read is zero.
type parser struct {
	err   *Error
	notes []string
}

func (p *parser) fail(path, why, want string) { p.failCode(CodeFormat, path, why, want) }

func (p *parser) failCode(code int, path, why, want string) {
	if p.err == nil {
		p.err = &Error{Path: path, Why: why, Want: want, Code: code}
	}
}

func (p *parser) note(path, what string) { p.notes = append(p.notes, path+": "+what) }

// done is the outcome as an error interface.
func (p *parser) done() error {
	if p.err == nil {
		return nil
	}
	return p.err
}

// object is a JSON object being read. A null member counts as absent.
type object struct {
	p       *parser
	path    string
	members map[string]any
	asked   map[string]bool
}

func (p *parser) object(path string, value any) object {
	o := object{p: p, path: path, asked: map[string]bool{}}
	switch v := value.(type) {
	case map[string]any:
		o.members = v
	case nil:
	default:
		p.fail(path, kindOf(value), "an object")
	}
	return o
}

// at is the path of a member.
func (o object) at(key string) string {
	if o.path == "" {
		return key
	}
	return o.path + "." + key
}

// get is a member's value, nil when absent.
func (o object) get(key string) any {
	o.asked[key] = true
	return o.members[key]
}

// need is get of a member that must be there.
func (o object) need(key, want string) any {
	value := o.get(key)
	if value == nil {
		o.p.fail(o.at(key), "missing", want)
	}
	return value
}

// keys are the names of all members, sorted.
func (o object) keys() []string { return slices.Sorted(maps.Keys(o.members)) }

// rest are the members that nobody asked for, sorted. Null ones are left out.
func (o object) rest() []string {
	var names []string
	for _, key := range o.keys() {
		if !o.asked[key] && o.members[key] != nil {
			names = append(names, key)
		}
	}
	return names
}

// onlyThese refuses members that nobody asked for.
func (o object) onlyThese() {
	if rest := o.rest(); len(rest) > 0 {
		o.p.fail(o.at(rest[0]), "unknown", "one of "+strings.Join(slices.Sorted(maps.Keys(o.asked)), ", "))
	}
}

// noteRest notes members that nobody asked for.
func (o object) noteRest() {
	for _, key := range o.rest() {
		o.p.note(o.at(key), "unknown here, has no effect")
	}
}

// text is a string member, "" when absent.
func (o object) text(key string) string {
	value := o.get(key)
	if value == nil {
		return ""
	}
	return o.p.text(o.at(key), value)
}

func (o object) object(key string) object { return o.p.object(o.at(key), o.get(key)) }

// choice is a string member out of a fixed set; absent gives fallback.
func choice[T any](o object, key string, set []named[T], fallback T) T {
	value := o.get(key)
	if value == nil {
		return fallback
	}
	text := o.p.text(o.at(key), value)
	names := make([]string, 0, len(set))
	for _, n := range set {
		if n.name == text {
			return n.value
		}
		names = append(names, n.name)
	}
	o.p.fail(o.at(key), quote(text), "one of "+strings.Join(names, ", "))
	return fallback
}

// named is one word of a set and what it stands for.
type named[T any] struct {
	name  string
	value T
}

func (p *parser) text(path string, value any) string {
	text, ok := value.(string)
	if !ok {
		p.fail(path, kindOf(value), "a string")
		return ""
	}
	if strings.ContainsRune(text, 0) {
		p.fail(path, "text with a NUL character", "text without one")
		return ""
	}
	return text
}

// scalar is a string, number or boolean as text.
func (p *parser) scalar(path string, value any) string {
	switch v := value.(type) {
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	case string:
		return p.text(path, v)
	}
	p.fail(path, kindOf(value), "a string, number or boolean")
	return ""
}

// texts is a list of strings, nil when value is nil.
func (p *parser) texts(path string, value any) []string {
	list := p.list(path, value)
	if list == nil {
		return nil
	}
	out := make([]string, len(list))
	for i, element := range list {
		out[i] = p.text(path+"["+strconv.Itoa(i)+"]", element)
	}
	return out
}

func (p *parser) list(path string, value any) []any {
	if value == nil {
		return nil
	}
	list, ok := value.([]any)
	if !ok {
		p.fail(path, kindOf(value), "a list")
	}
	return list
}

// whole is an integer between least and most.
func (p *parser) whole(path string, value any, least, most int64) int64 {
	want := fmt.Sprintf("a whole number from %d to %d", least, most)
	number, ok := value.(json.Number)
	if !ok {
		p.fail(path, kindOf(value), want)
		return 0
	}
	n, err := strconv.ParseInt(number.String(), 10, 64)
	if err != nil || n < least || n > most {
		p.fail(path, shorten(number.String()), want)
		return 0
	}
	return n
}

// sizeUnits are the suffixes of a size in text.
var sizeUnits = []named[int64]{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}}

// size is a number of bytes up to maxMemory, or text such as "64MiB".
func (p *parser) size(path string, value any, least int64) int64 {
	text, ok := value.(string)
	if !ok {
		return p.whole(path, value, least, maxMemory)
	}
	unit := int64(1)
	for _, u := range sizeUnits {
		if digits, found := strings.CutSuffix(text, u.name); found {
			text, unit = strings.TrimSpace(digits), u.value
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > maxMemory/unit || n*unit < least {
		p.fail(path, quote(value.(string)), fmt.Sprintf("%d to %d bytes, as a number or as text with KiB, MiB or GiB", least, int64(maxMemory)))
		return 0
	}
	return n * unit
}

// duration is a number of seconds, or text such as "90s".
func (p *parser) duration(path string, value any, most time.Duration) time.Duration {
	want := fmt.Sprintf("0 to %d seconds, as a number or as text such as \"90s\"", int64(most/time.Second))
	var d time.Duration
	switch v := value.(type) {
	case json.Number:
		seconds, err := strconv.ParseFloat(v.String(), 64)
		if err != nil || seconds < 0 || seconds > most.Seconds() {
			p.fail(path, shorten(v.String()), want)
			return 0
		}
		return time.Duration(seconds * float64(time.Second)).Round(time.Millisecond)
	case string:
		var err error
		if d, err = time.ParseDuration(v); err != nil || d < 0 || d > most {
			p.fail(path, quote(v), want)
			return 0
		}
	default:
		p.fail(path, kindOf(value), want)
	}
	return d
}

// kindOf names a JSON value in an error.
func kindOf(value any) string {
	switch v := value.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case json.Number:
		return "number " + shorten(v.String())
	case string:
		return "text " + quote(v)
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return fmt.Sprintf("a %T", value)
}

// quote keeps an error to one short line whatever the text.
func quote(text string) string { return strconv.Quote(shorten(text)) }

func shorten(text string) string {
	const most = 60
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
