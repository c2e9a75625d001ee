package hal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of what a deployment may ask for.
const (
	MaxGrants   = 256 // of one module
	maxGrant    = 4096
	maxRanges   = 32
	minDeadman  = 50 * time.Millisecond
	maxDeadman  = time.Hour
	grantSyntax = `name[:r|w|rw][?option&…]`
)

// Handover says what becomes of an output when its module is replaced by a new instance of the same id.
type Handover string

// HandoverKeep keeps its value over the change; "" makes it safe between the two.
const HandoverKeep Handover = "keep"

// Grant is what a deployment asks for. Its options only narrow what the owner allows.
type Grant struct {
	Name      string
	Read      bool
	Write     bool
	ReadRegs  []Range
	WriteRegs []Range
	RX, TX    []IDMask
	Rate      Rate
	Deadman   time.Duration // a lease ends when nothing was written or renewed for so long; 0 = with the instance
	Safe      *float64      // only where the owner wrote safe = "module"
	Edges     string        // rising, falling, both
	Handover  Handover
	Optional  bool // the module runs without it
}

// isName says whether a resource may be called that: a small letter, then up to 31 small letters, digits and dashes.
func isName(s string) bool {
	for i := range len(s) {
		letter := s[i] >= 'a' && s[i] <= 'z'
		if !letter && (i == 0 || s[i] != '-' && (s[i] < '0' || s[i] > '9')) {
			return false
		}
	}
	return s != "" && len(s) <= 32
}

// ParseGrants reads settings.hal, a list of grants. Errors name the element.
func ParseGrants(raw json.RawMessage) ([]Grant, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("hal: want a list of grants, each %s or an object: %w", grantSyntax, err)
	}
	if len(list) > MaxGrants {
		return nil, fmt.Errorf("hal: %d grants; one module may have %d", len(list), MaxGrants)
	}
	grants := make([]Grant, 0, len(list))
	for i, one := range list {
		g, err := parseGrant(one)
		if err != nil {
			return nil, fmt.Errorf("hal[%d]: %w", i, err)
		}
		for k := range grants {
			if grants[k].Name == g.Name {
				return nil, fmt.Errorf("hal[%d]: %s is granted twice; write one grant with both rights", i, g.Name)
			}
		}
		grants = append(grants, *g)
	}
	return grants, nil
}

// ParseGrant reads one grant: a JSON string in the short form, or an object with the same words. Errors name the field, the offset
// in the short form, and what would be right.
func ParseGrant(raw json.RawMessage) (Grant, error) {
	g, err := parseGrant(raw)
	if err != nil {
		return Grant{}, err
	}
	return *g, nil
}

func parseGrant(raw json.RawMessage) (*Grant, error) {
	if len(raw) > maxGrant {
		return nil, fmt.Errorf("grant of %d bytes; the most is %d", len(raw), maxGrant)
	}
	var text string
	if err := json.Unmarshal(raw, &text); err == nil {
		return parseShort(text)
	}
	var object map[string]any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&object); err != nil || object == nil {
		return nil, fmt.Errorf("want %s in a string, or an object with a name", grantSyntax)
	}
	return parseObject(object)
}

func parseShort(text string) (*Grant, error) {
	name, query, asked := strings.Cut(text, "?")
	name, rights, written := strings.Cut(name, ":")
	if !written {
		rights = "r"
	}
	g := new(Grant)
	if err := g.set("name", name); err != nil {
		return nil, fmt.Errorf("at offset 0: %w", err)
	}
	if err := g.set("rights", rights); err != nil {
		return nil, fmt.Errorf("at offset %d: %w", len(name)+1, err)
	}
	if !asked {
		return g, nil
	}
	offset := len(text) - len(query)
	seen := []string{"name", "rights"}
	for _, part := range strings.Split(query, "&") {
		key, value, has := strings.Cut(part, "=")
		value, err := url.PathUnescape(value)
		switch {
		case err != nil:
		case slices.Contains(seen, key):
			err = errors.New("written twice")
		case key == "optional" && has:
			err = errors.New("takes no value")
		default:
			err = g.set(key, value)
		}
		if err != nil {
			return nil, fmt.Errorf("at offset %d: option %.32q: %w", offset, key, err)
		}
		seen = append(seen, key)
		offset += len(part) + 1
	}
	return g, nil
}

func parseObject(object map[string]any) (*Grant, error) {
	if object["name"] == nil {
		object["name"] = ""
	}
	if object["rights"] == nil {
		object["rights"] = "r"
	}
	keys := make([]string, 0, len(object))
	for key := range object {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	g := new(Grant)
	for _, key := range keys {
		if err := g.set(key, textOf(object[key])); err != nil {
			return nil, fmt.Errorf("%.32s: %w", key, err)
		}
	}
	return g, nil
}

// textOf is a JSON value as the short form has it.
func textOf(v any) string {
	list, ok := v.([]any)
	if !ok {
		return fmt.Sprint(v)
	}
	parts := make([]string, len(list))
	for i := range list {
		parts[i] = fmt.Sprint(list[i])
	}
	return strings.Join(parts, ",")
}

func (g *Grant) set(key, value string) error {
	var err error
	want := "" // what would be right
	switch key {
	case "name":
		if g.Name = value; !isName(value) {
			want = " is no name: a small letter, then up to 31 small letters, digits and dashes, as in " + grantSyntax
		}
	case "rights":
		g.Read, g.Write = value != "w", value != "r"
		if value != "r" && value != "w" && value != "rw" {
			want = " are no rights: r, w or rw"
		}
	case "deadman":
		d, bad := time.ParseDuration(value)
		if g.Deadman = d; bad != nil || d < minDeadman || d > maxDeadman {
			want = " is no time from 50ms to 1h, as in 2s"
		}
	case "edges":
		if g.Edges = value; value != "rising" && value != "falling" && value != "both" {
			want = "; want rising, falling or both"
		}
	case "handover":
		if g.Handover = Handover(value); g.Handover != HandoverKeep {
			want = "; want keep"
		}
	case "optional":
		if g.Optional = value != "false"; g.Optional && value != "" && value != "true" {
			want = "; want true, or nothing"
		}
	case "rate":
		err = g.Rate.UnmarshalText([]byte(value))
	case "read":
		g.ReadRegs, err = parseRanges(value)
	case "write":
		g.WriteRegs, err = parseRanges(value)
	case "rx":
		g.RX, err = parseMasks(value)
	case "tx":
		g.TX, err = parseMasks(value)
	case "safe":
		f, bad := strconv.ParseFloat(value, 64)
		if g.Safe = &f; bad != nil || f-f != 0 {
			want = " is no number"
		}
	default:
		err = errors.New("unknown; known are deadman, edges, handover, optional, rate, read, rx, safe, tx, write")
	}
	if want != "" {
		err = fmt.Errorf("%.40q%s", value, want)
	}
	return err
}

func parseRanges(text string) ([]Range, error) {
	parts, err := split(text)
	list := make([]Range, len(parts))
	for i := 0; i < len(parts) && err == nil; i++ {
		err = list[i].UnmarshalText([]byte(parts[i]))
	}
	return list, err
}

func parseMasks(text string) ([]IDMask, error) {
	parts, err := split(text)
	list := make([]IDMask, len(parts))
	for i := 0; i < len(parts) && err == nil; i++ {
		err = list[i].UnmarshalText([]byte(parts[i]))
	}
	return list, err
}

func split(text string) ([]string, error) {
	parts := strings.Split(text, ",")
	if len(parts) > maxRanges {
		return nil, fmt.Errorf("%d parts; at most %d", len(parts), maxRanges)
	}
	return parts, nil
}

// String is the short form; [ParseGrant] reads it back to the same grant.
func (g *Grant) String() string {
	var b strings.Builder
	b.WriteString(g.Name)
	switch {
	case g.Read && g.Write:
		b.WriteString(":rw")
	case g.Write:
		b.WriteString(":w")
	}
	mark := byte('?')
	add := func(key, value string) {
		b.WriteByte(mark)
		b.WriteString(key)
		if value != "" {
			b.WriteString("=" + value)
		}
		mark = '&'
	}
	if g.Deadman != 0 {
		add("deadman", g.Deadman.String())
	}
	if g.Edges != "" {
		add("edges", g.Edges)
	}
	if g.Handover != "" {
		add("handover", string(g.Handover))
	}
	if g.Optional {
		add("optional", "")
	}
	if g.Rate != 0 {
		add("rate", g.Rate.String())
	}
	if g.ReadRegs != nil {
		add("read", printList(g.ReadRegs))
	}
	if g.RX != nil {
		add("rx", printList(g.RX))
	}
	if g.Safe != nil {
		add("safe", strconv.FormatFloat(*g.Safe, 'g', -1, 64))
	}
	if g.TX != nil {
		add("tx", printList(g.TX))
	}
	if g.WriteRegs != nil {
		add("write", printList(g.WriteRegs))
	}
	return b.String()
}

func printList[T fmt.Stringer](list []T) string {
	parts := make([]string, len(list))
	for i, one := range list {
		parts[i] = one.String()
	}
	return strings.Join(parts, ",")
}
