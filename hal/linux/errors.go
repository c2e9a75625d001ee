package linux

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"

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

// ErrAmbiguous is a name that fits several things: an error of the configuration, found at the start.
var ErrAmbiguous = errAmbiguous

// Error is an error of the board with its word. What it wraps names the thing and holds the kernel's number.
type Error = hal.Error

// coded gives err its word by the kernel's number, as a kind of resource means it. An error that has one keeps it.
func coded(k Kind, err error) error {
	if err == nil {
		return nil
	}
	if _, have := errors.AsType[*Error](err); have || errors.Is(err, os.ErrClosed) {
		return err
	}
	return &Error{Code: codeOf(k, err), Err: err}
}

// codeOfAny is the code that an error has, or else what its number means.
func codeOfAny(k Kind, err error) Code {
	if have, ok := errors.AsType[*Error](err); ok {
		return have.Code
	}
	return codeOf(k, err)
}

func codeOf(k Kind, err error) Code {
	_, busy := errors.AsType[*busyError](err)
	_, refused := errors.AsType[*modbusException](err)
	switch {
	case busy:
		return CodeBusy
	case refused, errors.Is(err, errModbusAnswer):
		return CodeNACK
	case errors.Is(err, errModbusRange), errors.Is(err, errNoLine):
		return CodeRange
	case errors.Is(err, errShape), errors.Is(err, errors.ErrUnsupported):
		return CodeUnsupported
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return CodeTimeout
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errAmbiguous):
		return CodeGone
	case errors.Is(err, fs.ErrPermission):
		return CodeDenied
	}
	return codeOfErrno(k, errnoOf(err))
}

// errnoCodes are the numbers that mean the same for every kind. 524 is the kernel's own ENOTSUPP, which escapes from
// some drivers.
var errnoCodes = [...]struct {
	code Code
	nums []unix.Errno
}{
	{CodeNACK, []unix.Errno{unix.EREMOTEIO, unix.EPROTO}},
	{CodeBusy, []unix.Errno{unix.EBUSY, unix.ENOBUFS, unix.ENODATA}},
	{CodeStuck, []unix.Errno{unix.EAGAIN}},
	{CodeTimeout, []unix.Errno{unix.ETIMEDOUT}},
	{CodeGone, []unix.Errno{unix.ENODEV, unix.ENETDOWN, unix.ESHUTDOWN, unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.ECONNRESET, unix.EPIPE}},
	{CodeRange, []unix.Errno{unix.EMSGSIZE, unix.ERANGE, unix.EINVAL}},
	{CodeUnsupported, []unix.Errno{unix.EOPNOTSUPP, unix.ENOTTY, unix.ENOSYS, 524}},
}

func codeOfErrno(k Kind, e unix.Errno) Code {
	switch {
	case (e == unix.ENXIO || e == unix.EIO) && k == KindLine: // a line without an interrupt
		return CodeUnsupported
	case (e == unix.ENXIO || e == unix.EIO) && (k == KindI2C || k == KindSPI || k == KindSensor):
		return CodeNACK
	case e == unix.ENXIO || e == unix.EIO: // a port whose adapter went
		return CodeGone
	case e == unix.EAGAIN && k == KindSensor: // it has no value yet
		return CodeBusy
	}
	for _, c := range errnoCodes {
		if slices.Contains(c.nums, e) {
			return c.code
		}
	}
	return CodeNACK
}
