package deployment

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestParseManifest(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, twins, layers, notes string }{
		"whole sections": {
			`{"modulesContent":{"$edgeAgent":{"properties.desired":{"a":1,"gone":null}},"filter":{"properties.desired":{}},"nobody":null}}`,
			`{"$edgeAgent":{"a":1},"filter":{}}`, `{}`, "",
		},
		"the old name":             {`{"moduleContent":{"m":{"properties.desired":{"a":1.50}}}}`, `{"m":{"a":1.50}}`, `{}`, ""},
		"a configuration of a hub": {`{"id":"x","priority":10,"targetCondition":"*","content":{"modulesContent":{"m":{"properties.desired":{"a":1}}}}}`, `{"m":{"a":1}}`, `{}`, ""},
		"members merge into their section": {
			`{"modulesContent":{"$edgeAgent":{"properties.desired.modules.b.env":{"X":{"value":1}},"properties.desired.modules.b":{"type":"docker"},"properties.desired":{"modules":{"a":{},"b":{"z":1}}}}}}`,
			`{"$edgeAgent":{"modules":{"a":{},"b":{"env":{"X":{"value":1}},"type":"docker","z":1}}}}`, `{}`, "",
		},
		"members alone are a layer": {
			`{"modulesContent":{"$edgeHub":{"properties.desired.routes.up":"FROM /* INTO $upstream","properties.desired.routes.old":null}}}`,
			`{}`, `{"$edgeHub":{"routes":{"old":null,"up":"FROM /* INTO $upstream"}}}`, "",
		},
		"what is unknown is noted": {`{"$schema-template":"2.0","modulesContent":{"m":{"properties.desired":{},"tags":{}}}}`, `{"m":{}}`, `{}`, "modulesContent.m.tags: unknown here, has no effect; $schema-template: unknown here, has no effect"},
		"versions are dropped":     {`{"modulesContent":{"m":{"properties.desired":{"a":1,"$version":4,"$metadata":{}}}}}`, `{"m":{"a":1}}`, `{}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := ParseManifest([]byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			if got := printed(m.Twins); got != c.twins {
				t.Errorf("twins: got %s, want %s", got, c.twins)
			}
			if got := printed(m.Layers); got != c.layers {
				t.Errorf("layers: got %s, want %s", got, c.layers)
			}
			if got := strings.Join(m.Notes, "; "); got != c.notes {
				t.Errorf("notes: got %s, want %s", got, c.notes)
			}
		})
	}
}

func TestParseManifestRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"no JSON":                 {`{"a"`, `manifest: JSON text ends early; want one JSON object`},
		"no modules":              {`{}`, `modulesContent: missing; want an object with the desired properties of each module`},
		"modules as a list":       {`{"modulesContent":[]}`, `modulesContent: a list; want an object`},
		"a configuration without": {`{"content":{}}`, `content.modulesContent: missing; want an object with the desired properties of each module`},
		"a device configuration":  {`{"content":{"deviceContent":{}}}`, `content.deviceContent: a configuration for devices without modules; want modulesContent`},
		"a module as text":        {`{"modulesContent":{"m":"x"}}`, `modulesContent.m: text "x"; want an object`},
		"a section as text":       {`{"modulesContent":{"m":{"properties.desired":"x"}}}`, `modulesContent.m.properties.desired: text "x"; want an object`},
		"an empty path":           {`{"modulesContent":{"m":{"properties.desired.":1}}}`, `modulesContent.m.properties.desired.: an empty part in the path; want properties.desired.member`},
		"a module id of nothing":  {`{"modulesContent":{"":{}}}`, `modulesContent.: module id ""; want 1 to 128 characters that ids may have`},
		"a module id with a path": {`{"modulesContent":{"a/b":{}}}`, `modulesContent.a/b: module id "a/b"; want 1 to 128 characters that ids may have`},
		"a key that twins forbid": {`{"modulesContent":{"m":{"properties.desired":{"a":{"b c":1}}}}}`, `modulesContent.m.properties.desired.a: key "b c" holds ' '; want no control character, whitespace, '.', '$' or '#' in keys`},
		"a text too long":         {`{"modulesContent":{"m":{"properties.desired":{"a":"` + strings.Repeat("x", 5000) + `"}}}}`, `modulesContent.m.properties.desired.a: string of 5000 bytes; want at most 4096`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := ParseManifest([]byte(c.text))
			if got := refusal(t, err); got != c.want || m.Twins != nil {
				t.Errorf("got  %s, %v\nwant %s", got, m.Twins, c.want)
			}
		})
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"modulesContent":{"$edgeAgent":{"properties.desired":` + azure + `},"$edgeHub":{"properties.desired":` + hub + `,"properties.desired.routes.x":null}}}`))
	f.Add([]byte(`{"content":{"moduleContent":{"m":{"properties.desired.a.b":{"c":null}}}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := ParseManifest(raw)
		if refusal(t, err) != "" {
			return
		}
		// What was parsed, written as a manifest, parses to the same.
		content := map[string]any{}
		for name, section := range m.Twins {
			content[name] = map[string]any{desiredKey: section}
		}
		again, err := ParseManifest([]byte(printed(map[string]any{"modulesContent": content})))
		if err != nil || printed(again.Twins) != printed(m.Twins) {
			t.Fatalf("%q: got %s, %v, want %s", raw, printed(again.Twins), err, printed(m.Twins))
		}
		for _, section := range m.Layers {
			if !json.Valid(section) {
				t.Fatalf("layer %q", section)
			}
		}
	})
}
