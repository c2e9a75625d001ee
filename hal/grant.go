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

// options are the words of a grant, in the order in which String prints them.
var options = []string{"deadman", "edges", "handover", "optional", "rate", "read", "rx", "safe", "tx", "write"}

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
	g := new(Grant)
	if err := g.setName(name); err != nil {
		return nil, fmt.Errorf("at offset 0: %w", err)
	}
	if !written {
		rights = "r"
	}
	if err := g.setRights(rights); err != nil {
		return nil, fmt.Errorf("at offset %d: %w", len(name)+1, err)
	}
	if !asked {
		return g, nil
	}
	offset := strings.Index(text, "?") + 1
	seen := map[string]bool{}
	for part := range strings.SplitSeq(query, "&") {
		key, value, has := strings.Cut(part, "=")
		value, err := url.PathUnescape(value)
		switch {
		case err != nil:
		case seen[key]:
			err = errors.New("written twice")
		case key == "optional" && has:
			err = errors.New("takes no value")
		default:
			err = g.set(key, value)
		}
		if err != nil {
			return nil, fmt.Errorf("at offset %d: option %.32q: %w", offset, key, err)
		}
		seen[key] = true
		offset += len(part) + 1
	}
	return g, nil
}

func parseObject(object map[string]any) (*Grant, error) {
	g := new(Grant)
	name, _ := object["name"].(string)
	if err := g.setName(name); err != nil {
		return nil, fmt.Errorf("name: %w", err)
	}
	rights := "r"
	if v, ok := object["rights"]; ok {
		rights, _ = v.(string)
	}
	if err := g.setRights(rights); err != nil {
		return nil, fmt.Errorf("rights: %w", err)
	}
	keys := make([]string, 0, len(object))
	for key := range object {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		if key == "name" || key == "rights" {
			continue
		}
		var text string
		switch v := object[key].(type) {
		case string:
			text = v
		case json.Number:
			text = v.String()
		case bool:
			if key != "optional" {
				return nil, fmt.Errorf("%.32s: true or false; want text", key)
			}
			if !v {
				continue
			}
		case []any:
			parts := make([]string, 0, len(v))
			for _, one := range v {
				s, ok := one.(string)
				if !ok {
					return nil, fmt.Errorf("%.32s: want a list of texts", key)
				}
				parts = append(parts, s)
			}
			text = strings.Join(parts, ",")
		default:
			return nil, fmt.Errorf("%.32s: want text", key)
		}
		if err := g.set(key, text); err != nil {
			return nil, fmt.Errorf("%.32s: %w", key, err)
		}
	}
	return g, nil
}

func (g *Grant) setName(name string) error {
	if !isName(name) {
		return fmt.Errorf("%.40q is no name: a small letter, then up to 31 small letters, digits and dashes, as in %s", name, grantSyntax)
	}
	g.Name = name
	return nil
}

func (g *Grant) setRights(rights string) error {
	switch rights {
	case "r":
		g.Read = true
	case "w":
		g.Write = true
	case "rw":
		g.Read, g.Write = true, true
	default:
		return fmt.Errorf("%.40q are no rights: r, w or rw", rights)
	}
	return nil
}

func (g *Grant) set(key, value string) error {
	var err error
	switch key {
	case "deadman":
		g.Deadman, err = time.ParseDuration(value)
		if err != nil || g.Deadman < minDeadman || g.Deadman > maxDeadman {
			err = fmt.Errorf("%.40q is no time from %v to %v, as in 2s", value, minDeadman, maxDeadman)
		}
	case "edges":
		if g.Edges = value; !slices.Contains([]string{"rising", "falling", "both"}, value) {
			err = fmt.Errorf("%.40q; want rising, falling or both", value)
		}
	case "handover":
		if g.Handover = Handover(value); g.Handover != HandoverKeep {
			err = fmt.Errorf("%.40q; want keep", value)
		}
	case "optional":
		if g.Optional = true; value != "" && value != "true" {
			err = fmt.Errorf("%.40q; want true, or nothing", value)
		}
	case "rate":
		err = g.Rate.UnmarshalText([]byte(value))
	case "read":
		g.ReadRegs, err = parseList[Range](value)
	case "write":
		g.WriteRegs, err = parseList[Range](value)
	case "rx":
		g.RX, err = parseList[IDMask](value)
	case "tx":
		g.TX, err = parseList[IDMask](value)
	case "safe":
		f, e := strconv.ParseFloat(value, 64)
		if e != nil || f != f || f-f != 0 {
			err = fmt.Errorf("%.40q is no number", value)
		}
		g.Safe = &f
	default:
		err = fmt.Errorf("unknown; known are %s", strings.Join(options, ", "))
	}
	return err
}

// parseList reads a comma-separated list of ranges or identifiers.
func parseList[T any, P interface {
	*T
	UnmarshalText([]byte) error
}](text string) ([]T, error) {
	parts := strings.Split(text, ",")
	if len(parts) > maxRanges {
		return nil, fmt.Errorf("%d parts; at most %d", len(parts), maxRanges)
	}
	list := make([]T, len(parts))
	for i, part := range parts {
		if err := P(&list[i]).UnmarshalText([]byte(part)); err != nil {
			return nil, err
		}
	}
	return list, nil
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
