package upstream

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// reply is the answer to a direct method, on its way to the session.
type reply struct {
	id     string // of the request
	result iothub.MethodResult
}

// call runs a direct method beside the session. Methods are bounded in number, and refused beyond.
func (s *session) call(ctx context.Context, d *incoming) {
	body := d.body
	if len(body) == 0 {
		body = []byte("null")
	}
	req := iothub.MethodRequest{Name: d.Name, Payload: body}
	switch {
	case !json.Valid(body):
		s.answer(reply{d.RequestID, said(http.StatusBadRequest, "payload is not JSON")})
		return
	case len(s.calls) == cap(s.calls):
		s.answer(reply{d.RequestID, said(http.StatusTooManyRequests, "too many direct methods are under way")})
		return
	}
	s.calls <- struct{}{} // only this goroutine sends, so there is room
	s.methods.Go(func() {
		defer func() { <-s.calls }()
		result := s.cfg.Method(ctx, s.id, req)
		select {
		case s.replies <- reply{d.RequestID, result}:
		case <-s.over: // the hub has answered its caller by itself
		}
	})
}

// answer sends the result of a direct method.
func (s *session) answer(r reply) {
	payload := r.result.Payload
	if len(payload) == 0 {
		payload = []byte("null")
	}
	if len(payload) > iothub.MaxMethodPayload {
		r.result.Status = http.StatusInternalServerError
		payload = said(0, "answer is longer than 128 KiB").Payload
	}
	s.publish(iothub.Publish{Kind: iothub.MethodResponse, RequestID: r.id, Status: r.result.Status}, payload)
}

// said is a result in words.
func said(status int, text string) iothub.MethodResult {
	payload, err := json.Marshal(map[string]string{"message": text})
	if err != nil {
		payload = nil
	}
	return iothub.MethodResult{Status: status, Payload: payload}
}
