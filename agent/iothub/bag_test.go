package iothub

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestBags(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text  string
		want  Bag
		print string // "" = text
	}{
		"empty":                    {},
		"encoded dollar":           {text: "%24.on=out1", want: Bag{{"$.on", "out1"}}},
		"raw dollar":               {text: "$.on=out1", want: Bag{{"$.on", "out1"}}, print: "%24.on=out1"},
		"Node's bag with its tail": {text: "%24.on=out1&%24.mid=id%201&alert=a%2Fb%20c/", want: Bag{{"$.on", "out1"}, {"$.mid", "id 1"}, {"alert", "a/b c"}}, print: "%24.on=out1&%24.mid=id%201&alert=a%2Fb%20c"},
		"a leading question mark":  {text: "?a=1", want: Bag{{"a", "1"}}, print: "a=1"},
		"only ornaments":           {text: "?/", print: "-"},
		"plus stays plus":          {text: "a+b=c+d", want: Bag{{"a+b", "c+d"}}, print: "a%2Bb=c%2Bd"},
		"lower-case hex":           {text: "a=%2f%c3%a4", want: Bag{{"a", "/ä"}}, print: "a=%2F%C3%A4"},
		"a raw slash in a value":   {text: "a=b/c", want: Bag{{"a", "b/c"}}, print: "a=b%2Fc"},
		"only one slash is tail":   {text: "a=b//", want: Bag{{"a", "b/"}}, print: "a=b%2F"},
		"a key without value":      {text: "a&b=", want: Bag{{"a", ""}, {"b", ""}}, print: "a=&b="},
		"equals sign in a value":   {text: "a=b=c", want: Bag{{"a", "b=c"}}, print: "a=b%3Dc"},
		"empty members":            {text: "&&a=1&&", want: Bag{{"a", "1"}}, print: "a=1"},
		"no key":                   {text: "=v&=", want: Bag{{"", "v"}, {"", ""}}},
		"a repeated key":           {text: "a=1&a=2", want: Bag{{"a", "1"}, {"a", "2"}}},
		"a stray percent sign":     {text: "a=100%&b=%zz&c=%4", want: Bag{{"a", "100%"}, {"b", "%zz"}, {"c", "%4"}}, print: "a=100%25&b=%25zz&c=%254"},
		"escapes of no character":  {text: "a=%ff", want: Bag{{"a", "%ff"}}, print: "a=%25ff"},
		"an encoded zero byte":     {text: "a=%00", want: Bag{{"a", "\x00"}}},
		"an encoded ampersand":     {text: "a=%26b%3D1", want: Bag{{"a", "&b=1"}}},
		"decoded only once":        {text: "a=%2525", want: Bag{{"a", "%25"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseBag(tc.text)
			if err != nil || !slices.Equal(got, tc.want) {
				t.Fatalf("got %q, error %v, want %q", got, err, tc.want)
			}
			want := tc.print
			switch want {
			case "":
				want = tc.text
			case "-":
				want = ""
			}
			if got.String() != want {
				t.Fatalf("printed %q, want %q", got.String(), want)
			}
		})
	}
}

func TestBagLimits(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"longer than a message": strings.Repeat("a", MaxBag+1),
		"too many properties":   strings.Repeat("a=&", MaxProperties+1),
		"not UTF-8":             "a=\xff",
	} {
		if bag, err := ParseBag(text); err == nil || bag != nil {
			t.Errorf("%s: got %d properties, error %v", name, len(bag), err)
		} else if len(err.Error()) > 600 {
			t.Errorf("%s: the error has %d bytes", name, len(err.Error()))
		}
	}
	if bag, err := ParseBag(strings.Repeat("a=&", MaxProperties)); err != nil || len(bag) != MaxProperties {
		t.Errorf("got %d properties, error %v, want %d", len(bag), err, MaxProperties)
	}
	if bag, err := ParseBag(strings.Repeat("&", MaxBag)); err != nil || bag != nil {
		t.Errorf("nothing but separators: got %v, error %v", bag, err)
	}
}

func TestBagChangesLeaveTheOriginalAlone(t *testing.T) {
	t.Parallel()
	bag := Bag{{"a", "1"}, {"b", "2"}, {"a", "3"}}
	for name, tc := range map[string]struct{ got, want Bag }{
		"Set replaces the first and drops the rest": {bag.Set("a", "9"), Bag{{"a", "9"}, {"b", "2"}}},
		"Set appends what is new":                   {bag.Set("c", "9"), Bag{{"a", "1"}, {"b", "2"}, {"a", "3"}, {"c", "9"}}},
		"Set starts an empty bag":                   {Bag(nil).Set("c", "9"), Bag{{"c", "9"}}},
		"Without drops every one":                   {bag.Without("a", "z"), Bag{{"b", "2"}}},
		"Without may leave nothing":                 {bag.Without("a", "b"), nil},
	} {
		if !slices.Equal(tc.got, tc.want) {
			t.Errorf("%s: got %q, want %q", name, tc.got, tc.want)
		}
	}
	if !slices.Equal(bag, Bag{{"a", "1"}, {"b", "2"}, {"a", "3"}}) {
		t.Errorf("the original became %q", bag)
	}
	if v, ok := bag.Get("a"); v != "1" || !ok {
		t.Errorf("Get: got %q %t, want the first value", v, ok)
	}
	if _, ok := bag.Get("z"); ok {
		t.Error("Get found what is not there")
	}
	if got := bag.Size(); got != 6 {
		t.Errorf("Size: got %d, want 6", got)
	}
}

func TestSyntaxErrorsStayShort(t *testing.T) {
	t.Parallel()
	_, err := ParsePublish("devices/" + strings.Repeat("\x01", 60000) + "/messages/events/")
	var syntax *SyntaxError
	if !errors.As(err, &syntax) || len(err.Error()) > 2000 {
		t.Errorf("got %d bytes of %T", len(err.Error()), err)
	}
}

func FuzzBag(f *testing.F) {
	for _, s := range []string{"", "?/", "%24.on=out1&a=b%20c/", "a+b=c", "%ff=%zz&&=", "a&b", "ä=%c3%a4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		bag, err := ParseBag(s)
		if err != nil {
			if bag != nil {
				t.Fatalf("got %q beside error %v", bag, err)
			}
			return
		}
		again, err := ParseBag(bag.String())
		if err != nil || !slices.Equal(again, bag) {
			t.Fatalf("%q parses to %q, prints %q, parses to %q, error %v", s, bag, bag.String(), again, err)
		}
	})
}

func BenchmarkParseBag(b *testing.B) {
	const text = "%24.on=out1&%24.mid=id%201&%24.ct=application%2Fjson&%24.ce=utf-8&alert=a%2Fb%20c/"
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseBag(text); err != nil {
			b.Fatal(err)
		}
	}
}
