package route

import (
	"strings"
	"unicode/utf8"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// upstream is how the zero Sink is written.
const upstream = "$upstream"

// Sink is where a message goes: the hub (the zero Sink), or an input of a module on this device.
type Sink struct {
	Module string
	Input  string
}

// Upstream tells whether the sink is the hub.
func (s Sink) Upstream() bool { return s == Sink{} }

// String prints the sink as a route names it.
func (s Sink) String() string {
	if s.Upstream() {
		return upstream
	}
	dst := append(make([]byte, 0, 64), "BrokeredEndpoint("...)
	return string(append(appendQuoted(dst, "/modules/"+s.Module+"/inputs/"+s.Input), ')'))
}

// Route is one statement of the routing language, parsed. Make one with [Parse]; a Route written as a literal needs
// a Source and a Where that Parse would accept, or matches nothing.
type Route struct {
	Source string // canonical: "/messages/modules/{module}/outputs/{output}" or a shorter path that ends in "/*"
	Where  string // canonical text of the condition, "" = none
	Sink   Sink
}

// Parse reads "[SELECT *] FROM source [WHERE condition] INTO sink". Keywords, the fixed words of the source,
// $upstream and the names of functions may be in any case. Comments are not part of the language here. At most
// [MaxText] bytes. What is not understood is refused with a [*ParseError], never ignored. Whoever accepts conditions
// routes with [Router.RouteMessage].
func Parse(text string) (Route, error) {
	if len(text) > MaxText {
		return Route{}, &ParseError{What: "a text longer than 32 KiB", Want: "a shorter one"}
	}
	if !utf8.ValidString(text) {
		return Route{}, &ParseError{What: "a text that is not UTF-8", Want: "UTF-8"}
	}
	l := &lexer{text: text}
	if l.keyword("SELECT") && !l.byte('*') {
		return Route{}, l.fail("*")
	}
	if !l.keyword("FROM") {
		return Route{}, l.fail("FROM")
	}
	l.space()
	start := l.at
	from, ok := parseSource(l.path())
	if !ok {
		return Route{}, l.failAt(start, wantSource)
	}
	r := Route{Source: from.String()}
	if l.keyword("WHERE") {
		e, err := l.condition(from)
		if err != nil {
			return Route{}, err
		}
		r.Where = string(e.append(nil))
	}
	if !l.keyword("INTO") {
		return Route{}, l.fail("INTO")
	}
	sink, err := l.sink()
	if err != nil {
		return Route{}, err
	}
	r.Sink = sink
	if l.space(); l.at < len(l.text) {
		return Route{}, l.fail("nothing more: a route has one sink")
	}
	return r, nil
}

// sink takes "$upstream" or a call of BrokeredEndpoint.
func (l *lexer) sink() (Sink, error) {
	l.space()
	const want = `$upstream or BrokeredEndpoint("/modules/{module}/inputs/{input}")`
	if l.keyword(upstream) {
		return Sink{}, nil
	}
	if !l.keyword("BrokeredEndpoint") || !l.byte('(') {
		return Sink{}, l.fail(want)
	}
	l.space()
	start := l.at
	path, err := l.quoted()
	if err != nil {
		return Sink{}, err
	}
	parts := strings.Split(strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/"), "/")
	if len(parts) != 4 || !strings.EqualFold(parts[0], "modules") || !strings.EqualFold(parts[2], "inputs") || parts[3] == "" {
		return Sink{}, l.failAt(start, `"/modules/{module}/inputs/{input}"`)
	}
	if len(parts[3]) > iothub.MaxID {
		return Sink{}, l.failAt(start, "an input name of at most 128 bytes")
	}
	if _, err := iothub.NewID("d", parts[1]); err != nil || parts[1] == "" {
		return Sink{}, l.failAt(start, "a module id between the first slashes")
	}
	if !l.byte(')') {
		return Sink{}, l.fail(")")
	}
	return Sink{Module: parts[1], Input: parts[3]}, nil
}

// String prints the statement in canonical form; [Parse] reads it back as an equal Route.
func (r Route) String() string {
	where := ""
	if r.Where != "" {
		where = " WHERE " + r.Where
	}
	return "FROM " + r.Source + where + " INTO " + r.Sink.String()
}
