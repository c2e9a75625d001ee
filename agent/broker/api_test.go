package broker_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/store"
)

func TestPublishIsDurableOnReturn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: []string{"FROM /messages/modules/mod1/outputs/out1 INTO $upstream"}})
		bag := iothub.Bag{{Key: "$.on", Value: "ignored: the output is a parameter"}, {Key: "$.cmid", Value: "forged"}, {Key: "a", Value: "b"}}
		if _, err := r.broker.Publish(r.ctx, mod1, "out1", bag, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if got := r.store.Usage().Records; got != 1 {
			t.Errorf("got %d records on disk, want 1", got)
		}
		items, _, err := r.store.Queue().Peek("upstream/mod1", store.Cursor{}, 9, 0)
		if err != nil || len(items) != 1 {
			t.Fatalf("got %d items, %v, want 1", len(items), err)
		}
		m, err := message.Decode(items[0].Body)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := m.Upstream().String(), "%24.on=out1&a=b"; got != want || m.Source != mod1 {
			t.Errorf("got %s of %s, want %s of %s", got, m.Source, want, mod1)
		}
		if _, err := r.broker.Publish(r.ctx, mod1, "unrouted", nil, nil); err != nil {
			t.Errorf("got %v for a message without a route, want it dropped", err)
		}
	})
}

func TestPublishSaysWhyNot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: []string{toHub}})
		if _, err := r.broker.Publish(r.ctx, mod1, "", nil, make([]byte, iothub.MaxMessage+1)); !errors.Is(err, message.ErrTooLarge) {
			t.Errorf("got %v, want ErrTooLarge", err)
		}
		for _, output := range []string{"\xff", strings.Repeat("o", iothub.MaxMessage)} { // would be acknowledged and never be readable again
			if _, err := r.broker.Publish(r.ctx, mod1, output, nil, []byte("x")); err == nil {
				t.Errorf("got no error for an output of %d bytes that cannot be stored", len(output))
			}
		}
		ended, cancel := context.WithCancel(r.ctx)
		cancel()
		if _, err := r.broker.Publish(ended, mod1, "", nil, nil); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("got %v after the caller went, want its context's error or none", err)
		}
		if err := r.store.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.broker.Publish(r.ctx, mod1, "", nil, nil); !errors.Is(err, store.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	})
}

// TestQuirk has a row for each line of the protocol's quirk list that a Node or Python module can meet at the broker.
func TestQuirk(t *testing.T) {
	t.Parallel()
	tests := map[string]func(t *testing.T, r *rig){
		"no re-subscribe after token renewal; twin filters never re-sent": func(t *testing.T, r *rig) {
			c := r.connect(mod2)
			r.subscribe(c, inputsFilter, methodsFilter, resultsFilter, desiredFilter)
			r.getTwin(c, "1")
			_ = c.Close()
			c = r.connect(mod2)
			r.desire(mod2, `{"a":1}`)
			if m := r.next(c); !strings.HasPrefix(m.Topic, "$iothub/twin/PATCH/") {
				t.Errorf("got %s, want the desired patch", m.Topic)
			}
			r.publish(r.connect(mod1), events, "x")
			if m := r.next(c); string(m.Payload) != "x" {
				t.Errorf("got %q on %s, want the input", m.Payload, m.Topic)
			}
		},
		"input topic needs slash after input name": func(t *testing.T, r *rig) {
			c := r.connect(mod2)
			r.subscribe(c, inputsFilter)
			r.publish(r.connect(mod1), events, "x")
			if m := r.next(c); !strings.HasPrefix(m.Topic, "devices/edge1/modules/mod2/inputs/in1/") {
				t.Errorf("got topic %s, want a slash after in1", m.Topic)
			}
		},
		"empty method body → auto 400": func(t *testing.T, r *rig) {
			c := r.connect(mod2)
			r.subscribe(c, methodsFilter)
			done := r.call(r.ctx, iothub.MethodRequest{Name: "x"})
			_, rid, body := r.asked(c)
			if body != "null" {
				t.Errorf("got body %q, want null", body)
			}
			r.answer(c, rid, "null")
			<-done
		},
		"twin error only seen via body errorCode": func(t *testing.T, r *rig) {
			c := r.connect(mod2)
			r.publish(c, "$iothub/twin/PATCH/properties/reported/?$rid=1", "[]")
			if m := r.next(c); !strings.Contains(string(m.Payload), `"errorCode":400004`) {
				t.Errorf("got body %s, want an errorCode", m.Payload)
			}
		},
		"$version required in desired and patches": func(t *testing.T, r *rig) {
			c := r.connect(mod2)
			if got := string(r.getTwin(c, "1").Payload); strings.Count(got, `"$version"`) != 2 {
				t.Errorf("got the twin of a module that nothing is known of as %s, want both versions", got)
			}
			r.subscribe(c, desiredFilter)
			r.desire(mod2, `{"a":1}`)
			if m := r.next(c); !strings.Contains(string(m.Payload), `"$version":`) || !strings.Contains(m.Topic, "?$version=") {
				t.Errorf("got %s on %s, want $version in both", m.Payload, m.Topic)
			}
		},
		"telemetry topic with trailing / after the bag, keys as %24.on": func(t *testing.T, r *rig) {
			r.routes("FROM /messages/modules/mod1/outputs/out1 INTO $upstream")
			c := r.connect(mod1)
			for _, bag := range []string{"%24.on=out1&a=b/", "%24.on=out1/", "%24.on=out1", "$.on=out1", "?%24.on=out1"} {
				r.publish(c, events+bag, bag)
			}
			if got := r.waiting("upstream/mod1"); len(got) != 5 {
				t.Errorf("got %q routed, want all five", got)
			}
		},
		"subscribes devices/{d}/modules/{m}/#": func(t *testing.T, r *rig) {
			c := r.connect(mod2)
			r.subscribe(c, "devices/edge1/modules/mod2/#", inputsFilter)
			r.publish(r.connect(mod1), events, "x")
			r.next(c)
			r.silent(c) // once, although two filters match
		},
		"QoS 1 on twin GET/PATCH and method responses": func(t *testing.T, r *rig) {
			c := r.connect(mod2)
			r.subscribe(c, methodsFilter, resultsFilter)
			r.publish(c, "$iothub/twin/GET/?$rid=1", " ") // each waits for its PUBACK
			r.next(c)
			r.publish(c, "$iothub/twin/PATCH/properties/reported/?$rid=2", "{}")
			r.next(c)
			done := r.call(r.ctx, iothub.MethodRequest{Name: "x"})
			_, rid, _ := r.asked(c)
			r.answer(c, rid, "1")
			<-done
		},
		"unknown method silently ignored": func(t *testing.T, r *rig) {
			c := r.connect(mod2)
			r.subscribe(c, methodsFilter)
			got := <-r.call(r.ctx, iothub.MethodRequest{Name: "x"})
			if code(got.err) != iothub.CodeGatewayTimeout || got.after != iothub.DefaultResponseTimeout {
				t.Errorf("got %v after %v, want 504101 after 30 s", got.err, got.after)
			}
		},
		"method HTTPS has no api-version": func(t *testing.T, r *rig) {
			status, _, _ := r.post(r.browser(), "/twins/edge1/modules/mod2/methods", "edge1/mod1", token, `{"methodName":"x"}`)
			if status != 404 { // nobody there; not 400
				t.Errorf("got %d, want 404", status)
			}
		},
		"several filters per SUBSCRIBE": func(t *testing.T, r *rig) {
			codes, err := r.connect(mod2).Subscribe(r.ctx, methodsFilter, resultsFilter, desiredFilter)
			if err != nil || !slices.Equal(codes, []byte{1, 1, 1}) {
				t.Errorf("got codes %v, %v, want one each", codes, err)
			}
		},
		"message > 256 KiB refused": func(t *testing.T, r *rig) {
			r.routes(toHub)
			c := r.connect(mod1)
			if err := c.Publish(r.ctx, events+"a=b", make([]byte, iothub.MaxMessage-2), 1); err != nil {
				t.Errorf("got %v at the limit, want a PUBACK", err)
			}
			if err := c.Publish(r.ctx, events+"a=b", make([]byte, iothub.MaxMessage-1), 1); err == nil {
				t.Error("got a PUBACK above the limit, want none")
			}
		},
		"late close of the old connection": func(t *testing.T, r *rig) {
			r.subscribe(r.connect(mod2), inputsFilter)
			for range 20 {
				c := r.connect(mod2)
				r.publish(r.connect(mod1), events, "x")
				if m := r.next(c); string(m.Payload) != "x" {
					t.Fatalf("got %q, want the input at the newest connection", m.Payload)
				}
			}
			synctest.Wait()
		},
	}
	for name, test := range tests {
		t.Run(strings.NewReplacer("/", "|", " ", "_").Replace(name), func(t *testing.T) {
			bubble(t, func(t *testing.T) { test(t, newRig(t, settings{routes: []string{toMod2}})) })
		})
	}
}
