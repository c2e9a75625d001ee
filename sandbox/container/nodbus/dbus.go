// Package dbus stands where libcontainer's cgroup library would link a D-Bus client: it has the names that are asked for, and a bus
// that cannot be dialled.
//
// That library manages cgroups by files or through systemd, and links both. The agent keeps its modules' cgroups itself, by
// files, below the one that systemd delegates to it (Delegate=yes), and never asks for the other way; a real client would be
// 0.2 MB of program that nothing can reach. What would reach it gets [ErrAbsent], with its reason.
package dbus

import (
	"context"
	"errors"
)

// ErrAbsent is the answer to every dial.
var ErrAbsent = errors.New("this program was built without D-Bus: it manages cgroups by files")

// ErrClosed is what a closed connection would give; none is ever open.
var ErrClosed = errors.New("dbus: connection closed")

type (
	// Conn is a connection, of which there is none.
	Conn struct{}
	// ConnOption configures one.
	ConnOption func(*Conn) error
	// Auth is a way to say who one is.
	Auth interface{ none() }
	// ObjectPath names an object.
	ObjectPath string
	// Flags of a call.
	Flags byte
	// Signal is a message from the bus.
	Signal struct {
		Path ObjectPath
		Name string
		Body []any
	}
	// Call is one under way, or its end.
	Call struct{ Err error }
	// Error is an error that the bus answered.
	Error struct {
		Name string
		Body []any
	}
	// Variant holds a value of any type; it may be compared with another.
	Variant struct{ value any }
	// BusObject is somebody on the bus to call.
	BusObject interface {
		Call(method string, flags Flags, args ...any) *Call
		CallWithContext(ctx context.Context, method string, flags Flags, args ...any) *Call
		GetProperty(name string) (Variant, error)
	}
)

// Error implements error.
func (e Error) Error() string { return e.Name }

// IsValid is false.
func (ObjectPath) IsValid() bool { return false }

// MakeVariant wraps a value.
func MakeVariant(value any) Variant { return Variant{value} }

// Value is what was wrapped.
func (v Variant) Value() any { return v.value }

// String implements fmt.Stringer.
func (Variant) String() string { return "" }

// Dial fails.
func Dial(string, ...ConnOption) (*Conn, error) { return nil, ErrAbsent }

// SystemBusPrivate fails.
func SystemBusPrivate(...ConnOption) (*Conn, error) { return nil, ErrAbsent }

// SessionBusPrivate fails.
func SessionBusPrivate(...ConnOption) (*Conn, error) { return nil, ErrAbsent }

// WithContext does nothing to a connection that there is not.
func WithContext(context.Context) ConnOption { return nil }

// AuthExternal is no way in.
func AuthExternal(string) Auth { return nil }

// EscapeBusAddressValue leaves an address as it is: nothing is dialled with it.
func EscapeBusAddressValue(value string) string { return value }

// Store fails.
func Store([]any, ...any) error { return ErrAbsent }

// Store fails.
func (c *Call) Store(...any) error { return c.Err }

// Auth fails.
func (*Conn) Auth([]Auth) error { return ErrAbsent }

// Hello fails.
func (*Conn) Hello() error { return ErrAbsent }

// Close has nothing to close.
func (*Conn) Close() error { return nil }

// Connected is false.
func (*Conn) Connected() bool { return false }

// Signal never sends.
func (*Conn) Signal(chan<- *Signal) {}

// BusObject is an object whose calls fail.
func (*Conn) BusObject() BusObject { return absent{} }

// Object is an object whose calls fail.
func (*Conn) Object(string, ObjectPath) BusObject { return absent{} }

type absent struct{}

func (absent) Call(string, Flags, ...any) *Call { return &Call{ErrAbsent} }

func (absent) CallWithContext(context.Context, string, Flags, ...any) *Call { return &Call{ErrAbsent} }

func (absent) GetProperty(string) (Variant, error) { return Variant{}, ErrAbsent }
