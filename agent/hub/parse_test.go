package hub

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/hub/state"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

func TestQueriesThatNeedAnIndexAreRefusedByTheirFirstWord(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text    string
		modules bool
		refused string // part of the error; empty: accepted
	}{
		"devices":         {text: "SELECT * FROM devices"},
		"modules":         {text: " select *\tfrom Devices.Modules ", modules: true},
		"a condition":     {text: "SELECT * FROM devices WHERE tags.a = 1", refused: "WHERE"},
		"a projection":    {text: "SELECT deviceId FROM devices", refused: "deviceId"},
		"jobs":            {text: "SELECT * FROM devices.jobs", refused: "devices.jobs"},
		"nothing":         {text: "", refused: "SELECT"},
		"half a query":    {text: "SELECT * FROM", refused: "ends"},
		"a novel":         {text: strings.Repeat("x", maxQuery+1), refused: "bytes"},
		"a drop of water": {text: "DROP * FROM devices", refused: "DROP"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			modules, err := parseQuery(tt.text)
			if tt.refused == "" && err != nil || tt.refused != "" && (err == nil || !strings.Contains(err.Error(), tt.refused)) || modules != tt.modules {
				t.Errorf("parseQuery(%.40q): got %v, %v, want modules %v, error with %q", tt.text, modules, err, tt.modules, tt.refused)
			}
		})
	}
}

func TestThumbprintsAreReadInEveryForm(t *testing.T) {
	t.Parallel()
	plain := strings.Repeat("0A", 20)
	for _, text := range []string{plain, strings.ToLower(plain), strings.TrimSuffix(strings.Repeat("0a:", 20), ":")} {
		if got, ok := normalThumbprint(text); !ok || got != plain {
			t.Errorf("normalThumbprint(%q): got %q, %v, want %q", text, got, ok, plain)
		}
	}
	for _, text := range []string{"", "0A", strings.Repeat("G", 40), strings.Repeat("0", 65), strings.Repeat(":", 1000)} {
		if got, ok := normalThumbprint(text); ok {
			t.Errorf("normalThumbprint(%.20q): got %q, want a refusal", text, got)
		}
	}
}

func TestARingHoldsTheLastPatchesWithinItsBounds(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	doc, _ := newTwin(now)
	var err error
	for i := range 20 {
		if doc, err = doc.patchDesired(object{"n": json.Number(string(rune('0' + i%10)))}, now); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(doc.Ring); got != ringPatches {
		t.Errorf("patches: got %d, want %d", got, ringPatches)
	}
	if missed, ok := doc.since(18); !ok || len(missed) != 3 {
		t.Errorf("since 18: got %d, %v, want 19, 20 and 21", len(missed), ok)
	}
	if _, ok := doc.since(5); ok {
		t.Error("since 5: got patches, want none: the ring does not reach back that far")
	}
	if missed, ok := doc.since(21); !ok || len(missed) != 0 {
		t.Errorf("since the newest: got %v, %v, want nothing missed", missed, ok)
	}
	large := object{}
	for _, key := range []string{"a", "b", "c", "d", "e"} {
		large[key] = strings.Repeat("x", 4000)
	}
	if doc, err = doc.patchDesired(large, now); err != nil {
		t.Fatal(err)
	}
	if got := len(doc.Ring); got != 0 {
		t.Errorf("after a patch larger than the ring: got %d patches, want none", got)
	}
}

func TestAReplacedSectionIsToldAsADifferenceOfPresence(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	doc, _ := newTwin(now)
	doc, err := doc.patchDesired(object{"same": "1", "gone": "2", "deep": map[string]any{"a": "1", "b": "2"}}, now)
	if err != nil {
		t.Fatal(err)
	}
	if doc, err = doc.replaceDesired(object{"same": "1", "deep": map[string]any{"b": "2", "c": "3"}}, now); err != nil {
		t.Fatal(err)
	}
	got, err := doc.Ring[len(doc.Ring)-1].body()
	if want := `{"$version":3,"deep":{"a":null,"b":"2","c":"3"},"gone":null,"same":"1"}`; err != nil || string(got) != want {
		t.Errorf("told: got %s, %v, want %s", got, err, want)
	}
}

func TestADocumentOfANewerHubIsRefusedByName(t *testing.T) {
	t.Parallel()
	key := state.Key{Device: "edge1", Kind: state.KindIdentity}
	var doc identityDoc
	if err := decodeDoc(key, []byte(`{"v":2}`), &doc); err == nil || !strings.Contains(err.Error(), "edge1.id") {
		t.Errorf("got %v, want an error that names the document", err)
	}
}

func FuzzTwinChange(f *testing.F) {
	for _, seed := range []string{`{"tags":{"a":1},"properties":{"desired":{"b":null}}}`, `{"tags":null}`, `{"properties":{"desired":[]}}`, `{`} {
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, body []byte, replace bool) {
		change, err := parseTwinChange(body, replace)
		if err != nil {
			return
		}
		text, err := change.event().MarshalJSON()
		if err != nil {
			t.Fatalf("print: %v", err)
		}
		again, err := parseTwinChange(text, replace)
		if err != nil {
			t.Fatalf("parse %s: %v", text, err)
		}
		if second, err := again.event().MarshalJSON(); err != nil || string(second) != string(text) {
			t.Fatalf("got %s, %v, want %s", second, err, text)
		}
	})
}

func FuzzConfiguration(f *testing.F) {
	f.Add([]byte(`{"modulesContent":{"$edgeAgent":{"properties.desired":{"modules":{"a":{}}}},"b":{"properties.desired.x.y":1}}}`))
	f.Add([]byte(`{"modulesContent":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := parseConfiguration(body)
		if err != nil {
			return
		}
		for module := range c {
			if _, err := iothub.NewID("device", module); err != nil {
				t.Fatalf("module id %q got through", module)
			}
		}
	})
}

func FuzzPage(f *testing.F) {
	f.Add("10", continuation(iothub.ID{Device: "edge1", Module: "m"}))
	f.Add("", "!")
	f.Fuzz(func(t *testing.T, size, token string) {
		p, err := parsePage(size, token)
		if err != nil {
			return
		}
		if p.size < 1 || p.size > maxPage {
			t.Fatalf("size %d got through", p.size)
		}
		if p.after.IsZero() {
			return
		}
		if again, err := parsePage(size, continuation(p.after)); err != nil || again != p {
			t.Fatalf("got %+v, %v, want %+v", again, err, p)
		}
	})
}

func FuzzIdentityBody(f *testing.F) {
	f.Add([]byte(`{"deviceId":"a","status":"enabled","authentication":{"type":"sas","symmetricKey":{"primaryKey":"","secondaryKey":""}}}`), false)
	f.Add([]byte(`{"authentication":{"type":"selfSigned","x509Thumbprint":{"primaryThumbprint":"00"}}}`), true)
	r := registry{documents: documents{now: func() time.Time { return time.Unix(0, 0) }}}
	f.Fuzz(func(t *testing.T, text []byte, module bool) {
		var body identityBody
		if json.Unmarshal(text, &body) != nil {
			return
		}
		id := iothub.ID{Device: "edge1"}
		if module {
			id.Module = "m"
		}
		doc, err := r.newIdentity(id, body)
		if err != nil {
			return
		}
		if doc.Auth.Type == authSAS && len(doc.Auth.keys()) != 2 {
			t.Fatalf("%s: got %d keys, want two", text, len(doc.Auth.keys()))
		}
		if doc.Auth.Type == authSelf && doc.Auth.PrimaryThumb == "" && doc.Auth.SecondaryThumb == "" {
			t.Fatalf("%s: no thumbprint", text)
		}
	})
}

func FuzzQuery(f *testing.F) {
	f.Add("SELECT * FROM devices")
	f.Add(" select *\tfrom Devices.Modules ")
	f.Add("SELECT * FROM devices WHERE tags.a = 1")
	f.Fuzz(func(t *testing.T, text string) {
		modules, err := parseQuery(text)
		switch {
		case err != nil && len(err.Error()) > 512:
			t.Errorf("an error of %d bytes: %.100q", len(err.Error()), err)
		case err == nil && modules != strings.Contains(strings.ToLower(text), "modules"):
			t.Errorf("%q: modules is %v", text, modules)
		}
	})
}
