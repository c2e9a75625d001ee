package route

import (
	"cmp"
	"math"
	"strconv"
	"strings"
)

// kind is the type of a value.
type kind uint8

const (
	undefined kind = iota // what is missing; also every NaN
	null                  // only JSON and the literal have it
	boolean
	number
	text
	dynamic // of an expression whose kind only a message tells; no value has it
)

// String names the kind in errors.
func (k kind) String() string {
	switch k {
	case undefined:
		return "undefined"
	case null:
		return "null"
	case boolean:
		return "true or false"
	case number:
		return "a number"
	case text:
		return "text"
	case dynamic:
		return "a value of the body"
	}
	return ""
}

// value is what an expression yields for one message. The zero value is undefined.
type value struct {
	kind   kind
	yes    bool
	number float64
	text   string
}

func boolValue(yes bool) value { return value{kind: boolean, yes: yes} }

func textValue(s string) value { return value{kind: text, text: s} }

// numberValue is undefined for what is not a number.
func numberValue(n float64) value {
	if math.IsNaN(n) {
		return value{}
	}
	return value{kind: number, number: n}
}

// append prints a literal.
func (v value) append(dst []byte) []byte {
	switch v.kind {
	case null:
		return append(dst, "null"...)
	case boolean:
		return strconv.AppendBool(dst, v.yes)
	case number:
		return strconv.AppendFloat(dst, v.number, 'g', -1, 64)
	case text:
		return appendQuoted(dst, v.text)
	default:
		return append(dst, "undefined"...)
	}
}

// compare tells how two values of one kind are ordered: text by its characters, case-sensitively, false before true.
func (v value) compare(w value) int {
	switch v.kind {
	case boolean:
		switch {
		case v.yes == w.yes:
			return 0
		case w.yes:
			return -1
		}
		return 1
	case number:
		return cmp.Compare(v.number, w.number)
	case text:
		return strings.Compare(v.text, w.text)
	default:
		return 0
	}
}

// relate applies a comparison. With undefined it is undefined; values of different kinds are unequal and have no order.
func relate(op operation, v, w value) value {
	if v.kind == undefined || w.kind == undefined {
		return value{}
	}
	if v.kind != w.kind {
		if op == opEqual || op == opNotEqual {
			return boolValue(op == opNotEqual)
		}
		return value{}
	}
	order := v.compare(w)
	switch op {
	case opEqual:
		return boolValue(order == 0)
	case opNotEqual:
		return boolValue(order != 0)
	case opLess:
		return boolValue(order < 0)
	case opLessEqual:
		return boolValue(order <= 0)
	case opGreater:
		return boolValue(order > 0)
	case opGreaterEqual:
		return boolValue(order >= 0)
	default:
		return value{}
	}
}

// calculate applies an arithmetic operation or a concatenation; operands of another kind make it undefined.
func calculate(op operation, v, w value) value {
	if op == opConcat {
		if v.kind != text || w.kind != text {
			return value{}
		}
		return concat([]value{v, w})
	}
	if v.kind != number || w.kind != number {
		return value{}
	}
	switch op {
	case opAdd:
		return numberValue(v.number + w.number)
	case opSubtract:
		return numberValue(v.number - w.number)
	case opMultiply:
		return numberValue(v.number * w.number)
	case opDivide:
		return numberValue(v.number / w.number)
	case opModulo:
		return numberValue(math.Mod(v.number, w.number))
	default:
		return value{}
	}
}

// not, and, or are Kleene's: what is not true or false counts as undefined.
func not(v value) value {
	if v.kind != boolean {
		return value{}
	}
	return boolValue(!v.yes)
}

func and(v, w value) value {
	switch {
	case v.kind == boolean && !v.yes, w.kind == boolean && !w.yes:
		return boolValue(false)
	case v.kind == boolean && w.kind == boolean:
		return boolValue(true)
	}
	return value{}
}

func or(v, w value) value {
	switch {
	case v.kind == boolean && v.yes, w.kind == boolean && w.yes:
		return boolValue(true)
	case v.kind == boolean && w.kind == boolean:
		return boolValue(false)
	}
	return value{}
}
