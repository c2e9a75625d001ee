package iothub

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestIDs(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", MaxID)
	for name, tc := range map[string]struct {
		text string
		want ID
		bad  bool
	}{
		"a device":                         {text: "edge1", want: ID{Device: "edge1"}},
		"a module":                         {text: "edge1/mod1", want: ID{"edge1", "mod1"}},
		"the agent's own module":           {text: "edge1/$edgeAgent", want: ID{"edge1", EdgeAgent}},
		"the hub's own module":             {text: "edge1/$edgeHub", want: ID{"edge1", EdgeHub}},
		"every special character is legal": {text: "-.+%_#*?!(),:=@$'", want: ID{Device: "-.+%_#*?!(),:=@$'"}},
		"128 characters are legal":         {text: long + "/" + long, want: ID{long, long}},
		"129 characters are not":           {text: long + "x", bad: true},
		"129 in the module are not":        {text: "d/" + long + "x", bad: true},
		"empty":                            {text: "", bad: true},
		"no device":                        {text: "/mod1", bad: true},
		"a slash but no module":            {text: "edge1/", bad: true},
		"three parts":                      {text: "a/b/c", bad: true},
		"a space":                          {text: "edge 1", bad: true},
		"an umlaut":                        {text: "gerät", bad: true},
		"a control character":              {text: "edge\x01", bad: true},
		"a zero byte":                      {text: "edge\x00", bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseID(tc.text)
			if (err != nil) != tc.bad || got != tc.want {
				t.Fatalf("got %+v, error %v, want %+v, error: %t", got, err, tc.want, tc.bad)
			}
			if err == nil && got.String() != tc.text {
				t.Fatalf("printed %q, want %q", got.String(), tc.text)
			}
		})
	}
}

func TestIDKnowsItsResource(t *testing.T) {
	t.Parallel()
	for want, id := range map[string]ID{
		"hub.example.net/devices/edge1":                    {Device: "edge1"},
		"hub.example.net/devices/edge1/modules/$edgeAgent": {Device: "edge1", Module: EdgeAgent},
	} {
		if got := id.Resource("hub.example.net"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if !(ID{}).IsZero() || (ID{Device: "d"}).IsZero() || (ID{Device: "d"}).IsModule() || !(ID{"d", "m"}).IsModule() {
		t.Error("IsZero or IsModule is wrong")
	}
}

func TestIDIsTextInJSON(t *testing.T) {
	t.Parallel()
	want := map[ID]ID{{"d", "m"}: {Device: "d"}, {Device: "e"}: {}}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(text); got != `{"d/m":"d","e":""}` {
		t.Errorf("got %s", got)
	}
	got := map[ID]ID{}
	if err := json.Unmarshal(text, &got); err != nil || len(got) != 2 || got[ID{"d", "m"}] != (ID{Device: "d"}) {
		t.Errorf("got %v, error %v, want %v", got, err, want)
	}
	if err := json.Unmarshal([]byte(`{"a/b/c":""}`), &got); err == nil {
		t.Error("an id of three parts was read")
	}
}

func FuzzID(f *testing.F) {
	for _, s := range []string{"edge1", "edge1/mod1", "edge1/$edgeHub", "a/b/c", "/", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err != nil {
			if !id.IsZero() {
				t.Fatalf("got %v beside error %v", id, err)
			}
			return
		}
		if id.String() != s {
			t.Fatalf("%q prints as %q", s, id)
		}
	})
}
