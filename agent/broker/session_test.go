package broker_test

import (
	"bytes"
	"testing"
	"testing/synctest"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt/mqtttest"
)

const toMod2 = `FROM /messages/modules/mod1/* INTO BrokeredEndpoint("/modules/mod2/inputs/in1")`

func TestSubscriptionsOutliveConnectionsAndAgents(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := t.TempDir()
		r := newRig(t, settings{dir: dir, routes: []string{toMod2}})
		c := r.connect(mod2)
		if c.Present {
			t.Error("got session-present on the first connection, want none")
		}
		r.subscribe(c, inputsFilter, methodsFilter)
		_ = c.Close()

		c = r.connect(mod2) // as Node does after a token renewal: no SUBSCRIBE
		if !c.Present {
			t.Error("got no session-present on the second connection, want it")
		}
		r.publish(r.connect(mod1), events, "one")
		if got := string(r.next(c).Payload); got != "one" {
			t.Errorf("got input %q after a reconnect, want one", got)
		}
		r.publish(r.connect(mod1), events, "two")
		r.stop()

		r = newRig(t, settings{dir: dir, routes: []string{toMod2}})
		c = r.connect(mod2)
		if !c.Present {
			t.Error("got no session-present at a new agent, want it")
		}
		if got := string(r.next(c).Payload); got != "two" {
			t.Errorf("got input %q at a new agent, want two", got)
		}
		go func() {
			m := r.next(c)
			d, _ := iothub.ParseDelivery(m.Topic)
			_ = c.Publish(r.ctx, "$iothub/methods/res/200/?$rid="+d.RequestID, []byte("1"), 1)
		}()
		if got, err := r.broker.Call(r.ctx, mod2, iothub.MethodRequest{Name: "x"}); err != nil || got.Status != 200 {
			t.Errorf("got %+v, %v from a method at a new agent, want 200", got, err)
		}
	})
}

func TestACleanConnectionDiscardsTheSessionAndLeavesNone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: []string{toMod2}})
		c := r.connect(mod2)
		r.subscribe(c, inputsFilter)
		_ = c.Close()
		clean := func(o *mqtttest.Options) { o.Clean = true }

		c = r.connect(mod2, clean)
		if c.Present {
			t.Error("got session-present with clean=1, want none")
		}
		sender := r.connect(mod1)
		r.publish(sender, events, "one")
		r.silent(c)
		r.subscribe(c, inputsFilter) // of this connection
		if got := string(r.next(c).Payload); got != "one" {
			t.Errorf("got input %q, want one", got)
		}
		_ = c.Close()

		c = r.connect(mod2)
		if c.Present {
			t.Error("got session-present after a clean connection, want none")
		}
		r.publish(sender, events, "two")
		r.silent(c)
	})
}

func TestSubackRules(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		filters []string
		qos     byte
		want    []byte
	}{
		"quality 0 stays":                        {[]string{methodsFilter}, 0, []byte{0}},
		"quality 1 stays":                        {[]string{inputsFilter}, 1, []byte{1}},
		"quality 2 is granted as 1":              {[]string{resultsFilter}, 2, []byte{1}},
		"several filters get a code each":        {[]string{methodsFilter, resultsFilter, desiredFilter}, 1, []byte{1, 1, 1}},
		"no known shape is granted all the same": {[]string{"#", "devices/+/messages/events/#", methodsFilter}, 1, []byte{1, 1, 1}},
		"another module's inputs are granted":    {[]string{"devices/edge1/modules/mod1/inputs/#"}, 1, []byte{1}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t, settings{})
				c := r.connect(mod2)
				got, err := c.SubscribeQoS(r.ctx, test.qos, test.filters...)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, test.want) {
					t.Errorf("got codes %v, want %v", got, test.want)
				}
			})
		})
	}
}

func TestAForeignSubscriptionDeliversNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: []string{toMod2}})
		spy := r.connect(iothub.ID{Device: device, Module: "spy"})
		r.subscribe(spy, inputsFilter, "devices/edge1/modules/mod2/#", "devices/edge1/messages/devicebound/#", "#")
		r.publish(r.connect(mod1), events, "secret")
		r.silent(spy)
		if got := r.waiting("modules/mod2/inputs/in1"); len(got) != 1 {
			t.Errorf("got %q waiting for mod2, want one message", got)
		}
		if r.log.line("edge1/spy", "other=edge1/mod2") == "" {
			t.Error("got no log line that names both identities, want one")
		}
		if got, _ := r.store.Docs().Get("session/edge1/spy"); got != nil {
			t.Errorf("got stored session %s, want none", got)
		}
	})
}

func TestUnsubscribeEndsDeliveryAlsoAfterAReconnect(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: []string{toMod2}})
		c, sender := r.connect(mod2), r.connect(mod1)
		r.subscribe(c, inputsFilter, methodsFilter)
		if err := c.Unsubscribe(r.ctx, inputsFilter, methodsFilter); err != nil {
			t.Fatal(err)
		}
		r.publish(sender, events, "x")
		r.silent(c)
		if _, err := r.broker.Call(r.ctx, mod2, iothub.MethodRequest{Name: "x"}); code(err) != iothub.CodeNotOnline {
			t.Errorf("got %v from a method, want 404103", err)
		}
		_ = c.Close()
		c = r.connect(mod2)
		r.silent(c)
	})
}

func TestASubscriptionThatCannotBeStoredIsNotGranted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{})
		c := r.connect(mod2)
		if err := r.store.Close(); err != nil {
			t.Fatal(err)
		}
		_, _ = c.Subscribe(r.ctx, inputsFilter)
		<-c.Ended()
		synctest.Wait()
		if r.log.line("subscription not stored", "edge1/mod2") == "" {
			t.Error("got no log line, want one")
		}
	})
}
