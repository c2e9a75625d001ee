package route

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// function is one of the functions of the condition language. Called with a value of another kind than it takes, it
// yields undefined, except those that ask for the kind.
type function struct {
	name   string
	takes  []kind
	least  int  // arguments that must be given
	more   bool // the last one may be repeated
	result kind
	apply  func(args []value) value
}

// twinChangeIncludes takes a path instead of values, and the message decides.
const twinChangeIncludes = "twin_change_includes"

func onNumber(name string, f func(float64) float64) function {
	return function{name: name, takes: []kind{number}, least: 1, result: number, apply: func(a []value) value {
		return numberValue(f(a[0].number))
	}}
}

func onText(name string, result kind, f func(string) value) function {
	return function{name: name, takes: []kind{text}, least: 1, result: result, apply: func(a []value) value { return f(a[0].text) }}
}

func onTexts(name string, result kind, f func(s, part string) value) function {
	return function{name: name, takes: []kind{text, text}, least: 2, result: result, apply: func(a []value) value {
		return f(a[0].text, a[1].text)
	}}
}

func asks(name string, f func(value) value) function {
	return function{name: name, takes: []kind{dynamic}, least: 1, result: boolean, apply: func(a []value) value { return f(a[0]) }}
}

// functions are looked up by name in any case. They never change.
var functions = index([]function{
	onNumber("abs", math.Abs),
	onNumber("exp", math.Exp),
	onNumber("square", func(x float64) float64 { return x * x }),
	onNumber("ceiling", math.Ceil),
	onNumber("floor", math.Floor),
	onNumber("sqrt", math.Sqrt),
	onNumber("sign", sign),
	{name: "power", takes: []kind{number, number}, least: 2, result: number, apply: func(a []value) value {
		return numberValue(math.Pow(a[0].number, a[1].number))
	}},

	{name: "as_number", takes: []kind{dynamic}, least: 1, result: number, apply: func(a []value) value { return asNumber(a[0]) }},
	asks("is_defined", func(v value) value { return boolValue(v.kind != undefined) }),
	asks("is_number", func(v value) value { return boolValue(v.kind == number && !math.IsInf(v.number, 0)) }),
	asks("is_string", func(v value) value { return boolValue(v.kind == text) }),
	asks("is_bool", func(v value) value { return isKind(v, boolean) }),
	asks("is_null", func(v value) value { return isKind(v, null) }),

	{name: "concat", takes: []kind{text}, least: 2, more: true, result: text, apply: concat},
	onText("length", number, func(s string) value { return numberValue(float64(units(s))) }),
	onText("lower", text, func(s string) value { return textValue(strings.ToLower(s)) }),
	onText("upper", text, func(s string) value { return textValue(strings.ToUpper(s)) }),
	onTexts("starts_with", boolean, func(s, part string) value { return boolValue(strings.HasPrefix(s, part)) }),
	onTexts("ends_with", boolean, func(s, part string) value { return boolValue(strings.HasSuffix(s, part)) }),
	onTexts("contains", boolean, func(s, part string) value { return boolValue(strings.Contains(s, part)) }),
	onTexts("index_of", number, indexOf),
	{name: "substring", takes: []kind{text, number, number}, least: 2, result: text, apply: substring},
	{name: twinChangeIncludes, result: boolean},
})

func index(list []function) map[string]*function {
	m := make(map[string]*function, len(list))
	for i := range list {
		m[list[i].name] = &list[i]
	}
	return m
}

// kindOf is what the function takes as its i-th argument, ok whether it takes one at all.
func (f *function) kindOf(i int) (want kind, ok bool) {
	if i >= len(f.takes) {
		if !f.more {
			return 0, false
		}
		i = len(f.takes) - 1
	}
	return f.takes[i], true
}

// call applies the function if the arguments are of the kinds that it takes.
func (f *function) call(args []value) value {
	for i, arg := range args {
		if want, _ := f.kindOf(i); want != dynamic && arg.kind != want {
			return value{}
		}
	}
	return f.apply(args)
}

func sign(x float64) float64 {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	}
	return x
}

// asNumber reads a decimal number; other text is undefined, a number stays what it is.
func asNumber(v value) value {
	if v.kind == number {
		return v
	}
	s := strings.Trim(v.text, " \t\r\n")
	if v.kind != text || s == "" || strings.Trim(s, "0123456789+-.eE") != "" {
		return value{}
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return value{}
	}
	return numberValue(n)
}

func isKind(v value, k kind) value {
	if v.kind == undefined {
		return value{}
	}
	return boolValue(v.kind == k)
}

// concat joins texts; what would be longer than a message is undefined.
func concat(args []value) value {
	size := 0
	for _, arg := range args {
		size += len(arg.text)
	}
	if size > iothub.MaxMessage {
		return value{}
	}
	var b strings.Builder
	b.Grow(size)
	for _, arg := range args {
		b.WriteString(arg.text)
	}
	return textValue(b.String())
}

// units is the length of s in UTF-16 units, which is what positions count.
func units(s string) int {
	n := 0
	for _, r := range s {
		n += utf16.RuneLen(r)
	}
	return n
}

func indexOf(s, part string) value {
	at := strings.Index(s, part)
	if at < 0 {
		return numberValue(-1)
	}
	return numberValue(float64(units(s[:at])))
}

// substring takes text, start and perhaps length in UTF-16 units; a part that does not lie inside is undefined.
func substring(args []value) value {
	s, start := args[0].text, args[1].number
	size := float64(units(s))
	if start < 0 || start > size {
		return value{}
	}
	length := size - math.Floor(start)
	if len(args) == 3 {
		length = args[2].number
		if start >= size || length < 0 || length > size-start {
			return value{}
		}
	}
	from, to := int(start), int(start)+int(length)
	if int(size) == len(s) {
		return textValue(s[from:to]) // nothing but ASCII
	}
	part := string(utf16.Decode(utf16.Encode([]rune(s))[from:to]))
	if !utf8.ValidString(part) {
		return value{}
	}
	return textValue(part)
}
