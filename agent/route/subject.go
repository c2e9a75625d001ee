package route

import (
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
)

// subject is the message that conditions ask about. Its body is looked at once for all of them, when the first asks.
type subject struct {
	m          *message.Message
	twinChange bool
	body       body
	looked     bool
}

// holds tells whether the condition is true; undefined is not.
func (s *subject) holds(e *expr) bool {
	v := s.eval(e)
	return v.kind == boolean && v.yes
}

// eval gives the value of the expression for the message.
func (s *subject) eval(e *expr) value {
	switch e.op {
	case opLiteral:
		return e.literal
	case opProperty:
		return s.application(e.name)
	case opSystem, opBody:
		return s.named(e)
	case opCall:
		return s.call(e)
	case opNegate:
		v := s.eval(e.args[0])
		if v.kind != number {
			return value{}
		}
		return numberValue(-v.number)
	case opNot:
		return not(s.eval(e.args[0]))
	default:
		return s.binary(e)
	}
}

// binary evaluates the right operand only when the left one does not decide.
func (s *subject) binary(e *expr) value {
	left := s.eval(e.args[0])
	switch e.op {
	case opAnd:
		if left.kind == boolean && !left.yes {
			return left
		}
		return and(left, s.eval(e.args[1]))
	case opOr:
		if left.kind == boolean && left.yes {
			return left
		}
		return or(left, s.eval(e.args[1]))
	case opCoalesce:
		if left.kind != undefined {
			return left
		}
		return s.eval(e.args[1])
	case opMultiply, opDivide, opModulo, opAdd, opSubtract, opConcat:
		return calculate(e.op, left, s.eval(e.args[1]))
	default:
		return relate(e.op, left, s.eval(e.args[1]))
	}
}

func (s *subject) call(e *expr) value {
	if e.path != nil {
		return s.includes(e.path)
	}
	var room [3]value
	args := room[:0]
	for _, arg := range e.args {
		args = append(args, s.eval(arg))
	}
	return e.call.call(args)
}

// named is the value of "$name": an application property that is really called so, else the body or a system property.
func (s *subject) named(e *expr) value {
	if !e.escaped && !strings.Contains(e.name, "[") {
		if v := s.application(e.name); v.kind != undefined {
			return v
		}
	}
	if e.op == opSystem {
		return s.system(e.name[1:])
	}
	return s.lookup(e.path)
}

// application is an application property, its name in any case.
func (s *subject) application(name string) value {
	for _, p := range s.m.Bag {
		if strings.EqualFold(p.Key, name) && !systemKey(p.Key) {
			return textValue(p.Value)
		}
	}
	return value{}
}

// twinChangeSchema is what the schema of a twin change says when it says nothing else.
const twinChangeSchema = "twinChangeNotification"

// system is a system property by its name in conditions, in any case.
func (s *subject) system(name string) value {
	is := func(want string) bool { return strings.EqualFold(name, want) }
	switch {
	case is("connectionDeviceId"):
		return textOrUndefined(s.m.Source.Device)
	case is("connectionModuleId"):
		if s.twinChange {
			return textValue(iothub.EdgeHub) // it is the one who tells of it
		}
		return textOrUndefined(s.m.Source.Module)
	case is("outputName"):
		return textOrUndefined(s.m.Output)
	}
	for _, p := range systemNames {
		if !is(p.Key) {
			continue
		}
		if v, ok := s.m.Bag.Get(p.Value); ok {
			return textValue(v)
		}
		if p.Value == iothub.PropSchema && s.twinChange {
			return textValue(twinChangeSchema)
		}
	}
	return value{}
}

// systemNames pairs the names that conditions use with the keys in a bag.
var systemNames = [...]iothub.Property{
	{Key: "messageId", Value: iothub.PropMessageID},
	{Key: "cid", Value: iothub.PropCorrelationID},
	{Key: "correlationId", Value: iothub.PropCorrelationID},
	{Key: "userId", Value: iothub.PropUserID},
	{Key: "to", Value: iothub.PropTo},
	{Key: "absolute-expiry-time", Value: iothub.PropExpiry},
	{Key: "contentType", Value: iothub.PropContentType},
	{Key: "contentEncoding", Value: iothub.PropContentEncoding},
	{Key: "iothub-interface-id", Value: iothub.PropInterface},
	{Key: "dt-subject", Value: iothub.PropComponent},
	{Key: "creationTime", Value: iothub.PropCreated},
	{Key: "messageSchema", Value: iothub.PropSchema},
	{Key: "operation", Value: iothub.PropOperation},
	{Key: "ack", Value: iothub.PropAck},
}

// systemKey tells the keys of system properties from those of applications.
func systemKey(key string) bool {
	for _, p := range systemNames {
		if p.Value == key {
			return true
		}
	}
	return key == iothub.PropOutput || key == iothub.PropSourceDevice || key == iothub.PropSourceModule
}

func textOrUndefined(s string) value {
	if s == "" {
		return value{}
	}
	return textValue(s)
}

// lookup is a member of the body. Objects and arrays are undefined: they compare with nothing.
func (s *subject) lookup(path []step) value {
	return s.opened().lookup(path)
}

// opened looks at the body once.
func (s *subject) opened() body {
	if !s.looked {
		s.body, s.looked = openBody(s.m), true
	}
	return s.body
}

// includes tells whether a twin change touches the path: a member that is there, not one that is being deleted. The
// body of a twin change is the patch of the reported section; a body that says "properties.reported" itself is
// understood as well.
func (s *subject) includes(path []step) value {
	b := s.opened()
	if b.text == nil {
		return value{}
	}
	raw := b.find(path)
	if raw == nil && len(path) > 2 && strings.EqualFold(path[1].member, "reported") {
		raw = b.find(path[2:])
	}
	return boolValue(raw != nil && string(raw) != "null")
}
