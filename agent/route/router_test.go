package route

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

func rule(t testing.TB, name, text string, priority uint8, ttl time.Duration) Rule {
	t.Helper()
	r, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return Rule{Name: name, Route: r, Priority: priority, TTL: ttl}
}

func TestSourcesMatchWholeSegments(t *testing.T) {
	t.Parallel()
	device, mod := iothub.ID{Device: "d"}, iothub.ID{Device: "d", Module: "Mod1"}
	messages := map[string]struct {
		from       iothub.ID
		output     string
		twinChange bool
	}{
		"device":       {from: device},
		"module":       {from: mod},
		"output":       {from: mod, output: "Alert"},
		"below output": {from: mod, output: "alert/high"},
		"like output":  {from: mod, output: "alerts"},
		"like module":  {from: iothub.ID{Device: "d", Module: "mod10"}, output: "alert"},
		"twin":         {from: mod, twinChange: true},
		"device twin":  {from: device, twinChange: true},
		"device sends an output that is nobody's": {from: device, output: "alert"},
	}
	for text, want := range map[string][]string{
		"/*":                                        {"below output", "device", "device sends an output that is nobody's", "device twin", "like module", "like output", "module", "output", "twin"},
		"/messages/*":                               {"below output", "device", "device sends an output that is nobody's", "like module", "like output", "module", "output"},
		"/messages/modules/*":                       {"below output", "like module", "like output", "module", "output"},
		"/messages/modules/mod1/*":                  {"below output", "like output", "module", "output"},
		"/messages/modules/mod1/outputs/*":          {"below output", "like output", "output"},
		"/Messages/Modules/MOD1/Outputs/ALERT":      {"below output", "output"},
		"/messages/modules/mod1/outputs/alert/high": {"below output"},
		"/messages/modules/mod1/outputs/alert/*":    {"below output", "output"},
		"/messages/modules/mod/*":                   nil,
		"/twinChangeNotifications/*":                {"device twin", "twin"},
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			router := NewRouter([]Rule{rule(t, "r", "FROM "+text+" INTO $upstream", 0, 0)})
			var got []string
			for name, m := range messages {
				if len(router.Route(m.from, m.output, m.twinChange)) > 0 {
					got = append(got, name)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("matches %q, want %q", got, want)
			}
		})
	}
}

func TestEachSinkGetsItOnceByItsBestRule(t *testing.T) {
	t.Parallel()
	const in = `BrokeredEndpoint("/modules/filter/inputs/in1")`
	rules := []Rule{
		rule(t, "all", "FROM /messages/* INTO $upstream", Lowest, time.Hour),
		rule(t, "hot", "FROM /messages/modules/a/outputs/alert INTO $upstream", 0, time.Minute),
		rule(t, "z", "FROM /messages/modules/a/* INTO "+in, 5, 0),
		rule(t, "y", "FROM /messages/modules/a/outputs/* INTO "+in, 5, time.Second),
		rule(t, "other", `FROM /messages/modules/b/* INTO BrokeredEndpoint("/modules/filter/inputs/in2")`, 1, 0),
	}
	a := iothub.ID{Device: "d", Module: "a"}
	filter := Sink{Module: "filter", Input: "in1"}
	for name, tc := range map[string]struct {
		from   iothub.ID
		output string
		want   []Hop
	}{
		"the alert": {a, "alert", []Hop{{Sink{}, 0, time.Minute, "hot", Terms{}}, {filter, 5, time.Second, "y", Terms{}}}},
		"no output": {a, "", []Hop{{filter, 5, 0, "z", Terms{}}, {Sink{}, Lowest, time.Hour, "all", Terms{}}}},
		"b":         {iothub.ID{Device: "d", Module: "b"}, "", []Hop{{Sink{"filter", "in2"}, 1, 0, "other", Terms{}}, {Sink{}, Lowest, time.Hour, "all", Terms{}}}},
		"a device":  {iothub.ID{Device: "d"}, "", []Hop{{Sink{}, Lowest, time.Hour, "all", Terms{}}}},
	} {
		forward, backward := NewRouter(rules), slices.Clone(rules)
		slices.Reverse(backward)
		for order, router := range map[string]*Router{"as written": forward, "reversed": NewRouter(backward)} {
			if got := router.Route(tc.from, tc.output, false); !slices.Equal(got, tc.want) {
				t.Errorf("%s, rules %s: got %+v, want %+v", name, order, got, tc.want)
			}
		}
		if got := forward.Route(tc.from, tc.output, true); len(got) != 0 {
			t.Errorf("%s: a twin change goes to %+v", name, got)
		}
	}
}

func TestAnswersOfARouterDoNotShareMemory(t *testing.T) {
	t.Parallel()
	router := NewRouter([]Rule{
		rule(t, "1", "FROM /messages/* INTO $upstream", 0, 0),
		rule(t, "2", `FROM /messages/modules/a/* INTO BrokeredEndpoint("/modules/m/inputs/a")`, 1, 0),
		rule(t, "3", `FROM /messages/modules/b/* INTO BrokeredEndpoint("/modules/m/inputs/b")`, 1, 0),
	})
	a := router.Route(iothub.ID{Device: "d", Module: "a"}, "", false)
	router.Route(iothub.ID{Device: "d", Module: "b"}, "", false)
	if len(a) != 2 || a[1].Sink.Input != "a" {
		t.Errorf("got %+v, want the second hop to stay what it was", a)
	}
}

func TestEmptyRoutersDrop(t *testing.T) {
	t.Parallel()
	for name, router := range map[string]*Router{
		"nil": nil, "zero": {}, "no rules": NewRouter(nil), "a route that was not parsed": NewRouter([]Rule{{Route: Route{Source: "nonsense"}}}),
	} {
		if got := router.Route(iothub.ID{Device: "d"}, "", false); len(got) != 0 {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestSinksPrintAsWritten(t *testing.T) {
	t.Parallel()
	if got := (Sink{}).String(); got != "$upstream" || !(Sink{}).Upstream() {
		t.Errorf("got %q, want $upstream", got)
	}
	if got, want := (Sink{"m", "i"}).String(), `BrokeredEndpoint("/modules/m/inputs/i")`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func benchRouter(b *testing.B, others int) *Router {
	rules := []Rule{rule(b, "up", "FROM /messages/* INTO $upstream", Lowest, 0)}
	for i := range others {
		m := "m" + strings.Repeat("x", i)
		rules = append(rules, rule(b, m, "FROM /messages/modules/"+m+`/outputs/o INTO BrokeredEndpoint("/modules/filter/inputs/`+m+`")`, 1, 0))
	}
	return NewRouter(rules)
}

func BenchmarkRouteOneSink(b *testing.B) {
	router, from := benchRouter(b, 20), iothub.ID{Device: "d", Module: "sensor"}
	b.ReportAllocs()
	for b.Loop() {
		if len(router.Route(from, "o", false)) != 1 {
			b.Fatal("not one hop")
		}
	}
}

func BenchmarkRouteTwoSinks(b *testing.B) {
	router, from := benchRouter(b, 20), iothub.ID{Device: "d", Module: "mx"}
	b.ReportAllocs()
	for b.Loop() {
		if len(router.Route(from, "o", false)) != 2 {
			b.Fatal("not two hops")
		}
	}
}
