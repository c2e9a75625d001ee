package deployment

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/route"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
)

// Hub is the desired section of $edgeHub.
type Hub struct {
	SchemaVersion string
	Rules         []route.Rule  // sorted by name; each TTL is the one that counts, 0 = never
	TTL           time.Duration // of messages on rules that name none; 0 = never
	MaxBytes      int64         // storeLimits.maxSizeBytes: all queues together; 0 = the device decides
	Notes         []string      // members that are accepted and have no effect, one line each
}

// ParseHub reads the desired section of $edgeHub. Its error is an [*Error].
func ParseHub(desired []byte) (Hub, error) {
	doc, err := twin.ParsePatch(desired)
	if err != nil {
		return Hub{}, ofTwin(err)
	}
	p := &parser{}
	o := p.object("", doc)
	if len(doc) == 0 {
		p.failCode(CodeEmpty, "desired", "empty", "schemaVersion, routes and storeAndForwardConfiguration")
		return Hub{}, p.done()
	}
	h := Hub{SchemaVersion: o.text("schemaVersion")}
	switch h.SchemaVersion {
	case "1.0", "1.1", "1.2", "1.3":
	case "":
		p.fail("schemaVersion", "missing", `"1.0", "1.1", "1.2" or "1.3"`)
	default:
		p.fail("schemaVersion", quote(h.SchemaVersion), `"1.0", "1.1", "1.2" or "1.3"`)
	}
	p.forward(&h, o.object("storeAndForwardConfiguration"))
	routes := o.object("routes")
	for _, name := range routes.keys() {
		p.rule(&h, name, routes)
	}
	if o.get("mqttBroker") != nil {
		p.note("mqttBroker", "the preview of a general broker was withdrawn")
	}
	if o.get("integrity") != nil {
		p.note("integrity", "signatures of manifests are not checked")
	}
	o.noteRest()
	if err := p.done(); err != nil {
		return Hub{}, err
	}
	h.Notes = p.notes
	return h, nil
}

// forward reads storeAndForwardConfiguration.
func (p *parser) forward(h *Hub, o object) {
	const want = "seconds, or -1 for never"
	if o.members == nil {
		p.fail(o.path, "missing", `an object such as {"timeToLiveSecs":7200}`)
		return
	}
	at := o.at("timeToLiveSecs")
	switch seconds := p.whole(at, o.need("timeToLiveSecs", want), -1<<31, 1<<31-1); {
	case seconds > 0:
		h.TTL = time.Duration(seconds) * time.Second
	case seconds == 0:
		p.fail(at, "0 would expire every message at once", want)
	}
	limits := o.object("storeLimits")
	if v := limits.get("maxSizeBytes"); v != nil {
		h.MaxBytes = p.whole(limits.at("maxSizeBytes"), v, 1, maxMemory)
	}
	limits.noteRest()
	o.noteRest()
}

// rule reads one route: text, or an object with priority, time to live and what is asked of the store. Null and empty text delete.
func (p *parser) rule(h *Hub, name string, routes object) {
	at := routes.at(name)
	if name == "" || strings.ContainsAny(name, ".$# ") {
		p.fail(at, "route name "+quote(name), `a name without ".", "$", "#" and spaces`)
		return
	}
	r := route.Rule{Name: name, Priority: route.Lowest, TTL: h.TTL}
	text := ""
	switch v := routes.members[name].(type) {
	case nil:
		return
	case string:
		text = v
	case map[string]any:
		if h.SchemaVersion == "1.0" {
			p.fail(at, "an object", `text, or schemaVersion "1.1"`)
			return
		}
		o := p.object(at, v)
		at = o.at("route")
		text = o.text("route")
		if v := o.get("priority"); v != nil {
			r.Priority = uint8(p.whole(o.at("priority"), v, 0, 9))
		}
		if v := o.get("timeToLiveSecs"); v != nil {
			if seconds := p.whole(o.at("timeToLiveSecs"), v, 0, 1<<32-1); seconds > 0 {
				r.TTL = time.Duration(seconds) * time.Second
			}
		}
		r.Terms = route.Terms{
			Durability: term(o, "durability", route.ParseDurability), Eviction: term(o, "eviction", route.ParseEviction),
			Clock: term(o, "timeToLiveClock", route.ParseClock),
		}
		o.noteRest()
	default:
		p.fail(at, kindOf(v), "a route as text or object")
		return
	}
	if text == "" {
		return
	}
	parsed, err := route.Parse(text)
	if err != nil {
		p.routeError(at, err)
		return
	}
	r.Route = parsed
	h.Rules = append(h.Rules, r)
}

// term is a string member with a parser of its own; absent gives the zero value, which is the strictest.
func term[T any](o object, key string, parse func(string) (T, error)) T {
	var zero T
	value := o.get(key)
	if value == nil {
		return zero
	}
	v, err := parse(o.p.text(o.at(key), value))
	if err != nil {
		var fault *route.ParseError
		if errors.As(err, &fault) {
			o.p.fail(o.at(key), fault.What, fault.Want)
		} else {
			o.p.fail(o.at(key), err.Error(), "")
		}
		return zero
	}
	return v
}

// routeError keeps where in the text the parser stopped.
func (p *parser) routeError(at string, err error) {
	var parse *route.ParseError
	if errors.As(err, &parse) {
		p.fail(at, fmt.Sprintf("at character %d: %s", parse.Offset, parse.What), parse.Want)
		return
	}
	p.fail(at, err.Error(), "a route")
}
