package workload

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

func TestMethods(t *testing.T) {
	t.Parallel()
	b := serve(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- b.module.Methods(ctx, func(c Call) iothub.MethodResult {
			return iothub.MethodResult{Status: 201, Payload: json.RawMessage(`{"echo":"` + c.Name + `","was":` + string(c.Payload) + `}`)}
		})
	}()
	handle := <-b.broker.handler
	result := handle(t.Context(), iothub.MethodRequest{Name: "reboot", Payload: json.RawMessage(`null`)})
	if result.Status != 201 || string(result.Payload) != `{"echo":"reboot","was":null}` {
		t.Errorf("got %d %s, want 201 and the echo", result.Status, result.Payload)
	}
	if status, _, _ := b.ask(t, "POST", "/v1/methods/made.up?status=200", "1"); status != 404 {
		t.Errorf("answer to no call: got %d, want 404", status)
	}
	cancel()
	<-ended
	if fn := <-b.broker.handler; fn != nil {
		t.Error("the handler was not taken back")
	}
}

func TestACallEndsWhenTheModuleOrTheCallerGoes(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		moduleGoes bool
		status     int
	}{"module": {true, 503}, "caller": {false, 504}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := serve(t, nil)
			streaming, closeStream := context.WithCancel(t.Context())
			calling, giveUp := context.WithCancel(t.Context())
			defer closeStream()
			defer giveUp()
			shown := make(chan struct{})
			go func() {
				_ = b.module.stream(streaming, "/v1/methods", func(json.RawMessage) error { close(shown); return nil })
			}()
			handle := <-b.broker.handler
			done := make(chan iothub.MethodResult, 1)
			go func() { done <- handle(calling, iothub.MethodRequest{Name: "x", Payload: json.RawMessage(`1`)}) }()
			<-shown
			if tc.moduleGoes {
				closeStream()
			} else {
				giveUp()
			}
			if got := <-done; got.Status != tc.status {
				t.Errorf("got %d, want %d", got.Status, tc.status)
			}
		})
	}
}

func TestCallMethod(t *testing.T) {
	t.Parallel()
	b := serve(t, nil)
	b.broker.call = func(target iothub.ID, req iothub.MethodRequest) (iothub.MethodResult, error) {
		if target.Module == "away" {
			return iothub.MethodResult{}, iothub.NewError(iothub.CodeNotOnline, "not online", time.Now())
		}
		return iothub.MethodResult{Status: 200, Payload: json.RawMessage(`"` + target.String() + " " + req.Name + `"`)}, nil
	}
	got, err := b.module.Call(t.Context(), iothub.ID{Module: "other"}, iothub.MethodRequest{Name: "reset"})
	if err != nil || got.Status != 200 || string(got.Payload) != `"edge1/other reset"` {
		t.Errorf("got %d %s %v", got.Status, got.Payload, err)
	}
	var away *AnswerError
	if _, err := b.module.Call(t.Context(), iothub.ID{Module: "away"}, iothub.MethodRequest{Name: "reset"}); !errors.As(err, &away) || away.Status != 404 {
		t.Errorf("away: got %v, want status 404", err)
	}
	for name, path := range map[string]string{"no target": "/v1/methods/call", "bad target": "/v1/methods/call?module=a/b"} {
		if status, _, _ := b.ask(t, "POST", path, `{"methodName":"x"}`); status != 400 {
			t.Errorf("%s: got %d, want 400", name, status)
		}
	}
	if status, _, body := b.ask(t, "POST", "/v1/methods/call?module=m", `{}`); status != 400 {
		t.Errorf("no name: got %d %s, want 400", status, body)
	}
}
