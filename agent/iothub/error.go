package iothub

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Codes of [Error]. The first three digits are the status.
const (
	CodeInvalid         = 400004 // body or argument invalid
	CodeReplaced        = 400027 // a newer connection of the same identity took over
	CodeContentEncoding = 400103 // bad content encoding or type
	CodeUnauthorized    = 401002
	CodeToken           = 401003 // token invalid, expired or for somebody else
	CodeQuota           = 403002
	CodeQueueFull       = 403004 // cloud-to-device queue full
	CodeTier            = 403010
	CodeDeviceNotFound  = 404001
	CodeModuleNotFound  = 404010
	CodeNotOnline       = 404103 // direct method: nobody there within the connect timeout
	CodeClosedRemotely  = 404104
	CodeDeviceExists    = 409001
	CodeLinkConflict    = 409002
	CodeModuleExists    = 409301
	CodePrecondition    = 412001 // ETag does not match
	CodeLockLost        = 412002 // cloud-to-device message completed after its lock ran out
	CodeTooLarge        = 413001 // message
	CodeThrottled       = 429001
	CodeInternal        = 500001
	CodeUnavailable     = 503001
	CodePartition       = 503003 // partition not found
	CodeGatewayTimeout  = 504101 // direct method: no answer within the response timeout
)

// CodeName is the service's word for a code, which its clients look for in the bodies of REST answers. A code
// without one is named by its status.
func CodeName(code int) string {
	switch code {
	case CodeInvalid:
		return "ArgumentInvalid"
	case CodeReplaced:
		return "ConnectionForcefullyClosedOnNewConnection"
	case CodeContentEncoding:
		return "InvalidContentEncodingOrType"
	case CodeUnauthorized:
		return "IotHubUnauthorizedAccess"
	case CodeToken:
		return "IotHubUnauthorized"
	case CodeQuota:
		return "IotHubQuotaExceeded"
	case CodeQueueFull:
		return "DeviceMaximumQueueDepthExceeded"
	case CodeTier:
		return "OperationNotAvailableInCurrentTier"
	case CodeDeviceNotFound:
		return "DeviceNotFound"
	case CodeModuleNotFound:
		return "ModuleNotFound"
	case CodeNotOnline:
		return "DeviceNotOnline"
	case CodeClosedRemotely:
		return "DeviceConnectionClosedRemotely"
	case CodeDeviceExists:
		return "DeviceAlreadyExists"
	case CodeLinkConflict:
		return "LinkCreationConflict"
	case CodeModuleExists:
		return "ModuleAlreadyExistsOnDevice"
	case CodePrecondition:
		return "PreconditionFailed"
	case CodeLockLost:
		return "DeviceMessageLockLost"
	case CodeTooLarge:
		return "MessageTooLarge"
	case CodeThrottled:
		return "ThrottlingException"
	case CodeInternal:
		return "ServerError"
	case CodeUnavailable:
		return "ServiceUnavailable"
	case CodePartition:
		return "PartitionNotFound"
	case CodeGatewayTimeout:
		return "GatewayTimeout"
	}
	return "Status" + strconv.Itoa(code/codesPerStatus)
}

const (
	codesPerStatus  = 1000
	maxCode         = 999999
	maxErrorMessage = 4096 // bytes that Body prints of a message
	trackingBytes   = 16   // random bytes of a tracking id
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
	id := make([]byte, trackingBytes)
	_, _ = rand.Read(id) // never fails
	return &Error{Code: code, TrackingID: hex.EncodeToString(id), Message: message, Timestamp: now.UTC().Truncate(time.Second)}
}

// ParseError reads the body of an answer with the given status (3 digits), in the form of [Error.Body] or of
// [Error.RESTBody]. It always finds an error: where the body holds none, a code made from the status and the body's
// text, cut short, tell what is known. Its texts are of one line.
func ParseError(status int, body []byte) *Error {
	if len(body) <= MaxErrorBody {
		var e Error
		if json.Unmarshal(body, &e) == nil && (e.Code > 0 || e.Message != "") {
			if e.Code <= 0 || e.Code > maxCode {
				e.Code = codeOfREST(status, e.Message)
			}
			e.Message, e.TrackingID = plain(clip(e.Message)), plain(e.TrackingID[:min(len(e.TrackingID), shown)])
			return &e
		}
	}
	e := &Error{Code: status * codesPerStatus, Message: "no reason given"}
	if len(body) > 0 {
		e.Message = plain(cut(string(body[:min(len(body), shown+1)])))
	}
	return e
}

// plain has spaces for what would end a line or speak to a terminal: it is shown to people as it is.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, text)
}

// Error prints code, message and tracking id in one line.
func (e *Error) Error() string {
	if e.TrackingID == "" {
		return fmt.Sprintf("hub error %d: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("hub error %d: %s (tracking id %s)", e.Code, e.Message, e.TrackingID)
}

// Status is the three-digit status of the code, as HTTP and twin topics use it.
func (e Error) Status() int { return e.Code / codesPerStatus }

// Body prints the error as JSON, as it stands in an answer.
func (e Error) Body() []byte {
	e.Message = clip(e.Message)
	body, err := json.Marshal(e)
	if err != nil { // only a year beyond 9999 does this
		e.Timestamp = time.Time{}
		body, _ = json.Marshal(e)
	}
	return body
}

// RESTBody prints the error as the service's REST interface does: the code's name between the first colon and the
// first semicolon, where the Node client looks for it.
func (e Error) RESTBody() []byte {
	body, _ := json.Marshal(struct { // strings always marshal
		Message   string
		Exception string `json:"ExceptionMessage"`
	}{
		"ErrorCode:" + CodeName(e.Code) + ";" + clip(e.Message),
		"Tracking ID:" + e.TrackingID + "-TimeStamp:" + e.Timestamp.UTC().Format("01/02/2006 15:04:05"),
	})
	return body
}

// codeOfREST finds the code that a REST message names, of those that fit the status.
func codeOfREST(status int, message string) int {
	_, name, _ := strings.Cut(message, ":")
	name, _, _ = strings.Cut(name, ";")
	for _, code := range [...]int{
		CodeInvalid, CodeUnauthorized, CodeToken, CodeQuota, CodeQueueFull, CodeDeviceNotFound, CodeModuleNotFound,
		CodeNotOnline, CodeDeviceExists, CodeModuleExists, CodePrecondition, CodeLockLost, CodeTooLarge, CodeThrottled,
		CodeInternal, CodeUnavailable, CodeGatewayTimeout,
	} {
		if code/codesPerStatus == status && CodeName(code) == strings.TrimSpace(name) {
			return code
		}
	}
	return status * codesPerStatus
}

// clip cuts a message that would make a body unreasonably long.
func clip(message string) string { return message[:min(len(message), maxErrorMessage)] }
