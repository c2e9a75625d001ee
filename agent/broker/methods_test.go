package broker_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt/mqtttest"
)

// outcome is what a call returned.
type outcome struct {
	result iothub.MethodResult
	err    error
	after  time.Duration
}

// call calls a method of mod2 without waiting for the answer.
func (r *rig) call(ctx context.Context, req iothub.MethodRequest) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		begun := time.Now()
		result, err := r.broker.Call(ctx, mod2, req)
		done <- outcome{result, err, time.Since(begun)}
	}()
	return done
}

// asked waits for a call and returns its name, request id and body.
func (r *rig) asked(c *mqtttest.Client) (name, rid, body string) {
	r.t.Helper()
	m := r.next(c)
	d, err := iothub.ParseDelivery(m.Topic)
	if err != nil {
		r.t.Fatal(err)
	}
	return d.Name, d.RequestID, string(m.Payload)
}

func (r *rig) answer(c *mqtttest.Client, rid, body string) {
	r.t.Helper()
	r.publish(c, "$iothub/methods/res/201/?$rid="+rid, body)
}

func TestACallReachesTheClientAndItsAnswerTheCaller(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ payload, wantBody, answer, want string }{
		"with a payload":    {`{"a":1.50}`, `{"a":1.50}`, `{"b":2.50}`, `{"b":2.50}`},
		"without a payload": {"", "null", "null", "null"},
		"empty answer":      {"", "null", "", "null"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t, settings{})
				c := r.connect(mod2)
				r.subscribe(c, methodsFilter)
				done := r.call(r.ctx, iothub.MethodRequest{Name: "do it", Payload: json.RawMessage(test.payload)})
				name, rid, body := r.asked(c)
				if name != "do it" || body != test.wantBody {
					t.Errorf("got call of %q with %q, want %q with %q", name, body, "do it", test.wantBody)
				}
				r.answer(c, strings.ToUpper(rid), test.answer)
				got := <-done
				if got.err != nil || got.result.Status != 201 || string(got.result.Payload) != test.want {
					t.Errorf("got %d %s, %v, want 201 %s", got.result.Status, got.result.Payload, got.err, test.want)
				}
			})
		})
	}
}

func TestACallOfNobodyEndsWith404103(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		prepare func(r *rig)
		connect time.Duration
	}{
		"nobody there":                 {func(*rig) {}, 0},
		"nobody comes in time":         {func(*rig) {}, 20 * time.Second},
		"connected but not subscribed": {func(r *rig) { r.subscribe(r.connect(mod2), inputsFilter) }, 3 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t, settings{})
				test.prepare(r)
				got := <-r.call(r.ctx, iothub.MethodRequest{Name: "x", ConnectTimeout: test.connect})
				if code(got.err) != iothub.CodeNotOnline || got.after != test.connect {
					t.Errorf("got %v after %v, want 404103 after %v", got.err, got.after, test.connect)
				}
			})
		})
	}
}

func TestACallWaitsForTheClientAndComesAfterTheSuback(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{})
		done := r.call(r.ctx, iothub.MethodRequest{Name: "x", ConnectTimeout: time.Minute})
		synctest.Wait()
		c := r.connect(mod2)
		r.silent(c)
		codes, err := c.Subscribe(r.ctx, methodsFilter) // mqtttest reads the packets in order: this returns before a message is there
		if err != nil || len(codes) != 1 {
			t.Fatal(codes, err)
		}
		_, rid, _ := r.asked(c)
		r.answer(c, rid, "1")
		if got := <-done; got.err != nil {
			t.Errorf("got %v, want an answer", got.err)
		}
	})
}

func TestACallWaitsForTheNextConnectionOfAClientThatReconnects(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{})
		c := r.connect(mod2)
		r.subscribe(c, methodsFilter)
		_ = c.Close() // token renewal
		done := r.call(r.ctx, iothub.MethodRequest{Name: "x", ConnectTimeout: 10 * time.Second})
		c = r.connect(mod2)
		_, rid, _ := r.asked(c)
		r.answer(c, rid, "1")
		if got := <-done; got.err != nil {
			t.Errorf("got %v, want an answer", got.err)
		}
	})
}

func TestACallWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		react func(r *rig, c, other *mqtttest.Client, rid string, cancel func())
		code  int
		after time.Duration
	}{
		"silence":           {func(*rig, *mqtttest.Client, *mqtttest.Client, string, func()) {}, iothub.CodeGatewayTimeout, 7 * time.Second},
		"answer of another": {func(r *rig, _, o *mqtttest.Client, rid string, _ func()) { r.answer(o, rid, "1") }, iothub.CodeGatewayTimeout, 7 * time.Second},
		"answer to another": {func(r *rig, c, _ *mqtttest.Client, _ string, _ func()) { r.answer(c, "other", "1") }, iothub.CodeGatewayTimeout, 7 * time.Second},
		"answer is no JSON": {func(r *rig, c, _ *mqtttest.Client, rid string, _ func()) { r.answer(c, rid, "{") }, iothub.CodeGatewayTimeout, 7 * time.Second},
		"client goes":       {func(_ *rig, c, _ *mqtttest.Client, _ string, _ func()) { _ = c.Close() }, iothub.CodeClosedRemotely, 0},
		"caller goes":       {func(_ *rig, _, _ *mqtttest.Client, _ string, cancel func()) { cancel() }, 0, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t, settings{})
				c, other := r.connect(mod2), r.connect(mod1)
				r.subscribe(c, methodsFilter)
				r.subscribe(other, methodsFilter)
				ctx, cancel := context.WithCancel(r.ctx)
				defer cancel()
				done := r.call(ctx, iothub.MethodRequest{Name: "x", ResponseTimeout: 7 * time.Second})
				_, rid, _ := r.asked(c)
				test.react(r, c, other, rid, cancel)
				got := <-done
				if code(got.err) != test.code || got.after != test.after || got.err == nil {
					t.Errorf("got %v after %v, want code %d after %v", got.err, got.after, test.code, test.after)
				}
				if test.code == 0 && !errors.Is(got.err, context.Canceled) {
					t.Errorf("got %v, want the caller's own", got.err)
				}
			})
		})
	}
}

func TestTheFirstAnswerCounts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{})
		c := r.connect(mod2)
		r.subscribe(c, methodsFilter)
		done := r.call(r.ctx, iothub.MethodRequest{Name: "x"})
		_, rid, _ := r.asked(c)
		r.answer(c, rid, "1")
		r.answer(c, rid, "2")
		_ = c.Close() // at once, as a module that answers and exits
		if got := <-done; got.err != nil || string(got.result.Payload) != "1" {
			t.Errorf("got %s, %v, want 1", got.result.Payload, got.err)
		}
	})
}

func TestHandlersAnswerBeforeConnections(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{})
		c := r.connect(mod2)
		r.subscribe(c, methodsFilter)
		say := func(word string) func(context.Context, iothub.MethodRequest) iothub.MethodResult {
			return func(context.Context, iothub.MethodRequest) iothub.MethodResult {
				return iothub.MethodResult{Status: 200, Payload: json.RawMessage(word)}
			}
		}
		cancelOlder := r.broker.HandleMethod(mod2, say("1"))
		cancelNewer := r.broker.HandleMethod(mod2, say("2"))
		cancelOlder() // is not the newer's
		if got := <-r.call(r.ctx, iothub.MethodRequest{Name: "x"}); string(got.result.Payload) != "2" {
			t.Errorf("got %s, %v, want 2", got.result.Payload, got.err)
		}
		cancelNewer()
		done := r.call(r.ctx, iothub.MethodRequest{Name: "x"})
		_, rid, _ := r.asked(c)
		r.answer(c, rid, "3")
		if got := <-done; string(got.result.Payload) != "3" {
			t.Errorf("got %s, %v, want 3", got.result.Payload, got.err)
		}
	})
}

func TestAHandlerThatDoesNotAnswerInTimeIs504101(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{})
		r.broker.HandleMethod(mod2, func(ctx context.Context, _ iothub.MethodRequest) iothub.MethodResult {
			<-ctx.Done()
			return iothub.MethodResult{Status: 504}
		})
		got := <-r.call(r.ctx, iothub.MethodRequest{Name: "x", ResponseTimeout: 5 * time.Second})
		if code(got.err) != iothub.CodeGatewayTimeout || got.after != 5*time.Second {
			t.Errorf("got %v after %v, want 504101 after 5 s", got.err, got.after)
		}
	})
}
