package route

import "strings"

// maxNesting bounds brackets, calls, NOT and minus signs inside one another, so that a hostile text cannot exhaust the stack.
const maxNesting = 64

// condition reads the expression behind WHERE, up to the keyword INTO, which stays. Kinds are checked here as far as
// the text shows them: what could never be true because text is compared with a number is refused, not ignored.
func (l *lexer) condition(from source) (*expr, error) {
	p := &conditionParser{lexer: l, from: from}
	if err := p.advance(); err != nil {
		return nil, err
	}
	at := p.next.at
	e, err := p.binary(1)
	if err != nil {
		return nil, err
	}
	if p.next.kind != tokenKeyword || p.next.text != "INTO" {
		return nil, l.failAt(p.next.at, "an operator or INTO")
	}
	if err := p.mustBe(e, boolean, at); err != nil {
		return nil, err
	}
	l.at = p.next.at
	return e, nil
}

// conditionParser is one word ahead of what it has understood.
type conditionParser struct {
	*lexer
	from  source
	next  token
	depth int
}

func (p *conditionParser) advance() error {
	t, err := p.token()
	p.next = t
	return err
}

// is tells whether the next word is that mark or keyword.
func (p *conditionParser) is(word string) bool {
	return (p.next.kind == tokenMark || p.next.kind == tokenKeyword) && p.next.text == word
}

// take takes the next word if it is that mark or keyword.
func (p *conditionParser) take(word string) (bool, error) {
	if !p.is(word) {
		return false, nil
	}
	return true, p.advance()
}

// binary reads operations that bind at least as tightly as least, from the left.
func (p *conditionParser) binary(least int) (*expr, error) {
	at := p.next.at
	left, err := p.unary()
	if err != nil {
		return nil, err
	}
	for {
		op, ok := binaries[p.next.text]
		if !ok || p.next.kind != tokenMark && p.next.kind != tokenKeyword || op.precedence() < least {
			return left, nil
		}
		mark := p.next
		if err := p.advance(); err != nil {
			return nil, err
		}
		behind := p.next.at
		right, err := p.binary(op.precedence() + 1)
		if err != nil {
			return nil, err
		}
		e := &expr{op: op, args: []*expr{left, right}}
		if err := p.check(e, at, mark, behind); err != nil {
			return nil, err
		}
		left = e
	}
}

// check gives a binary operation its kind and refuses operands that cannot fit.
func (p *conditionParser) check(e *expr, at int, mark token, behind int) error {
	left, right := e.args[0], e.args[1]
	var want kind
	switch e.op {
	case opMultiply, opDivide, opModulo, opAdd, opSubtract:
		want, e.kind = number, number
	case opConcat:
		want, e.kind = text, text
	case opAnd, opOr:
		want, e.kind = boolean, boolean
	default:
		want = dynamic
	}
	if want != dynamic {
		if err := p.mustBe(left, want, at); err != nil {
			return err
		}
		return p.mustBe(right, want, behind)
	}
	if !comparable(left.kind, right.kind) {
		hint := "two of a kind (as_number(…) makes a number of text)"
		return &ParseError{Offset: mark.at, What: mark.text + " between " + left.kind.String() + " and " + right.kind.String(), Want: hint}
	}
	e.kind = boolean
	if e.op == opCoalesce {
		switch {
		case left.kind == undefined:
			e.kind = right.kind
		case right.kind == undefined, left.kind == right.kind:
			e.kind = left.kind
		default:
			e.kind = dynamic
		}
	}
	return nil
}

func comparable(a, b kind) bool {
	return a == b || a == dynamic || b == dynamic || a == undefined || b == undefined
}

// mustBe refuses an expression that can never have the kind.
func (p *conditionParser) mustBe(e *expr, want kind, at int) error {
	if comparable(e.kind, want) {
		return nil
	}
	hint := want.String()
	if want == number && e.kind == text {
		hint += " (as_number(…) makes one of text)"
	}
	return &ParseError{Offset: at, What: e.kind.String(), Want: hint}
}

// unary reads a minus, a NOT or an operand.
func (p *conditionParser) unary() (*expr, error) {
	if p.depth++; p.depth > maxNesting {
		return nil, &ParseError{Offset: p.next.at, What: "nesting deeper than 64", Want: "a flatter condition"}
	}
	defer func() { p.depth-- }()
	e := &expr{op: opNegate, kind: number}
	switch {
	case p.is("-"):
	case p.is("NOT"):
		e = &expr{op: opNot, kind: boolean}
	default:
		return p.operand()
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	at := p.next.at
	arg, err := p.binary(e.op.precedence())
	if err != nil {
		return nil, err
	}
	e.args = []*expr{arg}
	return e, p.mustBe(arg, e.kind, at)
}

// operand reads a literal, a property, a body path, a call or a bracket.
func (p *conditionParser) operand() (*expr, error) {
	t := p.next
	switch t.kind {
	case tokenNumber:
		return &expr{kind: number, literal: numberValue(t.number)}, p.advance()
	case tokenText:
		return &expr{kind: text, literal: textValue(t.text)}, p.advance()
	case tokenKeyword:
		switch t.text {
		case "true", "false":
			return &expr{kind: boolean, literal: boolValue(t.text == "true")}, p.advance()
		case "null":
			return &expr{kind: null, literal: value{kind: null}}, p.advance()
		case "undefined":
			return &expr{kind: undefined}, p.advance()
		}
	case tokenSystem:
		return p.system(t, false)
	case tokenWord:
		if err := p.advance(); err != nil {
			return nil, err
		}
		if p.is("(") {
			return p.callOf(t)
		}
		return &expr{op: opProperty, kind: text, name: t.text}, nil
	case tokenMark:
		switch t.text {
		case "(":
			return p.bracket()
		case "{":
			return p.braces()
		}
	case tokenEnd:
	}
	return nil, p.failAt(t.at, "a value: a literal, a property, $body.path, a function or a bracket")
}

func (p *conditionParser) bracket() (*expr, error) {
	open := p.next.at
	if err := p.advance(); err != nil {
		return nil, err
	}
	e, err := p.binary(1)
	if err != nil {
		return nil, err
	}
	if ok, err := p.take(")"); err != nil || !ok {
		return nil, p.orElse(err, open, `the closing ")" of this bracket`)
	}
	return e, nil
}

// braces reads "{$name}".
func (p *conditionParser) braces() (*expr, error) {
	if err := p.advance(); err != nil {
		return nil, err
	}
	t := p.next
	if t.kind != tokenSystem {
		return nil, p.failAt(t.at, "$name")
	}
	e, err := p.system(t, true)
	if err != nil {
		return nil, err
	}
	if ok, err := p.take("}"); err != nil || !ok {
		return nil, p.orElse(err, p.next.at, "}")
	}
	return e, nil
}

func (p *conditionParser) orElse(err error, at int, want string) error {
	if err != nil {
		return err
	}
	return p.failAt(at, want)
}

// system reads "$name" or "$body.path".
func (p *conditionParser) system(t token, escaped bool) (*expr, error) {
	const body = "$body"
	e := &expr{op: opSystem, kind: text, name: t.text, escaped: escaped}
	if len(t.text) >= len(body) && strings.EqualFold(t.text[:len(body)], body) && strings.Trim(t.text[len(body):], ".") == "" {
		return nil, p.failAt(t.at, "$body.member")
	}
	if len(t.text) > len(body) && strings.EqualFold(t.text[:len(body)+1], body+".") {
		path, ok := parsePath(t.text[len(body)+1:])
		if !ok {
			return nil, p.failAt(t.at, "a body path such as $body.a.b[0].c")
		}
		e.op, e.kind, e.path = opBody, dynamic, path
	} else if strings.ContainsAny(t.text, "[]") {
		return nil, p.failAt(t.at, "the name of a property (only $body has elements)")
	}
	return e, p.advance()
}

// callOf reads the arguments of a function, from its opening bracket.
func (p *conditionParser) callOf(name token) (*expr, error) {
	f := functions[strings.ToLower(name.text)]
	if f == nil {
		return nil, p.failAt(name.at, "a function of the routing language")
	}
	e := &expr{op: opCall, kind: f.result, call: f}
	if f.name == twinChangeIncludes {
		return p.includes(e, name)
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	for !p.is(")") {
		if len(e.args) > 0 {
			if ok, err := p.take(","); err != nil || !ok {
				return nil, p.orElse(err, p.next.at, `"," or ")"`)
			}
		}
		want, ok := f.kindOf(len(e.args))
		if !ok {
			return nil, p.failAt(p.next.at, `")": `+f.name+" takes no more")
		}
		at := p.next.at
		arg, err := p.binary(1)
		if err != nil {
			return nil, err
		}
		if err := p.mustBe(arg, want, at); err != nil {
			return nil, err
		}
		e.args = append(e.args, arg)
	}
	if len(e.args) < f.least {
		return nil, p.failAt(p.next.at, "another argument for "+f.name)
	}
	return e, p.advance()
}

// includes reads the path that twin_change_includes takes, and takes it only where there are twin changes.
func (p *conditionParser) includes(e *expr, name token) (*expr, error) {
	if p.from.depth != twins {
		return nil, p.failAt(name.at, "twin_change_includes only in a route FROM /twinChangeNotifications/*")
	}
	p.space()
	start := p.at
	p.at += p.run(notInPath)
	e.name = p.text[start:p.at]
	path, ok := parsePath(e.name)
	switch {
	case !ok, len(path) < 2, strings.EqualFold(path[0].member, "properties") && len(path) < 3:
		ok = false
	case strings.EqualFold(path[0].member, "tags"):
	default:
		ok = strings.EqualFold(path[0].member, "properties") &&
			(strings.EqualFold(path[1].member, "reported") || strings.EqualFold(path[1].member, "desired"))
	}
	if !ok {
		return nil, p.failAt(start, "a path that begins with properties.reported., properties.desired. or tags.")
	}
	e.path = path
	if err := p.advance(); err != nil {
		return nil, err
	}
	if ok, err := p.take(")"); err != nil || !ok {
		return nil, p.orElse(err, p.next.at, ")")
	}
	return e, nil
}
