package deployment

import (
	"encoding/json"
	"strconv"
)

// maxPublish is how many entries the list publish of a hal module has.
const maxPublish = 64

// halSettings reads the settings of a module without a program: grants, what of them is published, and whether desired properties and
// direct methods drive outputs.
func (p *parser) halSettings(o object) Settings {
	s := Settings{Outputs: p.flag(o, "outputs"), Methods: p.flag(o, "methods")}
	if hal := p.list(o.at("hal"), o.need("hal", "a list of grants")); len(hal) > 0 {
		s.Hal = p.grants(o.at("hal"), hal)
	}
	if list := p.list(o.at("publish"), o.get("publish")); len(list) > 0 {
		if len(list) > maxPublish {
			p.fail(o.at("publish"), strconv.Itoa(len(list))+" entries", "at most "+strconv.Itoa(maxPublish))
		}
		for i, one := range list {
			if _, ok := one.(map[string]any); !ok {
				p.fail(o.at("publish["+strconv.Itoa(i)+"]"), kindOf(one), "an object with read or watch, and output")
			}
		}
		s.Publish = json.RawMessage(printed(list))
	}
	o.onlyThese()
	return s
}

func (p *parser) flag(o object, key string) bool {
	v := o.get(key)
	on, ok := v.(bool)
	if v != nil && !ok {
		p.fail(o.at(key), kindOf(v), "true or false")
	}
	return on
}
