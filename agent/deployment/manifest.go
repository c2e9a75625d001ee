package deployment

import (
	"cmp"
	"encoding/json"
	"slices"
	"sort"
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
)

// The modules every deployment is about.
const (
	EdgeAgent = "$edgeAgent"
	EdgeHub   = "$edgeHub"
)

// Manifest is a deployment as a file or request brings it.
type Manifest struct {
	Twins  map[string]json.RawMessage // module id → its whole desired section
	Layers map[string]json.RawMessage // module id → merge patch of its section, where only dotted members are given
	Notes  []string                   // members that are accepted and have no effect, one line each
}

// ParseManifest reads {"modulesContent":{…}}, also inside "content" as a configuration of the hub has it, or by its old name
// moduleContent. Members such as "properties.desired.routes.up" merge into the section at that path. Its error is an [*Error]. What the
// sections of $edgeAgent and $edgeHub say is the work of [ParseAgent] and [ParseHub].
func ParseManifest(raw []byte) (Manifest, error) {
	doc, err := twin.ParsePatch(raw)
	if err != nil {
		e := ofTwin(err)
		e.Path = "manifest"
		return Manifest{}, e
	}
	p := &parser{}
	o := p.object("", doc)
	if o.get("content") != nil {
		for _, key := range o.rest() {
			_ = o.get(key) // id, labels, targetCondition and so on: for the hub
		}
		o = o.object("content")
	}
	modules := o.object("modulesContent")
	if modules.members == nil {
		modules = o.object("moduleContent")
	}
	if o.get("deviceContent") != nil {
		p.fail(o.at("deviceContent"), "a configuration for devices without modules", "modulesContent")
	}
	if modules.members == nil {
		p.fail(o.at("modulesContent"), "missing", "an object with the desired properties of each module")
	}
	m := Manifest{Twins: map[string]json.RawMessage{}, Layers: map[string]json.RawMessage{}}
	for _, name := range modules.keys() {
		if modules.members[name] == nil {
			continue
		}
		if _, err := iothub.NewID("device", name); err != nil || name == "" {
			p.fail(modules.at(name), "module id "+quote(name), "1 to 128 characters that ids may have")
			break
		}
		p.content(&m, name, modules.object(name))
	}
	o.noteRest()
	if err := p.done(); err != nil {
		return Manifest{}, err
	}
	m.Notes = p.notes
	return m, nil
}

const desiredKey = "properties.desired"

// content reads what a manifest says about one module.
func (p *parser) content(m *Manifest, name string, o object) {
	base := o.object(desiredKey)
	section := base.members
	layers := slices.DeleteFunc(o.keys(), func(key string) bool { return !strings.HasPrefix(key, desiredKey+".") })
	// A member inside another layered member merges on top of it.
	sort.Slice(layers, func(i, j int) bool {
		a, b := layers[i], layers[j]
		return cmp.Or(cmp.Compare(strings.Count(a, "."), strings.Count(b, ".")), cmp.Compare(a, b)) < 0
	})
	for _, key := range layers {
		at := strings.Split(strings.TrimPrefix(key, desiredKey+"."), ".")
		if slices.Contains(at, "") {
			p.fail(o.at(key), "an empty part in the path", desiredKey+".member")
			return
		}
		section = twin.Compose(section, nested(at, o.get(key)))
	}
	o.noteRest()
	if section == nil {
		return
	}
	if base.members != nil {
		section = twin.Merge(nil, section) // null is no value of a section
	}
	delete(section, "$version")
	delete(section, "$metadata")
	if err := twin.Validate(twin.Desired, section); err != nil {
		e := ofTwin(err)
		p.fail(o.path+"."+strings.Replace(e.Path, "desired", desiredKey, 1), e.Why, e.Want)
		return
	}
	if base.members == nil {
		m.Layers[name] = json.RawMessage(printed(section))
		return
	}
	m.Twins[name] = json.RawMessage(printed(section))
}

// nested puts value at a path.
func nested(at []string, value any) map[string]any {
	doc := map[string]any{at[len(at)-1]: value}
	for _, key := range slices.Backward(at[:len(at)-1]) {
		doc = map[string]any{key: doc}
	}
	return doc
}
