package twin

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strconv"
	"testing"
	"time"
)

func object(t testing.TB, text string) map[string]any {
	t.Helper()
	doc, err := ParsePatch([]byte(text))
	if err != nil {
		t.Fatalf("parse %s: %v", text, err)
	}
	return doc
}

func TestMerge(t *testing.T) {
	t.Parallel()
	// The test cases of RFC 7396, appendix A, that are objects, and what twins add.
	for name, c := range map[string]struct{ target, patch, want string }{
		"a member is replaced":                      {`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		"a member is added":                         {`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		"null deletes":                              {`{"a":"b"}`, `{"a":null}`, `{}`},
		"null deletes one of two":                   {`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		"an array is replaced by a scalar":          {`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		"a scalar is replaced by an array":          {`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		"objects merge and null inside deletes":     {`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		"arrays are never merged":                   {`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		"a new object drops its nulls":              {`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		"deleting an absent member is not an error": {`{}`, `{"a":null}`, `{}`},
		"a scalar is replaced by an object":         {`{"a":1}`, `{"a":{"b":2,"c":null}}`, `{"a":{"b":2}}`},
		"numbers keep their text":                   {`{}`, `{"a":1.10,"b":1e2}`, `{"a":1.10,"b":1e2}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target, patch := object(t, c.target), object(t, c.patch)
			got := string(encode(Merge(target, patch)))
			if got != c.want {
				t.Errorf("merge %s into %s: got %s, want %s", c.patch, c.target, got, c.want)
			}
			if after := string(encode(target)); after != string(encode(object(t, c.target))) {
				t.Errorf("merge altered its target: %s", after)
			}
		})
	}
}

func TestComposeKeepsNulls(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ first, second, want string }{
		"deletions survive":                 {`{"a":null}`, `{"b":1}`, `{"a":null,"b":1}`},
		"a later value wins":                {`{"a":null,"b":1}`, `{"a":2}`, `{"a":2,"b":1}`},
		"a later null wins":                 {`{"a":{"b":1}}`, `{"a":null}`, `{"a":null}`},
		"nulls deep inside survive":         {`{"a":{"b":null}}`, `{"a":{"c":1}}`, `{"a":{"b":null,"c":1}}`},
		"an object after null stands alone": {`{"a":null}`, `{"a":{"b":1,"c":null}}`, `{"a":{"b":1}}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := string(encode(Compose(object(t, c.first), object(t, c.second)))); got != c.want {
				t.Errorf("compose %s, %s: got %s, want %s", c.first, c.second, got, c.want)
			}
		})
	}
}

// randomDoc makes small documents over few names, so that members collide.
func randomDoc(r *rand.Rand, depth int, nulls bool) map[string]any {
	doc := map[string]any{}
	for _, key := range []string{"a", "b", "c"} {
		switch r.IntN(6) {
		case 0:
			doc[key] = json.Number(strconv.Itoa(r.IntN(3)))
		case 1:
			doc[key] = []any{"x", json.Number(strconv.Itoa(r.IntN(2)))}
		case 2, 3:
			if depth > 0 {
				doc[key] = randomDoc(r, depth-1, nulls)
			}
		case 4:
			if nulls {
				doc[key] = nil
			}
		}
	}
	return doc
}

func TestAlgebra(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(7396, 1))
	for range 20000 {
		doc, other := randomDoc(r, 3, false), randomDoc(r, 3, false)
		first, second, third := randomDoc(r, 3, true), randomDoc(r, 3, true), randomDoc(r, 3, true)

		if got := Merge(doc, Diff(doc, other)); !reflect.DeepEqual(got, other) {
			t.Fatalf("merge(%s, diff to %s): got %s", encode(doc), encode(other), encode(got))
		}
		if got := Diff(doc, doc); len(got) != 0 {
			t.Fatalf("diff of %s with itself: got %s", encode(doc), encode(got))
		}
		whole := compose(compose(first, second), third)
		want := Merge(Merge(Merge(doc, first), second), third)
		if got := Merge(doc, whole); !reflect.DeepEqual(got, want) {
			t.Fatalf("%s then %s, %s, %s: got %s, want %s", encode(doc), encode(first), encode(second), encode(third), encode(got), encode(want))
		}
		if got := compose(first, compose(second, third)); !reflect.DeepEqual(Merge(doc, got), want) {
			t.Fatalf("compose is not associative for %s, %s, %s on %s", encode(first), encode(second), encode(third), encode(doc))
		}
		// The wire form is exact on the document it was resolved for, also when any part of it arrived before.
		for _, held := range []map[string]any{doc, Merge(doc, first), Merge(Merge(doc, first), second), want} {
			wire := resolve(whole, overlay(overlay(overlay(doc, first), second), third))
			if got := Merge(held, plain(wire)); !reflect.DeepEqual(got, want) {
				t.Fatalf("wire %s on %s: got %s, want %s", encode(wire), encode(held), encode(got), encode(want))
			}
		}
	}
}

func TestTouch(t *testing.T) {
	t.Parallel()
	at := func(sec int) time.Time { return time.Date(2024, 1, 1, 0, 0, sec, 0, time.UTC) }
	meta := Touch(nil, object(t, `{"x":1,"o":{"p":1,"q":2}}`), at(1), 4)
	meta = Touch(meta, object(t, `{"o":{"p":null,"q":3},"x":null,"n":5}`), at(2), 5)
	got := string(encode(meta))
	stamp := `"$lastUpdated":"2024-01-01T00:00:02.0000000Z","$lastUpdatedVersion":5`
	want := `{` + stamp + `,"n":{` + stamp + `},"o":{` + stamp + `,"q":{` + stamp + `}}}`
	if got != want {
		t.Errorf("metadata:\ngot  %s\nwant %s", got, want)
	}
	if got, want := string(encode(Touch(nil, object(t, `{"a":true}`), at(0), 0))),
		`{"$lastUpdated":"2024-01-01T00:00:00.0000000Z","a":{"$lastUpdated":"2024-01-01T00:00:00.0000000Z"}}`; got != want {
		t.Errorf("reported metadata: got %s, want %s", got, want)
	}
}
