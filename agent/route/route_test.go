package route

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestRoutesParse(t *testing.T) {
	t.Parallel()
	filter := Sink{Module: "filter", Input: "in1"}
	for name, tc := range map[string]struct {
		text  string
		want  Route
		print string
	}{
		"everything upstream":           {"FROM /* INTO $upstream", Route{Source: "/*"}, "FROM /* INTO $upstream"},
		"the template's route":          {"FROM /messages/* INTO $upstream", Route{Source: "/messages/*"}, "FROM /messages/* INTO $upstream"},
		"SELECT is optional":            {"SELECT * FROM /messages/* INTO $upstream", Route{Source: "/messages/*"}, "FROM /messages/* INTO $upstream"},
		"SELECT needs no space":         {"SELECT*FROM /messages/* INTO $upstream", Route{Source: "/messages/*"}, "FROM /messages/* INTO $upstream"},
		"keywords in any case":          {"select * from /MESSAGES/Modules/Filter/OUTPUTS/Out into $UpStream", Route{Source: "/messages/modules/Filter/outputs/Out"}, "FROM /messages/modules/Filter/outputs/Out INTO $upstream"},
		"white space of all kinds":      {"\n FROM\t/messages/*\r\n INTO   $upstream \n", Route{Source: "/messages/*"}, "FROM /messages/* INTO $upstream"},
		"no star is a star":             {"FROM /messages INTO $upstream", Route{Source: "/messages/*"}, "FROM /messages/* INTO $upstream"},
		"slashes and stars at the end":  {"FROM /messages/modules/*/*/ INTO $upstream", Route{Source: "/messages/modules/*"}, "FROM /messages/modules/* INTO $upstream"},
		"one module":                    {"FROM /messages/modules/a.b-c/* INTO $upstream", Route{Source: "/messages/modules/a.b-c/*"}, "FROM /messages/modules/a.b-c/* INTO $upstream"},
		"all outputs":                   {"FROM /messages/modules/a/outputs/* INTO $upstream", Route{Source: "/messages/modules/a/outputs/*"}, "FROM /messages/modules/a/outputs/* INTO $upstream"},
		"an output with slashes":        {"FROM /messages/modules/a/outputs/x/y INTO $upstream", Route{Source: "/messages/modules/a/outputs/x/y"}, "FROM /messages/modules/a/outputs/x/y INTO $upstream"},
		"the edge agent":                {"FROM /messages/modules/$edgeAgent/* INTO $upstream", Route{Source: "/messages/modules/$edgeAgent/*"}, "FROM /messages/modules/$edgeAgent/* INTO $upstream"},
		"twin changes":                  {"FROM /twinchangenotifications INTO $upstream", Route{Source: "/twinChangeNotifications/*"}, "FROM /twinChangeNotifications/* INTO $upstream"},
		"a module's input":              {`FROM /messages/modules/s/outputs/o INTO BrokeredEndpoint("/modules/filter/inputs/in1")`, Route{Source: "/messages/modules/s/outputs/o", Sink: filter}, `FROM /messages/modules/s/outputs/o INTO BrokeredEndpoint("/modules/filter/inputs/in1")`},
		"single quotes, no slashes":     {`FROM /* INTO brokeredendpoint ( 'Modules/filter/Inputs/in1' )`, Route{Source: "/*", Sink: filter}, `FROM /* INTO BrokeredEndpoint("/modules/filter/inputs/in1")`},
		"a slash at the end":            {`FROM /* INTO BrokeredEndpoint("/modules/filter/inputs/in1/")`, Route{Source: "/*", Sink: filter}, `FROM /* INTO BrokeredEndpoint("/modules/filter/inputs/in1")`},
		"escapes in the name":           {`FROM /* INTO BrokeredEndpoint("\u002fmodules\/filter\/inputs/i\"\\\n\ud83d\ude00")`, Route{Source: "/*", Sink: Sink{"filter", "i\"\\\n😀"}}, `FROM /* INTO BrokeredEndpoint("/modules/filter/inputs/i\"\\\u000a😀")`},
		"a module called upstream":      {`FROM /* INTO BrokeredEndpoint("/modules/$upstream/inputs/i")`, Route{Source: "/*", Sink: Sink{"$upstream", "i"}}, `FROM /* INTO BrokeredEndpoint("/modules/$upstream/inputs/i")`},
		"a module called FROM and INTO": {"FROM /messages/modules/INTO/* INTO $upstream", Route{Source: "/messages/modules/INTO/*"}, "FROM /messages/modules/INTO/* INTO $upstream"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Parse(tc.text)
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Fatalf("got %+v, error %v, want %+v", got, err, tc.want)
			}
			if got.String() != tc.print {
				t.Fatalf("printed %q, want %q", got, tc.print)
			}
		})
	}
}

func TestBadRoutes(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text   string
		offset int
		want   string // part of what would have been right
	}{
		"empty":                        {"", 0, "FROM"},
		"another language":             {"INSERT INTO x", 0, "FROM"},
		"SELECT of a column":           {"SELECT a FROM /* INTO $upstream", 7, "*"},
		"SELECT alone":                 {"SELECT *", 8, "FROM"},
		"no source":                    {"FROM", 4, "/messages/*"},
		"a source without slash":       {"FROM messages/* INTO $upstream", 5, "/messages/*"},
		"an unknown source":            {"FROM /telemetry/* INTO $upstream", 5, "/messages/*"},
		"events are not a source":      {"FROM /messages/events INTO $upstream", 5, "/messages/*"},
		"inputs are not a source":      {"FROM /messages/modules/a/inputs/i INTO $upstream", 5, "outputs"},
		"twin changes of one module":   {"FROM /twinChangeNotifications/modules/a INTO $upstream", 5, "/twinChangeNotifications"},
		"a star in the middle":         {"FROM /messages/modules/*/outputs/x INTO $upstream", 5, "outputs"},
		"an empty module":              {"FROM /messages/modules//outputs/x INTO $upstream", 5, "outputs"},
		"a bad module id":              {"FROM /messages/modules/ä/* INTO $upstream", 5, "outputs"},
		"no sink":                      {"FROM /*", 7, "INTO"},
		"a misspelt keyword":           {"FROM /* INTOO $upstream", 8, "INTO"},
		"INTO and nothing":             {"FROM /* INTO", 12, "$upstream"},
		"an unknown sink":              {"FROM /* INTO $downstream", 13, "$upstream"},
		"upstream with a tail":         {"FROM /* INTO $upstream2", 13, "$upstream"},
		"an unknown function":          {`FROM /* INTO Endpoint("/modules/a/inputs/i")`, 13, "$upstream"},
		"a function without bracket":   {`FROM /* INTO BrokeredEndpoint "/modules/a/inputs/i"`, 30, "$upstream"},
		"a function without argument":  {`FROM /* INTO BrokeredEndpoint()`, 30, "quotes"},
		"an argument without quotes":   {`FROM /* INTO BrokeredEndpoint(/modules/a/inputs/i)`, 30, "quotes"},
		"an open string":               {`FROM /* INTO BrokeredEndpoint("/modules/a/inputs/i)`, 30, "closing quote"},
		"an open function":             {`FROM /* INTO BrokeredEndpoint("/modules/a/inputs/i"`, 51, ")"},
		"three segments":               {`FROM /* INTO BrokeredEndpoint("/modules/a/inputs")`, 30, "/modules/{module}"},
		"five segments":                {`FROM /* INTO BrokeredEndpoint("/modules/a/inputs/i/j")`, 30, "/modules/{module}"},
		"an empty input":               {`FROM /* INTO BrokeredEndpoint("/modules/a/inputs//")`, 30, "/modules/{module}"},
		"an output as sink":            {`FROM /* INTO BrokeredEndpoint("/modules/a/outputs/i")`, 30, "/modules/{module}"},
		"an empty sink module":         {`FROM /* INTO BrokeredEndpoint("/modules//inputs/i")`, 30, "module id"},
		"a bad sink module":            {`FROM /* INTO BrokeredEndpoint("/modules/a b/inputs/i")`, 30, "module id"},
		"a long input":                 {`FROM /* INTO BrokeredEndpoint("/modules/a/inputs/` + strings.Repeat("i", 129) + `")`, 30, "128"},
		"an unknown escape":            {`FROM /* INTO BrokeredEndpoint("\x")`, 31, `\uXXXX`},
		"half an escape":               {`FROM /* INTO BrokeredEndpoint("\`, 32, "backslash"},
		"a short \\u":                  {`FROM /* INTO BrokeredEndpoint("\u12")`, 31, "hex"},
		"half a surrogate pair":        {`FROM /* INTO BrokeredEndpoint("\ud83d")`, 31, "surrogates"},
		"two sinks":                    {"FROM /* INTO $upstream, $upstream", 22, "one sink"},
		"a semicolon":                  {"FROM /* INTO $upstream;", 22, "one sink"},
		"a comment is no white space":  {"FROM /* INTO /* hub */ $upstream", 13, "$upstream"},
		"a text beyond 32 KiB":         {strings.Repeat(" ", MaxText) + "FROM /* INTO $upstream", 0, "shorter"},
		"a text that is not UTF-8":     {"FROM /messages/modules/\xff INTO $upstream", 0, "UTF-8"},
		"a condition without keywords": {"FROM /* a = 1 INTO $upstream", 8, "INTO"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Parse(tc.text)
			var parse *ParseError
			if !errors.As(err, &parse) || !reflect.DeepEqual(got, Route{}) {
				t.Fatalf("got %+v, error %v, want a *ParseError", got, err)
			}
			if parse.Offset != tc.offset || !strings.Contains(parse.Want, tc.want) {
				t.Fatalf("got %v, want offset %d and a hint of %q", err, tc.offset, tc.want)
			}
			if strings.ContainsAny(err.Error(), "\n\r") || len(err.Error()) > 400 {
				t.Fatalf("not one short line: %q", err)
			}
		})
	}
}

func FuzzRoute(f *testing.F) {
	for _, s := range []string{
		"FROM /* INTO $upstream",
		"select * from /messages/modules/a/outputs/x/y into brokeredEndpoint('modules/filter/inputs/i\\u0041')",
		"FROM /messages/modules/$edgeHub/ INTO $UPSTREAM", "FROM /twinChangeNotifications/* INTO $upstream",
		`FROM /* INTO BrokeredEndpoint("/modules/a/inputs/\ud83d\ude00\"")`,
		"FROM /messages/* WHERE NOT is_defined($connectionModuleId) INTO $upstream",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			if !reflect.DeepEqual(r, Route{}) {
				t.Fatalf("got %+v beside error %v", r, err)
			}
			return
		}
		text := r.String()
		if len(text) > MaxText {
			return // printing may lengthen a text that was just short enough
		}
		again, err := Parse(text)
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("%q parses to %+v, prints %q, parses to %+v, error %v", s, r, text, again, err)
		}
		NewRouter([]Rule{{Route: r}})
	})
}
