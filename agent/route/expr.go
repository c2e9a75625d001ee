package route

import (
	"strconv"
	"strings"
)

// operation is what a node of a condition does.
type operation uint8

const (
	opLiteral operation = iota
	opProperty
	opSystem
	opBody
	opCall
	opNegate
	opNot
	opMultiply
	opDivide
	opModulo
	opAdd
	opSubtract
	opConcat
	opLess
	opLessEqual
	opGreater
	opGreaterEqual
	opEqual
	opNotEqual
	opAnd
	opOr
	opCoalesce
)

// precedence binds tighter the higher it is; marks are how the binary operations are written.
func (o operation) precedence() int {
	switch o {
	case opCoalesce:
		return 1
	case opOr:
		return 2
	case opAnd:
		return 3
	case opEqual, opNotEqual:
		return 4
	case opLess, opLessEqual, opGreater, opGreaterEqual:
		return 5
	case opAdd, opSubtract, opConcat:
		return 6
	case opMultiply, opDivide, opModulo:
		return 7
	case opNot:
		return 8
	case opNegate:
		return 9
	default:
		return 10
	}
}

// mark is how a binary operation is written.
func (o operation) mark() string {
	for mark, op := range binaries {
		if op == o && mark != "<>" {
			return mark
		}
	}
	return ""
}

var binaries = map[string]operation{
	"*": opMultiply, "/": opDivide, "%": opModulo, "+": opAdd, "-": opSubtract, "||": opConcat,
	"<": opLess, "<=": opLessEqual, ">": opGreater, ">=": opGreaterEqual,
	"=": opEqual, "!=": opNotEqual, "<>": opNotEqual, "AND": opAnd, "OR": opOr, "??": opCoalesce,
}

// expr is a node of a parsed condition.
type expr struct {
	op      operation
	kind    kind      // of its value, dynamic when only a message tells
	literal value     // opLiteral
	name    string    // property, system name or call, as written
	path    []step    // opBody, and the argument of twin_change_includes
	call    *function // opCall
	args    []*expr
	escaped bool // opSystem, opBody: written in braces, an application property of that name does not come first
}

// step is one part of a path into a JSON body: a member, perhaps an element of it.
type step struct {
	member string
	index  int // -1 = the member itself
}

// parsePath reads "a.b[0].c"; ok is false when it is not one.
func parsePath(text string) (path []step, ok bool) {
	for part := range strings.SplitSeq(text, ".") {
		s := step{member: part, index: -1}
		if open := strings.IndexByte(part, '['); open >= 0 {
			digits, closed := strings.CutSuffix(part[open+1:], "]")
			n, err := strconv.ParseUint(digits, 10, 31)
			if !closed || err != nil {
				return nil, false
			}
			s = step{member: part[:open], index: int(n)}
		}
		if s.member == "" || strings.ContainsAny(s.member, "[]*") {
			return nil, false
		}
		path = append(path, s)
	}
	return path, true
}

// append prints the node; the parser reads it back as an equal one.
func (e *expr) append(dst []byte) []byte {
	switch e.op {
	case opLiteral:
		return e.literal.append(dst)
	case opProperty:
		return append(dst, e.name...)
	case opSystem, opBody:
		if e.escaped {
			return append(append(append(dst, '{'), e.name...), '}')
		}
		return append(dst, e.name...)
	case opCall:
		dst = append(append(dst, e.call.name...), '(')
		if e.path != nil {
			dst = append(dst, e.name...)
		}
		for i, arg := range e.args {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			dst = arg.append(dst)
		}
		return append(dst, ')')
	case opNegate:
		return e.appendArg(append(dst, "- "...), 0, 0)
	case opNot:
		return e.appendArg(append(dst, "NOT "...), 0, 0)
	default:
		dst = e.appendArg(dst, 0, 0)
		dst = append(append(append(dst, ' '), e.op.mark()...), ' ')
		return e.appendArg(dst, 1, 1) // operators of one precedence bind from the left
	}
}

// appendArg prints an operand, in brackets when it binds less tightly than the node.
func (e *expr) appendArg(dst []byte, i, tighter int) []byte {
	arg := e.args[i]
	if arg.op.precedence() < e.op.precedence()+tighter {
		return append(arg.append(append(dst, '(')), ')')
	}
	return arg.append(dst)
}
