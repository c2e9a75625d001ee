package iothub

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Codes of [Error]. The first three digits are the status.
const (
	CodeInvalid          = 400004 // body or argument invalid
	CodeReplaced         = 400027 // a newer connection of the same identity took over
	CodeContentEncoding  = 400103 // bad content encoding or type
	CodeUnauthorized     = 401002
	CodeToken            = 401003 // token invalid, expired or for somebody else
	CodeQuota            = 403002
	CodeQueueFull        = 403004 // cloud-to-device queue full
	CodeTier             = 403010
	CodeDeviceNotFound   = 404001
	CodeModuleNotFound   = 404010
	CodeNotOnline        = 404103 // direct method: nobody there within the connect timeout
	CodeClosedRemotely   = 404104
	CodeExists           = 409001
	CodeLinkConflict     = 409002
	CodePrecondition     = 412002 // ETag does not match
	CodeThrottled        = 429001
	CodeInternal         = 500001
	CodePartition        = 503003 // partition not found
	CodeGatewayTimeout   = 504101 // direct method: no answer within the response timeout
	statusOfCode         = 1000
	maxCode              = 999999
	maxErrorMessage      = 4096
	defaultErrorTracking = 16 // random bytes of a tracking id
)

// Error is how a server says no: in the body of a twin result, where Node finds an error only by a code in the
// body, and of a method call. A *Error is an error; make one with [NewError].
type Error struct {
	Code       int       `json:"errorCode"`  // status × 1000 + detail
	TrackingID string    `json:"trackingId"` // to find the case in both logs
	Message    string    `json:"message"`
	Timestamp  time.Time `json:"timestampUtc"` // whole seconds, UTC
}

// NewError makes an error with a fresh tracking id.
func NewError(code int, message string, now time.Time) *Error {
	id := make([]byte, defaultErrorTracking)
	_, _ = rand.Read(id) // never fails
	return &Error{Code: code, TrackingID: hex.EncodeToString(id), Message: message, Timestamp: now.UTC().Truncate(time.Second)}
}

// ParseError reads the body of an answer with the given status (3 digits). It always finds an error: where the body
// holds none, a code made from the status and the body's text, cut short, tell what is known.
func ParseError(status int, body []byte) *Error {
	if len(body) <= MaxErrorBody {
		var e Error
		if json.Unmarshal(body, &e) == nil && e.Code > 0 && e.Code <= maxCode {
			return &e
		}
	}
	e := &Error{Code: status * statusOfCode, Message: "no reason given"}
	if len(body) > 0 {
		e.Message = cut(string(body[:min(len(body), shown+1)]))
	}
	return e
}

// Error prints code, message and tracking id in one line.
func (e *Error) Error() string {
	if e.TrackingID == "" {
		return fmt.Sprintf("hub error %d: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("hub error %d: %s (tracking id %s)", e.Code, e.Message, e.TrackingID)
}

// Status is the three-digit status of the code, as HTTP and twin topics use it.
func (e Error) Status() int { return e.Code / statusOfCode }

// Body prints the error as JSON, as it stands in an answer.
func (e Error) Body() []byte {
	if len(e.Message) > maxErrorMessage {
		e.Message = e.Message[:maxErrorMessage]
	}
	body, err := json.Marshal(e)
	if err != nil { // only a year beyond 9999 does this
		e.Timestamp = time.Time{}
		body, _ = json.Marshal(e)
	}
	return body
}
