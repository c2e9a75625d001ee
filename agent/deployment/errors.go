package deployment

import (
	"errors"

	"github.com/sandpiper-edge/sandpiper/agent/twin"
)

// Codes of lastDesiredStatus.
const (
	CodeOK      = 200 // applied
	CodeFormat  = 400 // the section cannot be understood or asks for what cannot be had
	CodeUnknown = 406 // nothing was applied yet, or it is being tried again
	CodeSchema  = 412 // schemaVersion is of another age
	CodeEmpty   = 417 // there is no desired section
	CodeFailed  = 500 // it is understood but could not be carried out
)

// Error refuses a deployment: one member and what would be right there.
type Error struct {
	Path string // dotted path of the member, "modules.filter.settings.image"
	Why  string // what is there
	Want string // what would be right; "" when Why says it
	Code int    // of lastDesiredStatus: CodeFormat, CodeSchema or CodeEmpty
}

// Error is one line: where, what, what would be right.
func (e *Error) Error() string {
	if e.Want == "" {
		return e.Path + ": " + e.Why
	}
	return e.Path + ": " + e.Why + "; want " + e.Want
}

// IsEmpty tells the error of a section in which nothing stands: nobody has deployed anything yet, or somebody took it away.
func IsEmpty(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == CodeEmpty
}

// ofTwin gives an error about the JSON itself the form of this package.
func ofTwin(err error) *Error {
	var limit *twin.LimitError
	if errors.As(err, &limit) {
		return &Error{Path: limit.Path, Why: limit.Why, Want: limit.Want, Code: CodeFormat}
	}
	return &Error{Path: "desired", Why: err.Error(), Code: CodeFormat}
}
