package agent

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/supervisor"
)

// documented are the keys that the tables of agent/CONFIG.md explain; `.x` behind `a.b` stands for a.x.
func documented(t *testing.T) []string {
	t.Helper()
	raw, err := os.ReadFile("CONFIG.md")
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for line := range strings.SplitSeq(string(raw), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 5 {
			continue
		}
		table := ""
		for _, m := range regexp.MustCompile("`([a-z0-9_.]+)`").FindAllStringSubmatch(cells[1], -1) {
			key := m[1]
			if strings.HasPrefix(key, ".") {
				key = table + key
			} else if i := strings.LastIndex(key, "."); i > 0 {
				table = key[:i]
			}
			keys = append(keys, key)
		}
	}
	return keys
}

func TestTheConfigurationPageExplainsEachKeyAndNoOther(t *testing.T) {
	t.Parallel()
	var want []string
	var walk func(prefix string, typ reflect.Type)
	walk = func(prefix string, typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			key := strings.TrimPrefix(prefix+"."+f.Tag.Get("toml"), ".")
			inner, many := f.Type, f.Type.Kind() == reflect.Slice
			if many {
				inner = inner.Elem()
			}
			section := inner.Kind() == reflect.Struct && inner.Field(0).Tag.Get("toml") != ""
			if key == "hal" { // hal/OWNER.md
				continue
			}
			if many || !section {
				want = append(want, key)
			}
			if section {
				walk(key, inner)
			}
		}
	}
	walk("", reflect.TypeFor[Config]())
	got := documented(t)
	for _, key := range want {
		if n := len(slices.DeleteFunc(slices.Clone(got), func(k string) bool { return k != key })); n != 1 {
			t.Errorf("%s is explained %d times, want once", key, n)
		}
	}
	for _, key := range got {
		if !slices.Contains(want, key) {
			t.Errorf("%s is explained and no key of the configuration", key)
		}
	}
}

func TestTheConfigurationPagesExamplesAreTaken(t *testing.T) {
	t.Parallel()
	for _, text := range blocks(t, "CONFIG.md", "toml") {
		if _, err := Parse("config.toml", []byte(text)); err != nil {
			t.Errorf("%v in\n%s", err, text)
		}
	}
}

func TestTheManifestsPageNamesWhatAModuleFindsInItsEnvironment(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("deployment/MANIFEST.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(raw), "## What a module finds\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var want []string
	for _, entry := range (&Agent{}).environ(deployment.Module{}, supervisor.Image{}, "1") {
		key, _, _ := strings.Cut(entry, "=")
		want = append(want, key)
	}
	var got []string
	for _, m := range regexp.MustCompile("`\\$?([A-Z][A-Za-z_]+)`").FindAllStringSubmatch(section, -1) {
		if !slices.Contains(got, m[1]) {
			got = append(got, m[1])
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the page names %q, a module finds %q", got, want)
	}
}
