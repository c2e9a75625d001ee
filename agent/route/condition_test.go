package route

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
)

const jsonBody = `{"temp":21.5,"name":"Kühler \ud83d\ude00","on":true,"off":false,"none":null,"a.b":1,
 "deep":{"list":[10,{"x":"y"},[1]],"e\u006da":"l"},"twice":1,"twice":2,"big":1e400,"text":"30","neg":-2}`

func telemetryMessage() message.Message {
	return message.Message{
		Source: iothub.ID{Device: "edge1", Module: "sensor"}, Output: "out1", Body: []byte(jsonBody),
		Bag: iothub.Bag{
			{Key: "$.mid", Value: "m1"}, {Key: "$.cid", Value: "c1"}, {Key: "$.ct", Value: "application/json"}, {Key: "$.ce", Value: "UTF-8"},
			{Key: "Alert", Value: "high"}, {Key: "level", Value: " 7 "}, {Key: "$weird", Value: "w"}, {Key: "$messageId", Value: "mine"},
			{Key: "a+b", Value: "plus"}, {Key: "it's", Value: "quoted"}, {Key: "$body.off", Value: "hidden"}, {Key: "empty", Value: ""},
		},
	}
}

func conditionRoute(t testing.TB, from, where string) Route {
	t.Helper()
	r, err := Parse("FROM " + from + " WHERE " + where + " INTO $upstream")
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	return r
}

func routes(t testing.TB, from, where string, m message.Message, twinChange bool) bool {
	t.Helper()
	return len(NewRouter([]Rule{{Route: conditionRoute(t, from, where)}}).RouteMessage(m, twinChange)) > 0
}

// conditions holds what is true of the message above and what is not; "not" is false or undefined.
var conditions = map[string]struct{ yes, not []string }{
	"literals": {
		yes: []string{"true", "NOT false", "1 = 1.0", "0x1F = 31", "1e2 = 100", ".5 = 0.5", "-1 < 0", "-.5e1 = -5", "'a' = \"a\"", `'it\'s' = "it's"`, `"\u0041" = 'A'`, "null = null"},
		not: []string{"false", "undefined", "NOT undefined", "undefined = undefined", "NOT (undefined = 1)", "null != null"},
	},
	"properties": {
		yes: []string{"Alert = 'high'", "ALERT = 'high'", "alert != 'low'", "a+b = 'plus'", "it's = 'quoted'", "empty = ''", "$weird = 'w'", "$alert = 'high' OR true"},
		not: []string{"alert = 'High'", "missing = 'x'", "missing != 'x'", "NOT (missing = 'x') OR false", "$.mid = 'm1'", "$alert = 'high'", "level = 'x'"},
	},
	"system properties": {
		yes: []string{"$connectionDeviceId = 'edge1'", "$CONNECTIONMODULEID = 'sensor'", "$outputName = 'out1'", "$contentType = 'application/json'", "{$messageId} = 'm1'", "$messageId = 'mine'", "$cid = 'c1'", "$correlationId = 'c1'", "{$cid} = 'c1'"},
		not: []string{"$userId = 'x'", "{$weird} = 'w'", "{$Alert} = 'high'", "$to != 'x'", "connectionDeviceId = 'edge1'"},
	},
	"bodies": {
		yes: []string{
			"$body.temp = 21.5", "$body.temp > 21", "$BODY.temp <= 22", "$body.name = 'Kühler \\ud83d\\ude00'", "$body.on", "NOT {$body.off}", "$body.none = null",
			"$body.deep.list[0] = 10", "$body.deep.list[1].x = 'y'", "$body.deep.ema = 'l'", "$body.twice = 2", "$body.off = 'hidden'", "{$body.off} = false",
			"$body.temp != 'text'", "$body.none != 5", "$body.neg = -2", "- $body.neg = 2", "as_number($body.text) = 30",
		},
		not: []string{
			"$body.missing = 1", "$body.missing != 1", "$body.deep = 1", "$body.deep != 1", "$body.deep.list[2] != 5", "$body.deep.list[9] != 5", "$body.temp[0] = 1",
			"$body.deep.list.x = 1", "$body.big > 0", "$body.Temp = 21.5", "$body.name > 5", "NOT ($body.name > 5)", "$body.temp AND true", "$body.a.b = 1",
		},
	},
	"arithmetic": {
		yes: []string{"1 + 2 * 3 = 7", "(1 + 2) * 3 = 9", "7 - 2 - 1 = 4", "7 % 4 = 3", "8 / 2 / 2 = 2", "1 / 0 > 1e300", "- (1 + 1) = -2", "- - 1 = 1", "'a' || 'b' || 'c' = 'abc'", "$body.temp * 2 = 43"},
		not: []string{"0 / 0 = 0", "0 / 0 != 0", "$body.name * 2 = 2", "$body.none + 1 = 1", "$body.temp || 'x' = 'x'", "1 % 0 = 1"},
	},
	"logic": {
		yes: []string{"true OR undefined", "undefined OR true", "NOT (false AND undefined)", "NOT (undefined AND false)", "true and TRUE_ != 'x' or true", "true OR false AND false", "NOT false AND true", "NOT (1 = 2)", "missing = 'x' ?? true", "(missing ?? alert) = 'high'", "(undefined ?? 1) = 1", "($body.missing ?? $body.temp) > 1", "missing = 'x' OR alert = 'high'"},
		not: []string{"true AND undefined", "false OR undefined", "undefined AND undefined", "missing = 'x' AND true", "NOT (missing = 'x' AND true)", "NOT (undefined OR false)"},
	},
	"comparisons": {
		yes: []string{"'a' < 'b'", "'B' < 'a'", "'a' <= 'a'", "2 > 10 = false", "true > false", "false < true", "true >= true", "null <= null", "1 <> 2", "'ab' > 'a'"},
		not: []string{"'10' > '2'", "1 != 1", "1 <> 1", "2 < 2", "true < true"},
	},
	"functions": {
		yes: []string{
			"ABS(-3) = 3", "exp(0) = 1", "power(2, 10) = 1024", "square(-3) = 9", "ceiling(1.2) = 2", "floor(-1.2) = -2", "sign(-9) = -1", "sign(0) = 0", "sign(4) = 1", "sqrt(9) = 3",
			"as_number(level) = 7", "as_number('-1.5e2') = -150", "as_number(5) = 5", "As_Number('+3') = 3",
			"is_bool(true)", "NOT is_bool(1)", "is_bool($body.on)", "is_defined(alert)", "NOT is_defined(missing)", "is_defined($body.none)", "NOT is_defined($body.missing)", "is_defined(null)",
			"is_null(null)", "is_null($body.none)", "NOT is_null(alert)", "NOT is_null($body.temp)", "is_number(1)", "is_number($body.temp)", "NOT is_number(alert)", "NOT is_number(1 / 0)", "is_string(alert)", "NOT is_string(missing)", "NOT is_string($body.temp)",
			"concat('a', 'b', alert) = 'abhigh'", "length('Kühler') = 6", "length('\\ud83d\\ude00') = 2", "lower('ÄB') = 'äb'", "upper('äb') = 'ÄB'", "substring('hello', 1) = 'ello'", "substring('hello', 1, 3) = 'ell'", "substring('hello', 5) = ''",
			"substring('a\\ud83d\\ude00b', 3) = 'b'", "substring('a\\ud83d\\ude00b', 1, 2) = '\\ud83d\\ude00'", "index_of('äbc', 'c') = 2", "index_of('a', 'z') = -1", "index_of('a', '') = 0",
			"starts_with(alert, 'hi')", "ends_with(alert, 'gh')", "contains(alert, 'ig')", "NOT contains(alert, 'IG')", "NOT starts_with('a', 'b')", "concat(concat('a', 'b'), 'c') = 'abc'", "NOT IS_DEFINED({$userId})",
		},
		not: []string{
			"as_number(alert) = 0", "as_number('') = 0", "as_number('0x10') = 16", "as_number('Infinity') > 0", "as_number('1,5') > 0", "as_number(missing) = 0", "as_number('1e999') > 0", "sqrt(-1) != 0", "is_bool(undefined)", "NOT is_bool(undefined)", "is_null($body.missing)", "NOT is_null($body.missing)",
			"length(missing) = 9", "length($body.temp) = 4", "concat(missing, 'a') != 'x'", "lower(missing) = 'undefined'", "substring('hello', 6) = ''", "substring('hello', -1) = ''", "substring('hello', 1, 9) != 'x'", "substring('hello', 5, 0) = ''", "index_of(missing, 'x') = -1", "abs($body.name) >= 0", "power($body.name, 2) >= 0", "starts_with(missing, 'x')", "NOT starts_with(missing, 'x')",
		},
	},
}

func TestConditions(t *testing.T) {
	t.Parallel()
	m := telemetryMessage()
	for name, tc := range conditions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, where := range tc.yes {
				if !routes(t, "/messages/*", where, m, false) {
					t.Errorf("%s: got no, want yes", where)
				}
			}
			for _, where := range tc.not {
				if routes(t, "/messages/*", where, m, false) {
					t.Errorf("%s: got yes, want no", where)
				}
			}
		})
	}
}

func TestConditionsPrintWhatTheyMean(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a = 'x'":     `a = "x"`,
		"((a = 'x'))": `a = "x"`,
		"a = 'x' and b = 'y' or not (c <> 'z') OR true AND $body.q": `a = "x" AND b = "y" OR NOT (c != "z") OR true AND $body.q`,
		"1 - (2 - 3) = 2":                         "1 - (2 - 3) = 2",
		"(1 - 2) - 3 = 2":                         "1 - 2 - 3 = 2",
		"NOT (a = 'x' AND true)":                  `NOT (a = "x" AND true)`,
		"- ( - 5 ) = 0x10":                        "- - 5 = 16",
		"-5 = - 5":                                "-5 = - 5",
		"(NOT true) = false":                      "NOT true = false",
		"NOT (true = false)":                      "NOT (true = false)",
		"(true ?? false) AND true":                "(true ?? false) AND true",
		"LENGTH ( concat('a',\"b\\\"\") ) > 1e21": `length(concat("a", "b\"")) > 1e+21`,
		"{ $body.a[3].b } = {$to}":                "{$body.a[3].b} = {$to}",
		"(1 < 2) = (3 < 4)":                       "1 < 2 = 3 < 4",
		"1 < 2 = true":                            "1 < 2 = true",
		"(1 = 2) < true":                          "(1 = 2) < true",
	} {
		r := conditionRoute(t, "/*", text)
		if r.Where != want {
			t.Errorf("%s: printed %s, want %s", text, r.Where, want)
		}
		if again, err := Parse(r.String()); err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%s: got %v, error %v, want %v", text, again, err, r)
		}
	}
}

func TestBadConditions(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                  "a value",
		"a":                                 "true or false",
		"1":                                 "true or false",
		"'x' || 'y'":                        "true or false",
		"a = 1":                             "as_number",
		"a > 5":                             "as_number",
		"null = 'x'":                        "two of a kind",
		"true = 1":                          "two of a kind",
		"a + 1 = 2":                         "as_number",
		"1 || 'x' = 'x'":                    "text",
		"NOT a = 'x'":                       "true or false",
		"null":                              "true or false",
		"'a'x = 'b'":                        "an operator or INTO",
		"NOT null":                          "true or false",
		"- 'x' = 1":                         "a number",
		"a AND true":                        "true or false",
		"true OR 1":                         "true or false",
		"a ?? 1 = 'x'":                      "two of a kind",
		"a = ":                              "a value",
		"= 'x'":                             "a value",
		"a = 'x' b":                         "an operator or INTO",
		"a = 'x' AND":                       "a value",
		"a == 'x'":                          "a value",
		"a = 'x":                            "closing quote",
		"(true":                             `closing ")"`,
		"true)":                             "an operator or INTO",
		"a[0] = 'x'":                        "a condition",
		"a & b":                             "an operator or INTO",
		"a@b = 'x'":                         "a condition",
		"frobnicate(a)":                     "a function",
		"length() = 1":                      "another argument for length",
		"length('a', 'b') = 1":              "length takes no more",
		"length('a' 'b') = 1":               `","`,
		"length(, 'b') = 1":                 "a value",
		"concat('a') = 'a'":                 "another argument for concat",
		"substring('a') = 'a'":              "another argument for substring",
		"substring('a', 'b') = 'a'":         "a number",
		"substring('a', 1, 2, 3) = 'a'":     "substring takes no more",
		"abs('x') = 1":                      "as_number",
		"is_defined() ":                     "another argument for is_defined",
		"length('a' = 1":                    "text",
		"$body":                             "$body.member",
		"$body.":                            "$body.member",
		"$body..a = 1":                      "$body.a.b[0].c",
		"$body.a[x] = 1":                    "$body.a.b[0].c",
		"$body.a[1 = 1":                     "$body.a.b[0].c",
		"$body.a[0][1] = 1":                 "$body.a.b[0].c",
		"$body.a[99999999999] = 1":          "$body.a.b[0].c",
		"$body.* = 1":                       "$body.a.b[0].c",
		"$to[0] = 'x'":                      "only $body",
		"{to} = 'x'":                        "$name",
		"{$to = 'x'":                        "}",
		"1e999 > 0":                         "64 bits",
		"0xFFFFFFFFFFFFFFFF > 0":            "64 bits",
		"twin_change_includes(tags.a)":      "twinChangeNotifications",
		"true /* why */":                    "a value",
		"SELECT = 'x'":                      "a value",
		strings.Repeat("(", 70) + "true":    "flatter",
		strings.Repeat("NOT ", 70) + "true": "flatter",
	} {
		r, err := Parse("FROM /messages/* WHERE " + text + " INTO $upstream")
		var parse *ParseError
		if !errors.As(err, &parse) || r != (Route{}) {
			t.Errorf("%.60s: got %v, error %v, want a *ParseError", text, r, err)
			continue
		}
		if !strings.Contains(err.Error(), want) || strings.ContainsAny(err.Error(), "\n") {
			t.Errorf("%.60s: got %v, want a hint of %q", text, err, want)
		}
	}
}

func TestLongChainsAreNotNesting(t *testing.T) {
	t.Parallel()
	where := strings.Repeat("a = 'x' OR ", 2000) + "alert = 'high'"
	if !routes(t, "/messages/*", where, telemetryMessage(), false) {
		t.Error("got no, want yes")
	}
}

func TestConditionalRouters(t *testing.T) {
	t.Parallel()
	high, low := conditionRoute(t, "/messages/*", "alert = 'high'"), conditionRoute(t, "/messages/*", "alert = 'low'")
	always, err := Parse("FROM /messages/* INTO $upstream")
	if err != nil {
		t.Fatal(err)
	}
	router := NewRouter([]Rule{
		{Name: "high", Route: high, Priority: 1}, {Name: "low", Route: low, Priority: 0}, {Name: "rest", Route: always, Priority: Lowest},
		{Name: "broken", Route: Route{Source: "/*", Where: "nonsense", Sink: Sink{"m", "i"}}},
		{Name: "broken too", Route: Route{Source: "/*", Where: "true INTO $upstream", Sink: Sink{"m", "i"}}},
	})
	m := telemetryMessage()
	for name, tc := range map[string]struct {
		got  []Hop
		want string
	}{
		"with its condition":            {router.RouteMessage(m, false), "high"},
		"without it":                    {router.RouteMessage(message.Message{Source: m.Source}, false), "rest"},
		"asked without a message":       {router.Route(m.Source, m.Output, false), "rest"},
		"no condition in all the table": {NewRouter([]Rule{{Name: "only", Route: always}}).RouteMessage(m, false), "only"},
	} {
		if len(tc.got) != 1 || tc.got[0].Rule != tc.want {
			t.Errorf("%s: got %+v, want rule %s", name, tc.got, tc.want)
		}
	}
	if !router.Conditional() || NewRouter([]Rule{{Route: always}}).Conditional() || (*Router)(nil).Conditional() || (*Router)(nil).RouteMessage(m, false) != nil {
		t.Error("Conditional is wrong")
	}
}

func FuzzCondition(f *testing.F) {
	for _, tc := range conditions {
		for _, where := range append(tc.yes, tc.not...) {
			f.Add(where, jsonBody)
		}
	}
	f.Add("twin_change_includes(properties.reported.a[0])", `{"a":[{}]}`)
	f.Fuzz(func(t *testing.T, where, body string) {
		for _, from := range []string{"/*", "/twinChangeNotifications/*"} {
			r, err := Parse("FROM " + from + " WHERE " + where + " INTO $upstream")
			if err != nil {
				continue
			}
			text := r.String()
			if len(text) > MaxText {
				continue
			}
			again, err := Parse(text)
			if err != nil || again != r {
				t.Fatalf("%q prints %q, which parses to %q, error %v", where, text, again, err)
			}
			m := telemetryMessage()
			m.Body = []byte(body)
			NewRouter([]Rule{{Route: r}}).RouteMessage(m, from != "/*")
		}
	})
}

func BenchmarkConditionProperty(b *testing.B) {
	benchmarkCondition(b, "alert = 'high' AND as_number(level) > 5")
}

func BenchmarkConditionBody(b *testing.B) {
	benchmarkCondition(b, "$body.temp > 20 AND $body.deep.list[1].x = 'y'")
}

func benchmarkCondition(b *testing.B, where string) {
	router, m := NewRouter([]Rule{{Route: conditionRoute(b, "/*", where)}}), telemetryMessage()
	b.ReportAllocs()
	for b.Loop() {
		if len(router.RouteMessage(m, false)) != 1 {
			b.Fatal("not routed")
		}
	}
}
