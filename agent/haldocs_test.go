package agent

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/hal"
)

// blocks are the fenced examples of a page in a language.
func blocks(t *testing.T, page, language string) []string {
	t.Helper()
	raw, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```").FindAllStringSubmatch(string(raw), -1) {
		list = append(list, m[1])
	}
	if len(list) == 0 {
		t.Fatalf("%s has no example in %s: this test guards nothing", page, language)
	}
	return list
}

func TestTheOwnersExamplesAreConfigurationsThatTheAgentTakes(t *testing.T) {
	t.Parallel()
	for _, text := range blocks(t, "../hal/OWNER.md", "toml") {
		c, err := Parse("config.toml", []byte(text))
		if err != nil {
			t.Errorf("%v in\n%s", err, text)
			continue
		}
		list, err := c.Hal.Resources()
		if err != nil || len(list) == 0 {
			t.Errorf("got %d resources, %v from\n%s", len(list), err, text)
		}
		if _, err := hal.New(hal.ServerConfig{Resources: list, Backend: hal.NewSim()}); err != nil {
			t.Error(err)
		}
	}
}

func TestTheExampleOfAModuleWithoutAProgramIsOneThatTheAgentTakes(t *testing.T) {
	t.Parallel()
	for _, text := range blocks(t, "../hal/MODULES.md", "json") {
		doc := `{"schemaVersion":"1.1","runtime":{"type":"docker","settings":{}},"systemModules":{"edgeAgent":{"type":"docker","settings":{"image":"x"}},
			"edgeHub":{"type":"docker","status":"running","restartPolicy":"always","settings":{"image":"x"}}},"modules":{"plant":` + text + `}}`
		a, err := deployment.ParseAgent(json.RawMessage(doc))
		if err != nil || len(a.Modules) != 1 {
			t.Fatalf("got %v, %v", a.Modules, err)
		}
		m := a.Modules[0]
		grants, err := hal.ParseGrants(m.Settings.Hal)
		if err != nil {
			t.Fatal(err)
		}
		list, err := parsePublish(m.Settings.Publish, grants)
		if err != nil || len(list) != 2 || !m.Settings.Outputs || !m.Settings.Methods {
			t.Errorf("got %+v, %v, %+v", list, err, m.Settings)
		}
	}
}

func TestWhatIsPublishedIsCheckedBeforeAnythingStops(t *testing.T) {
	t.Parallel()
	grants := []hal.Grant{{Name: "level", Read: true}, {Name: "pump", Write: true}}
	for name, c := range map[string]struct{ text, want string }{
		"both":              {`[{"read":["level"],"watch":"level","every":"1s","output":"o"}]`, "one of read and watch"},
		"nothing":           {`[{"output":"o"}]`, "one of read and watch"},
		"no output":         {`[{"read":["level"],"every":"1s"}]`, "output is missing"},
		"too fast":          {`[{"read":["level"],"every":"1ms","output":"o"}]`, "at least 10ms"},
		"what is not asked": {`[{"read":["door"],"every":"1s","output":"o"}]`, `"door" is not in the list`},
		"write only":        {`[{"read":["pump"],"every":"1s","output":"o"}]`, `"pump" is not in the list`},
		"a word of no use":  {`[{"read":["level"],"evry":"1s","output":"o"}]`, "evry"},
		"a huge batch":      {`[{"read":["level"],"every":"1s","batch":100000,"output":"o"}]`, "batch"},
	} {
		if _, err := parsePublish(json.RawMessage(c.text), grants); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
}
