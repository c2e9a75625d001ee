package deployment

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// page is the page of the manifest up to its last table, and that table's rows.
func page(t *testing.T) (text, rows string) {
	t.Helper()
	raw, err := os.ReadFile("MANIFEST.md")
	if err != nil {
		t.Fatal(err)
	}
	const rule = "|---|---|---|\n"
	i := strings.LastIndex(string(raw), rule) + len(rule)
	return string(raw[:i]), string(raw[i:])
}

func TestThePageListsEachOptionAsItIsTreated(t *testing.T) {
	t.Parallel()
	var want strings.Builder
	last := ""
	for _, o := range options {
		if strings.ToLower(o.path) <= strings.ToLower(last) {
			t.Errorf("%s is out of order", o.path)
		}
		last = o.path
		if (o.apply != nil) != (o.treatment == applied) || (o.meaning == "") != (o.treatment == group) {
			t.Errorf("%s: %s with meaning %q, apply %v", o.path, o.treatment, o.meaning, o.apply != nil)
		}
		if o.treatment != group {
			fmt.Fprintf(&want, "| `%s` | %s | %s |\n", o.path, o.treatment, o.meaning)
		}
	}
	text, rows := page(t)
	if *update {
		fresh := "MANIFEST.md.new" // the tests beside this one read the page meanwhile
		if err := errors.Join(os.WriteFile(fresh, []byte(text+want.String()), 0o644), os.Rename(fresh, "MANIFEST.md")); err != nil {
			t.Fatal(err)
		}
		return
	}
	if rows != want.String() {
		t.Errorf("the last table of MANIFEST.md differs (go test -update rewrites it):\ngot\n%s\nwant\n%s", rows, want.String())
	}
}

func TestThePagesManifestModuleAndRouteAreTaken(t *testing.T) {
	t.Parallel()
	text, _ := page(t)
	examples := regexp.MustCompile("(?ms)^```json\n(.*?)^```").FindAllStringSubmatch(text, -1)
	if len(examples) != 3 {
		t.Fatalf("got %d examples, want a manifest, a module and a route", len(examples))
	}
	whole, err := ParseManifest([]byte(examples[0][1]))
	if err != nil || len(whole.Notes) != 0 || len(whole.Twins) != 3 {
		t.Errorf("got %v, %+v, want three twins and no note", err, whole)
	}
	if a, err := ParseAgent(whole.Twins["$edgeAgent"]); err != nil || len(a.Notes) != 0 {
		t.Errorf("got %v, %q", err, a.Notes)
	}
	if h, err := ParseHub(whole.Twins["$edgeHub"]); err != nil || len(h.Notes) != 0 {
		t.Errorf("got %v, %q", err, h.Notes)
	}
	a, err := ParseAgent([]byte(deploymentOf(examples[1][1])))
	if err != nil || len(a.Notes) > 1 { // that of data
		t.Errorf("got %v, %q", err, a.Notes)
	}
	h, err := ParseHub([]byte(`{"schemaVersion":"1.1","routes":{"up":` + examples[2][1] + `},"storeAndForwardConfiguration":{"timeToLiveSecs":7200}}`))
	if err != nil || len(h.Rules) != 1 || len(h.Notes) != 0 {
		t.Errorf("got %v, %+v", err, h)
	}
}

// TestThePageNamesEachMemberOfSettingsAndNoOther asks the parser, which lists what it knows when it meets a word it does not.
func TestThePageNamesEachMemberOfSettingsAndNoOther(t *testing.T) {
	t.Parallel()
	var want []string
	for _, in := range []struct{ prefix, settings string }{
		{"", `"?":1`}, {"limits.", `"limits":{"?":1}`}, {"health.", `"health":{"?":1}`},
	} {
		_, err := ParseAgent([]byte(deploymentOf(`{"type":"sandbox","settings":{"image":"file:///x",` + in.settings + `}}`)))
		_, known, ok := strings.Cut(fmt.Sprint(err), "one of ")
		if !ok {
			t.Fatalf("got %v, want the known members", err)
		}
		for name := range strings.SplitSeq(known, ", ") {
			if name != "limits" && name != "health" {
				want = append(want, in.prefix+name)
			}
		}
	}
	text, _ := page(t)
	text = text[strings.Index(text, "| member of `settings`"):strings.Index(text, "## Routes")]
	var got []string
	for line := range strings.SplitSeq(text, "\n") {
		if cells := strings.Split(line, "|"); len(cells) == 5 {
			for _, m := range regexp.MustCompile("`([A-Za-z.]+)`").FindAllStringSubmatch(strings.Replace(cells[1], "`settings`", "", 1), -1) {
				got = append(got, m[1])
			}
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the page explains %q, the parser knows %q", got, want)
	}
}
