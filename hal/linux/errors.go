package linux

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// Code is the contract's word for what went wrong.
type Code = hal.Code

// The codes that a board can give, and what they mean here.
const (
	CodeBusy        = hal.Busy        // a driver or another program has it, or it has no value now
	CodeRange       = hal.OutOfRange  // what was asked does not fit
	CodeNACK        = hal.Nack        // the unit did not acknowledge, or refused, or answered nonsense
	CodeStuck       = hal.Stuck       // the bus does not move
	CodeGone        = hal.Absent      // plugged out, or not there
	CodeTimeout     = hal.TimedOut    // the unit did not answer in time
	CodeUnsupported = hal.Unsupported // neither this controller nor this driver can do it
	CodeDenied      = hal.Denied      // the agent itself may not
)

// ErrAmbiguous is a name that fits several things of the board: an error of the configuration, found at the start.
var ErrAmbiguous = errors.New("ambiguous")

// Error is an error of the board with its word. What it wraps names the thing and holds the kernel's number.
type Error = hal.Error

// inUse refuses what a driver or another program holds.
func inUse(what, holder string) error {
	return hal.Errorf(CodeBusy, "%s is in use by %q: stop that, or grant what it offers instead", what, holder)
}

// coded gives err its word by the kernel's number, as a kind of resource means it. An error that has one keeps it.
func coded(k Kind, err error) error {
	if err == nil || errors.Is(err, os.ErrClosed) {
		return err
	}
	if _, have := errors.AsType[*Error](err); have {
		return err
	}
	return &Error{Code: codeOf(k, err), Err: err}
}

// codeOf is the code that an error has, or else what its number means.
func codeOf(k Kind, err error) Code {
	if have, ok := errors.AsType[*Error](err); ok {
		return have.Code
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return CodeTimeout
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, ErrAmbiguous):
		return CodeGone
	case errors.Is(err, errors.ErrUnsupported):
		return CodeUnsupported
	case errors.Is(err, fs.ErrPermission):
		return CodeDenied
	}
	for _, n := range numbers {
		for _, e := range n.nums {
			if (n.kind == "" || n.kind == k) && errors.Is(err, e) {
				return n.code
			}
		}
	}
	return CodeNACK
}

// numbers are what the kernel's numbers mean, for one kind of resources or ("") for all; the first that fits counts.
var numbers = [...]struct {
	kind Kind
	code Code
	nums []unix.Errno
}{
	{KindLine, CodeUnsupported, []unix.Errno{unix.ENXIO, unix.EIO}}, // a line without an interrupt
	{KindI2C, CodeNACK, []unix.Errno{unix.ENXIO, unix.EIO}},
	{KindSPI, CodeNACK, []unix.Errno{unix.ENXIO, unix.EIO}},
	{KindSensor, CodeNACK, []unix.Errno{unix.ENXIO, unix.EIO}},
	{KindSensor, CodeBusy, []unix.Errno{unix.EAGAIN}},  // it has no value yet
	{"", CodeGone, []unix.Errno{unix.ENXIO, unix.EIO}}, // a port whose adapter went
	{"", CodeNACK, []unix.Errno{unix.EREMOTEIO, unix.EPROTO}},
	{"", CodeBusy, []unix.Errno{unix.EBUSY, unix.ENOBUFS, unix.ENODATA}},
	{"", CodeStuck, []unix.Errno{unix.EAGAIN}},
	{"", CodeTimeout, []unix.Errno{unix.ETIMEDOUT}},
	{"", CodeGone, []unix.Errno{unix.ENODEV, unix.ENETDOWN, unix.ESHUTDOWN, unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.ECONNRESET, unix.EPIPE}},
	{"", CodeRange, []unix.Errno{unix.EMSGSIZE, unix.ERANGE, unix.EINVAL}},
	{"", CodeUnsupported, []unix.Errno{unix.ENOTTY, 524}}, // 524 is the kernel's own ENOTSUPP, which escapes from some drivers
}
