package iothub

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"
)

// MethodRequest is a call of a direct method, as the body of an HTTPS call spells it.
type MethodRequest struct {
	Name            string          // at most MaxMethodName characters
	Payload         json.RawMessage // never empty after ParseMethodRequest: "null" when the caller gave none
	ResponseTimeout time.Duration   // 5 to 300 s; 0 = DefaultResponseTimeout
	ConnectTimeout  time.Duration   // 0 to 300 s: how long to wait for a receiver that is not there
}

// MethodResult is the answer to a direct method.
type MethodResult struct {
	Status  int             `json:"status"`  // the method's own
	Payload json.RawMessage `json:"payload"` // nil prints as null
}

// methodRequest is MethodRequest on the wire: whole seconds, absent or null = default.
type methodRequest struct {
	Name            *string         `json:"methodName"`
	Payload         json.RawMessage `json:"payload"`
	ResponseSeconds *int64          `json:"responseTimeoutInSeconds,omitempty"`
	ConnectSeconds  *int64          `json:"connectTimeoutInSeconds,omitempty"`
}

var null = json.RawMessage("null")

// ParseMethodRequest reads the JSON body of a method call, fills in the defaults and checks the limits. At most
// [MaxMethodRequest] bytes. The error is a [*SyntaxError] that says which member is wrong: answer 400.
func ParseMethodRequest(body []byte) (MethodRequest, error) {
	if len(body) > MaxMethodRequest {
		return MethodRequest{}, syntax("method request", "", "longer than 128 KiB payload allow")
	}
	var wire methodRequest
	if err := json.Unmarshal(body, &wire); err != nil {
		return MethodRequest{}, &SyntaxError{Noun: "method request", Why: err.Error(), Err: err}
	}
	if wire.Name == nil {
		return MethodRequest{}, syntax("method request", "", "no methodName")
	}
	r := MethodRequest{Name: *wire.Name, Payload: wire.Payload, ResponseTimeout: DefaultResponseTimeout}
	if len(r.Payload) == 0 {
		r.Payload = null
	}
	const most = int64(MaxResponseTimeout / time.Second)
	if s := wire.ResponseSeconds; s != nil {
		if *s < int64(MinResponseTimeout/time.Second) || *s > most {
			return MethodRequest{}, syntax("method request", "", fmt.Sprintf("responseTimeoutInSeconds is %d, want 5 to 300", *s))
		}
		r.ResponseTimeout = time.Duration(*s) * time.Second
	}
	if s := wire.ConnectSeconds; s != nil {
		if *s < 0 || *s > most {
			return MethodRequest{}, syntax("method request", "", fmt.Sprintf("connectTimeoutInSeconds is %d, want 0 to 300", *s))
		}
		r.ConnectTimeout = time.Duration(*s) * time.Second
	}
	if err := r.Validate(); err != nil {
		return MethodRequest{}, err
	}
	return r, nil
}

// Validate checks the limits of a request that was made here rather than parsed.
func (r MethodRequest) Validate() error {
	why := ""
	switch {
	case r.Name == "":
		why = "empty methodName"
	case !utf8.ValidString(r.Name):
		why = "methodName is not UTF-8"
	case utf8.RuneCountInString(r.Name) > MaxMethodName:
		why = "methodName longer than 100 characters"
	case len(r.Payload) > MaxMethodPayload:
		why = "payload longer than 128 KiB"
	case r.ResponseTimeout != 0 && (r.ResponseTimeout < MinResponseTimeout || r.ResponseTimeout > MaxResponseTimeout):
		why = "response timeout " + r.ResponseTimeout.String() + ", want 5 to 300 s"
	case r.ConnectTimeout < 0 || r.ConnectTimeout > MaxResponseTimeout:
		why = "connect timeout " + r.ConnectTimeout.String() + ", want 0 to 300 s"
	default:
		return nil
	}
	return syntax("method request", "", why)
}

// MarshalJSON prints what [ParseMethodRequest] reads, timeouts in whole seconds.
func (r MethodRequest) MarshalJSON() ([]byte, error) {
	wire := methodRequest{Name: &r.Name, Payload: r.Payload}
	if len(wire.Payload) == 0 {
		wire.Payload = null
	}
	response, connect := int64(r.ResponseTimeout/time.Second), int64(r.ConnectTimeout/time.Second)
	if response != 0 {
		wire.ResponseSeconds = &response
	}
	if connect != 0 {
		wire.ConnectSeconds = &connect
	}
	return json.Marshal(wire)
}

// UnmarshalJSON is [ParseMethodRequest].
func (r *MethodRequest) UnmarshalJSON(body []byte) error {
	parsed, err := ParseMethodRequest(body)
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}
