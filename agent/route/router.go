package route

import (
	"slices"
	"sort"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
)

// Lowest is the priority of a rule that names none: behind all that do (0 to 9).
const Lowest = 10

// Rule is a route as a deployment holds it.
type Rule struct {
	Name     string
	Route    Route
	Priority uint8         // 0 (first) to 9, Lowest when unset
	TTL      time.Duration // how long a message may wait; 0 = for ever
	Terms    Terms
}

// Hop is one sink of one message.
type Hop struct {
	Sink     Sink
	Priority uint8
	TTL      time.Duration
	Rule     string // the name of the rule that decided priority, TTL and terms
	Terms    Terms
}

// Router is the table of all rules. It never changes and is safe for concurrent use. The zero Router and the nil
// Router drop everything.
type Router struct {
	entries     []entry // best priority first, then by name
	conditional bool    // some entry has a condition
}

type entry struct {
	from  source
	where *expr // nil = always
	hops  []Hop // the one hop, as a slice so that it can be returned without allocating
}

// NewRouter builds the table. The order of the rules does not count: of several rules with equal priority the first
// by name decides.
func NewRouter(rules []Rule) *Router {
	rules = slices.Clone(rules)
	sort.SliceStable(rules, func(i, j int) bool {
		a, b := &rules[i], &rules[j]
		return a.Priority < b.Priority || a.Priority == b.Priority && a.Name < b.Name
	})
	r := &Router{entries: make([]entry, 0, len(rules))}
	for _, rule := range rules {
		from, where := compile(rule.Route)
		hop := Hop{Sink: rule.Route.Sink, Priority: rule.Priority, TTL: rule.TTL, Rule: rule.Name, Terms: rule.Terms}
		r.entries = append(r.entries, entry{from: from, where: where, hops: []Hop{hop}})
		r.conditional = r.conditional || where != nil
	}
	return r
}

// compile reads the texts of a Route again. What does not parse becomes the source that matches nothing.
func compile(r Route) (source, *expr) {
	from, _ := parseSource(r.Source)
	if r.Where == "" {
		return from, nil
	}
	l := &lexer{text: r.Where + " INTO"}
	where, err := l.condition(from)
	if err != nil || !l.keyword("INTO") || l.at != len(l.text) {
		return source{}, nil
	}
	return from, where
}

// Conditional tells whether a rule has a condition: then two messages of one source and output may differ in their
// sinks, and only [Router.RouteMessage] knows them.
func (r *Router) Conditional() bool { return r != nil && r.conditional }

// Route returns the sinks of a message that source published on output ("" = none), or of a change of source's
// reported properties when twinChange: each sink once, with the priority and the time to live of its best rule,
// best priority first. No sink means that the message is dropped, yet acknowledged. The slice must not be changed.
// Rules with a condition do not count: see [Router.Conditional].
func (r *Router) Route(source iothub.ID, output string, twinChange bool) []Hop {
	return r.route(source, output, twinChange, nil)
}

// RouteMessage is [Router.Route] for a message at hand, rules with conditions included. On a twin change, m is the
// patch as its real sender's message.
func (r *Router) RouteMessage(m message.Message, twinChange bool) []Hop {
	if !r.Conditional() {
		return r.route(m.Source, m.Output, twinChange, nil)
	}
	about := m // a copy, so that routers without conditions leave m on the stack
	return r.route(m.Source, m.Output, twinChange, &subject{m: &about, twinChange: twinChange})
}

func (r *Router) route(source iothub.ID, output string, twinChange bool, about *subject) []Hop {
	if r == nil {
		return nil
	}
	var hops []Hop
	for i := range r.entries {
		e := &r.entries[i]
		if !e.from.matches(source, output, twinChange) || has(hops, e.hops[0].Sink) {
			continue
		}
		if e.where != nil && (about == nil || !about.holds(e.where)) {
			continue
		}
		if hops == nil {
			hops = e.hops[:1:1] // the common case: one sink, no allocation; a second one makes append copy
		} else {
			hops = append(hops, e.hops[0])
		}
	}
	return hops
}

func has(hops []Hop, sink Sink) bool {
	for i := range hops {
		if hops[i].Sink == sink {
			return true
		}
	}
	return false
}
