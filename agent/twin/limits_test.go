package twin

import (
	"errors"
	"strings"
	"testing"
)

func nest(open, inner, closing string, n int) string {
	return strings.Repeat(open, n) + inner + strings.Repeat(closing, n)
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		section Section
		patch   string
		want    string // "" = accepted, else the error
	}{
		"ordinary values are accepted":     {Reported, `{"a":1,"b":true,"c":"x","d":[1,"y",[false]],"e":{"f":null}}`, ""},
		"the longest key is accepted":      {Reported, `{"` + strings.Repeat("k", 1024) + `":1}`, ""},
		"a longer key is refused":          {Reported, `{"o":{"` + strings.Repeat("k", 1025) + `":1}}`, "reported.o: key of 1025 bytes; want at most 1024"},
		"key length counts bytes":          {Reported, `{"` + strings.Repeat("ä", 513) + `":1}`, "reported: key of 1026 bytes; want at most 1024"},
		"a dot in a key is refused":        {Desired, `{"a.b":1}`, `desired: key "a.b" holds '.'; want no control character, whitespace, '.', '$' or '#' in keys`},
		"a dollar in a key is refused":     {Tags, `{"a":{"$b":1}}`, `tags.a: key "$b" holds '$'; want no control character, whitespace, '.', '$' or '#' in keys`},
		"a hash in a key is refused":       {Reported, `{"#":1}`, `reported: key "#" holds '#'; want no control character, whitespace, '.', '$' or '#' in keys`},
		"a space in a key is refused":      {Reported, `{"a b":1}`, `reported: key "a b" holds ' '; want no control character, whitespace, '.', '$' or '#' in keys`},
		"a control character is refused":   {Reported, `{"a\u0007":1}`, `reported: key "a\a" holds '\a'; want no control character, whitespace, '.', '$' or '#' in keys`},
		"a key inside an array is checked": {Reported, `{"a":[{"b.c":1}]}`, `reported.a[0]: key "b.c" holds '.'; want no control character, whitespace, '.', '$' or '#' in keys`},
		"the longest string is accepted":   {Reported, `{"a":"` + strings.Repeat("x", 4096) + `"}`, ""},
		"a longer string is refused":       {Reported, `{"a":["` + strings.Repeat("x", 4097) + `"]}`, "reported.a[0]: string of 4097 bytes; want at most 4096"},
		"the largest integer is accepted":  {Reported, `{"a":4503599627370495,"b":-4503599627370496}`, ""},
		"a larger integer is refused":      {Reported, `{"a":4503599627370496}`, "reported.a: integer 4503599627370496; want -4503599627370496 to 4503599627370495"},
		"a smaller integer is refused":     {Reported, `{"a":-4503599627370497}`, "reported.a: integer -4503599627370497; want -4503599627370496 to 4503599627370495"},
		"an endless integer is refused":    {Reported, `{"a":` + strings.Repeat("9", 60) + `}`, "reported.a: integer " + strings.Repeat("9", 40) + "…; want -4503599627370496 to 4503599627370495"},
		"a large fraction is a double":     {Reported, `{"a":1e300,"b":0.1}`, ""},
		"a number no double holds":         {Reported, `{"a":1e400}`, "reported.a: number 1e400; want a number that fits 64-bit floating point"},
		"ten levels are accepted":          {Reported, nest(`{"a":`, `{}`, `}`, 10), ""},
		"eleven levels are refused":        {Reported, nest(`{"a":`, `{}`, `}`, 11), "reported.a.a.a.a.a.a.a.a.a.a.a: more than 10 levels deep; want at most 10"},
		"arrays count as levels":           {Reported, `{"a":` + nest(`[`, `[]`, `]`, 10) + `}`, "reported.a[0][0][0][0][0][0][0][0][0][0]: more than 10 levels deep; want at most 10"},
		"null in an array is refused":      {Reported, `{"a":[1,null]}`, "reported.a[1]: null inside an array; want null only to delete a member"},
		"null in an object in an array":    {Reported, `{"a":[{"b":{"c":null}}]}`, "reported.a[0].b.c: null inside an array; want null only to delete a member"},
		"32 KiB of reported are accepted":  {Reported, big(8, 4092), ""},
		"one byte more is refused":         {Reported, big(8, 4092)[:1] + `"x":"",` + big(8, 4092)[1:], "reported: 32769 bytes; want at most 32768"},
		"tags hold 8 KiB":                  {Tags, big(2, 4092), ""},
		"tags hold no more":                {Tags, big(3, 4092), "tags: 12288 bytes; want at most 8192"},
		"numbers count 8 and booleans 4":   {Tags, `{"a":[` + strings.Repeat("1,", 1022) + `true,false]}`, ""},
		"one number more is refused":       {Tags, `{"a":[` + strings.Repeat("1,", 1023) + `true,false]}`, "tags: 8193 bytes; want at most 8192"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := Validate(c.section, object(t, c.patch))
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			var limit *LimitError
			if err != nil && !errors.As(err, &limit) {
				t.Errorf("%T is not a *LimitError", err)
			}
		})
	}
}

// big is an object of n members of four-byte keys and size-byte strings.
func big(n, size int) string {
	var b strings.Builder
	b.WriteString("{")
	for i := range n {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString(`"key` + string(rune('a'+i)) + `":"` + strings.Repeat("v", size) + `"`)
	}
	b.WriteString("}")
	return b.String()
}

func TestParsePatchRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"nothing":              {``, "patch: JSON text ends early; want one JSON object"},
		"half an object":       {`{"a":`, "patch: JSON text ends early; want one JSON object"},
		"an array":             {`[1]`, "patch: a JSON array; want one JSON object"},
		"null":                 {`null`, "patch: null; want one JSON object"},
		"two objects":          {`{} {}`, "patch: more text after the object at byte 4; want one JSON object"},
		"text behind":          {`{}x`, "patch: more text after the object at byte 2; want one JSON object"},
		"a broken version":     {`{"$version":"4"}`, "patch.$version: a string; want a whole number"},
		"a fractional version": {`{"$version":1.5}`, "patch.$version: 1.5; want a whole number"},
		"a bomb of brackets":   {`{"a":` + strings.Repeat("[", 1<<19), "patch: more than 32 objects and arrays inside each other; want at most 10 levels"},
		"a megabyte":           {`{"a":"` + strings.Repeat("x", 1<<20) + `"}`, "patch: 1048584 bytes of JSON; want at most 1048576"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParsePatch([]byte(c.text))
			var limit *LimitError
			if got != nil || !errors.As(err, &limit) || err.Error() != c.want {
				t.Errorf("got %v, %v, want nil, %s", got, err, c.want)
			}
		})
	}
}

func TestParsePatchStripsWhatIsNotData(t *testing.T) {
	t.Parallel()
	got, version, err := parse("desired", []byte(` {"$version":7,"$metadata":{"$lastUpdated":"x","a":{}},"a":{"[{":"\"]}"},"b":1.50} `))
	if err != nil || version != 7 || string(encode(got)) != `{"a":{"[{":"\"]}"},"b":1.50}` {
		t.Errorf("got %s, version %d, %v", encode(got), version, err)
	}
}

func FuzzParsePatch(f *testing.F) {
	f.Add([]byte(`{"a":{"b":null,"c":[1,{"d":"e"}]},"$version":3,"f":-1.5e3,"g":true}`))
	f.Add([]byte(`{"$metadata":{},"ключ":"\ud83d\ude00\\\""}`))
	f.Add([]byte(`{"a":[[[[[[[[[[[]]]]]]]]]]]}`))
	f.Add([]byte(`nul`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		patch, err := ParsePatch(raw)
		if err != nil {
			var limit *LimitError
			if patch != nil || !errors.As(err, &limit) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("got %v with error %q", patch, err)
			}
			return
		}
		printed := encode(patch)
		again, err := ParsePatch(printed)
		if err != nil || string(encode(again)) != string(printed) {
			t.Fatalf("%q prints as %q and parses to %q, %v", raw, printed, encode(again), err)
		}
		if err := Validate(Reported, patch); err != nil {
			return
		}
		doc := Merge(nil, patch)
		if err := Validate(Reported, doc); err != nil {
			t.Fatalf("a valid patch makes an invalid section: %v", err)
		}
		if rest := Diff(Merge(doc, patch), doc); len(rest) != 0 {
			t.Fatalf("merging %s twice differs: %s", printed, encode(rest))
		}
	})
}
