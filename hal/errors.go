package hal

import (
	"errors"
	"fmt"
	"time"
)

// Code says how a request failed, in the words of the module API. It is an error, so that errors.Is(err, hal.Stuck) works.
type Code string

// The codes.
const (
	Unknown     Code = "unknown"     // no such resource, or not granted: a module cannot tell which
	Denied      Code = "denied"      // granted, but not this right, register or identifier
	Busy        Code = "busy"        // another holds it: a lease, or a consumer or driver in the kernel
	LeaseLost   Code = "lease_lost"  // the fence is old
	OutOfRange  Code = "range"       // a value beyond its limits
	TooFast     Code = "rate"        // more than the grant's rate, or a full queue
	Nack        Code = "nack"        // the other end of the bus refused or did not answer its address
	Stuck       Code = "stuck"       // an earlier call holds the bus
	Absent      Code = "gone"        // unplugged
	TimedOut    Code = "timeout"     // not done by its deadline
	Unsupported Code = "unsupported" // this hardware or kernel cannot
	Invalid     Code = "invalid"     // the request makes no sense
	Broken      Code = "io"          // any other failure of the hardware
)

func (c Code) Error() string { return string(c) }

// codes are all of them, each with its HTTP status.
var codes = [...]struct {
	code   Code
	status int
}{
	{Unknown, 404}, {Denied, 403}, {Busy, 409}, {LeaseLost, 409}, {OutOfRange, 422}, {TooFast, 429}, {Nack, 502}, {Stuck, 503}, {Absent, 410},
	{TimedOut, 504}, {Unsupported, 501}, {Invalid, 400}, {Broken, 502},
}

// Status is the HTTP status of the code; 500 is none.
func (c Code) Status() int {
	for i := range codes {
		if codes[i].code == c {
			return codes[i].status
		}
	}
	return 500
}

// Error is a failed request. Backends return it with a Code; the server adds the name.
type Error struct {
	_      noCompare
	Code   Code
	Name   string        // of the resource; "" = of none
	Detail string        // one line for a person: what, why, what to do
	Retry  time.Duration // when it may succeed; 0 = unknown
	Err    error         // what the kernel said; nil = nothing
}

func (e *Error) Error() string {
	s := string(e.Code)
	if e.Name != "" {
		s = e.Name + ": " + s
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap makes both the code and the cause visible to errors.Is.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Code}
	}
	return []error{e.Code, e.Err}
}

// errNotGranted is all that a module hears of a name that is not its own: whether there is one is not told.
var errNotGranted error = &Error{Code: Unknown, Detail: "no such name is granted to this module"}

// refusal is an Error of a resource; name and detail may be empty.
func refusal(code Code, name, detail string) error {
	return &Error{Code: code, Name: name, Detail: detail}
}

// Errorf makes an Error with a detail.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// CodeOf is the code of an error, Broken for one that has none.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	for i := range codes {
		if errors.Is(err, codes[i].code) {
			return codes[i].code
		}
	}
	return Broken
}
