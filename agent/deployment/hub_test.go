package deployment

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/route"
)

const hub = `{"schemaVersion":"1.1",
 "routes":{"up":"FROM /messages/* INTO $upstream",
   "hot":{"route":"FROM /messages/modules/a/outputs/alert INTO $upstream","priority":0,"timeToLiveSecs":86400},
   "local":{"route":"FROM /messages/modules/a/* INTO BrokeredEndpoint(\"/modules/b/inputs/in\")","timeToLiveSecs":0},
   "old":null,"older":"","oldest":{"route":""}},
 "storeAndForwardConfiguration":{"timeToLiveSecs":7200,"storeLimits":{"maxSizeBytes":1000000}}}`

func TestParseHub(t *testing.T) {
	t.Parallel()
	h, err := ParseHub([]byte(hub))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range h.Rules {
		got = append(got, fmt.Sprintf("%s: %s priority %d ttl %v", r.Name, r.Route, r.Priority, r.TTL))
	}
	want := `hot: FROM /messages/modules/a/outputs/alert INTO $upstream priority 0 ttl 24h0m0s
local: FROM /messages/modules/a/* INTO BrokeredEndpoint("/modules/b/inputs/in") priority 10 ttl 2h0m0s
up: FROM /messages/* INTO $upstream priority 10 ttl 2h0m0s`
	if strings.Join(got, "\n") != want || h.TTL != 2*time.Hour || h.MaxBytes != 1000000 || len(h.Notes) != 0 {
		t.Errorf("got\n%s\n%+v\nwant\n%s", strings.Join(got, "\n"), h, want)
	}
}

func TestHubThatNeverExpires(t *testing.T) {
	t.Parallel()
	h, err := ParseHub([]byte(`{"schemaVersion":"1.2","routes":{"a":"FROM /* INTO $upstream"},"storeAndForwardConfiguration":{"timeToLiveSecs":-1},"mqttBroker":{},"x":1}`))
	if err != nil || h.TTL != 0 || h.Rules[0].TTL != 0 || h.Rules[0].Priority != route.Lowest {
		t.Errorf("got %+v, %v", h, err)
	}
	if got, want := strings.Join(h.Notes, "; "), "mqttBroker: the preview of a general broker was withdrawn; x: unknown here, has no effect"; got != want {
		t.Errorf("notes: got %s, want %s", got, want)
	}
}

func TestParseHubRefuses(t *testing.T) {
	t.Parallel()
	section := func(rest string) string {
		return `{"schemaVersion":"1.1","storeAndForwardConfiguration":{"timeToLiveSecs":7200}` + rest + `}`
	}
	for name, c := range map[string]struct{ text, want string }{
		"nothing":               {`{}`, `desired: empty; want schemaVersion, routes and storeAndForwardConfiguration`},
		"no version":            {`{"routes":{}}`, `schemaVersion: missing; want "1.0", "1.1", "1.2" or "1.3"`},
		"a later schema":        {`{"schemaVersion":"1.4"}`, `schemaVersion: "1.4"; want "1.0", "1.1", "1.2" or "1.3"`},
		"no store":              {`{"schemaVersion":"1.1"}`, `storeAndForwardConfiguration: missing; want an object such as {"timeToLiveSecs":7200}`},
		"no time to live":       {`{"schemaVersion":"1.1","storeAndForwardConfiguration":{}}`, `storeAndForwardConfiguration.timeToLiveSecs: missing; want seconds, or -1 for never`},
		"no time at all":        {`{"schemaVersion":"1.1","storeAndForwardConfiguration":{"timeToLiveSecs":0}}`, `storeAndForwardConfiguration.timeToLiveSecs: 0 would expire every message at once; want seconds, or -1 for never`},
		"a route as number":     {section(`,"routes":{"r":1}`), `routes.r: number 1; want a route as text or object`},
		"a name with a space":   {section(`,"routes":{"a b":"x"}`), `routes.a b: route name "a b"; want a name without ".", "$", "#" and spaces`},
		"priority 10":           {section(`,"routes":{"r":{"route":"FROM /* INTO $upstream","priority":10}}`), `routes.r.priority: 10; want a whole number from 0 to 9`},
		"a negative time":       {section(`,"routes":{"r":{"route":"FROM /* INTO $upstream","timeToLiveSecs":-1}}`), `routes.r.timeToLiveSecs: -1; want a whole number from 0 to 4294967295`},
		"an object in 1.0":      {`{"schemaVersion":"1.0","storeAndForwardConfiguration":{"timeToLiveSecs":1},"routes":{"r":{"route":"FROM /* INTO $upstream"}}}`, `routes.r: an object; want text, or schemaVersion "1.1"`},
		"a number as the route": {section(`,"routes":{"r":{"route":5}}`), `routes.r.route: number 5; want a string`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, err := ParseHub([]byte(c.text))
			if got := refusal(t, err); got != c.want || h.Rules != nil {
				t.Errorf("got  %s, %v\nwant %s", got, h.Rules, c.want)
			}
		})
	}
	_, err := ParseHub([]byte(section(`,"routes":{"r":{"route":"FROM /messages/* TELEPORT $upstream"}}`)))
	if got := refusal(t, err); !strings.HasPrefix(got, "routes.r.route: at character ") || !strings.Contains(got, "TELEPORT") {
		t.Errorf("an unknown keyword: got %s", got)
	}
}

func TestARouteSaysWhatItAsksOfTheStore(t *testing.T) {
	t.Parallel()
	section := func(members string) string {
		return `{"schemaVersion":"1.1","storeAndForwardConfiguration":{"timeToLiveSecs":7200},"routes":{"r":{"route":"FROM /* INTO $upstream"` + members + `}}}`
	}
	h, err := ParseHub([]byte(section(`,"durability":"relaxed(5s)","eviction":"newest-per-key(sensorId)","timeToLiveClock":"wall"`)))
	want := route.Terms{Durability: route.Durability{Window: 5 * time.Second}, Eviction: route.Eviction{Key: "sensorId"}, Clock: route.Wall}
	if err != nil || len(h.Rules) != 1 || h.Rules[0].Terms != want || len(h.Notes) != 0 {
		t.Errorf("got %+v, %v, want %+v", h, err, want)
	}
	if h, err := ParseHub([]byte(section(``))); err != nil || h.Rules[0].Terms != (route.Terms{}) {
		t.Errorf("nothing asked: got %+v, %v, want the strictest", h, err)
	}
	for members, want := range map[string]string{
		`,"durability":"lazy"`:      `routes.r.durability: durability "lazy"; want "strict", or "relaxed(T)" with T from 100ms to 1m, such as "relaxed(5s)"`,
		`,"durability":5`:           `routes.r.durability: number 5; want a string`,
		`,"eviction":"random"`:      `routes.r.eviction: eviction "random"; want "refuse", "oldest-first", or "newest-per-key(NAME)" with the name of a message property, such as "newest-per-key(sensorId)"`,
		`,"timeToLiveClock":"moon"`: `routes.r.timeToLiveClock: clock "moon"; want "powered-on" or "wall"`,
	} {
		_, err := ParseHub([]byte(section(members)))
		if got := refusal(t, err); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func FuzzParseHub(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":"1.1","routes":{"a":{"route":"FROM /* INTO $upstream","durability":"relaxed(5s)","eviction":"newest-per-key(k)"}},"storeAndForwardConfiguration":{"timeToLiveSecs":-1}}`))
	f.Add([]byte(hub))
	f.Add([]byte(`{"schemaVersion":"1.0","routes":{"a":"FROM /* INTO $upstream"},"storeAndForwardConfiguration":{"timeToLiveSecs":-1}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, err := ParseHub(raw)
		if refusal(t, err) != "" {
			return
		}
		last := ""
		for _, r := range h.Rules {
			if r.Priority > route.Lowest || r.TTL < 0 || r.Name <= last {
				t.Fatalf("%q gives %+v after %q", raw, r, last)
			}
			last = r.Name
			if again, err := route.Parse(r.Route.String()); err != nil || again.String() != r.Route.String() {
				t.Fatalf("%q prints back as %v, %v", r.Route, again, err)
			}
			if d, err := route.ParseDurability(r.Terms.Durability.String()); err != nil || d != r.Terms.Durability {
				t.Fatalf("%q prints back as %v, %v", r.Terms.Durability, d, err)
			}
			if e, err := route.ParseEviction(r.Terms.Eviction.String()); err != nil || e != r.Terms.Eviction {
				t.Fatalf("%q prints back as %v, %v", r.Terms.Eviction, e, err)
			}
		}
	})
}
