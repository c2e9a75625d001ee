package broker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
)

var twoInputs = []string{
	`FROM /messages/modules/mod1/outputs/a INTO BrokeredEndpoint("/modules/mod2/inputs/a")`,
	`FROM /messages/modules/mod1/outputs/b INTO BrokeredEndpoint("/modules/mod2/inputs/b")`,
}

func TestOneMessageIsUnderWayOverAllInputs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: twoInputs})
		c, sender := r.connect(mod2), r.connect(mod1)
		r.subscribe(c, inputsFilter)
		const each = 5
		for i := range each {
			r.publish(sender, events+"%24.on=a/", fmt.Sprint(i))
			r.publish(sender, events+"%24.on=b/", fmt.Sprint(i))
		}
		got := map[string][]string{}
		for range 2 * each {
			m := r.hold(c)
			r.silent(c) // nothing more before the PUBACK
			d, err := iothub.ParseDelivery(m.Topic)
			if err != nil {
				t.Fatal(err)
			}
			got[d.Name] = append(got[d.Name], string(m.Payload))
			if err := c.Ack(m); err != nil {
				t.Fatal(err)
			}
		}
		want := []string{"0", "1", "2", "3", "4"}
		if !slices.Equal(got["a"], want) || !slices.Equal(got["b"], want) {
			t.Errorf("got %v, want both in order", got)
		}
		r.silent(c)
		if got := append(r.waiting("modules/mod2/inputs/a"), r.waiting("modules/mod2/inputs/b")...); len(got) != 0 {
			t.Errorf("got %q left, want none", got)
		}
	})
}

func TestAMessageThatIsNotAcknowledgedComesAgainBeforeTheNext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: []string{toMod2}})
		c, sender := r.connect(mod2), r.connect(mod1)
		r.subscribe(c, inputsFilter)
		r.publish(sender, events, "one")
		r.publish(sender, events, "two")
		begun := time.Now()
		first := r.hold(c)
		again := r.hold(c)
		if got := string(first.Payload) + " " + string(again.Payload); got != "one one" {
			t.Errorf("got %q, want one twice", got)
		}
		if got, want := time.Since(begun), 30*time.Second; got != want {
			t.Errorf("got it again after %v, want %v", got, want)
		}
		if err := c.Ack(again); err != nil {
			t.Fatal(err)
		}
		if got := string(r.next(c).Payload); got != "two" {
			t.Errorf("got %q, want two", got)
		}
	})
}

func TestAMessageUnderWayComesAgainAfterAReconnect(t *testing.T) {
	t.Parallel()
	for name, replace := range map[string]bool{"old connection broke": false, "old connection replaced": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t, settings{routes: []string{toMod2}})
				c, sender := r.connect(mod2), r.connect(mod1)
				r.subscribe(c, inputsFilter)
				r.publish(sender, events, "one")
				r.publish(sender, events, "two")
				r.hold(c)
				if !replace {
					_ = c.Abort()
				}
				c = r.connect(mod2)
				if got := string(r.next(c).Payload) + " " + string(r.next(c).Payload); got != "one two" {
					t.Errorf("got %q, want one two", got)
				}
			})
		})
	}
}

func TestMessagesForAModuleThatIsAwayWaitAlsoInANewAgent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := t.TempDir()
		r := newRig(t, settings{dir: dir, routes: []string{toMod2}})
		r.publish(r.connect(mod1), events, "waits")
		r.stop()
		r = newRig(t, settings{dir: dir}) // no route any more: what is accepted is delivered
		c := r.connect(mod2)
		r.silent(c)
		r.subscribe(c, inputsFilter)
		if got := string(r.next(c).Payload); got != "waits" {
			t.Errorf("got %q, want waits", got)
		}
	})
}

func TestInputTopicsSayWhoSentIt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ from, topic, want string }{
		"by a module without properties": {"edge1/mod1", events, "devices/edge1/modules/mod2/inputs/in1/%24.cdid=edge1&%24.cmid=mod1"},
		"by the device":                  {"edge1", "devices/edge1/messages/events", "devices/edge1/modules/mod2/inputs/in1/%24.cdid=edge1"},
		"forged sender": {
			"edge1/mod1", events + "%24.cdid=evil&%24.cmid=evil", "devices/edge1/modules/mod2/inputs/in1/%24.cdid=edge1&%24.cmid=mod1",
		},
		"key without a value": {"edge1/mod1", events + "key", "devices/edge1/modules/mod2/inputs/in1/%24.cdid=edge1&%24.cmid=mod1&key="},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t, settings{routes: []string{`FROM /messages/* INTO BrokeredEndpoint("/modules/mod2/inputs/in1")`}})
				c := r.connect(mod2)
				r.subscribe(c, "devices/edge1/modules/mod2/#") // as C and C# do
				id, err := iothub.ParseID(test.from)
				if err != nil {
					t.Fatal(err)
				}
				r.publish(r.connect(id), test.topic, "x")
				if got := r.next(c).Topic; got != test.want {
					t.Errorf("got topic %s, want %s", got, test.want)
				}
			})
		})
	}
}

func TestAMessageThatFitsNoTopicDoesNotBlockTheLane(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: []string{toMod2}})
		c := r.connect(mod2)
		r.subscribe(c, inputsFilter)
		huge := iothub.Bag{{Key: "k", Value: strings.Repeat("x", 70_000)}}
		if _, err := r.broker.Publish(r.ctx, mod1, "", huge, []byte("huge")); err != nil {
			t.Fatal(err)
		}
		if _, err := r.broker.Publish(r.ctx, mod1, "", nil, []byte("next")); err != nil {
			t.Fatal(err)
		}
		if got := string(r.next(c).Payload); got != "next" {
			t.Errorf("got %q, want next", got)
		}
		if r.log.line("can never be delivered") == "" {
			t.Error("got no log line, want one")
		}
	})
}

func TestInputsTakesOneAtATimeAndBringsBackWhatFailed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: twoInputs})
		sender := r.connect(mod1)
		r.publish(sender, events+"%24.on=a/", "1")
		r.publish(sender, events+"%24.on=a/", "2")
		ctx, cancel := context.WithCancel(r.ctx)
		var got []string
		busy := false
		err := r.broker.Inputs(ctx, mod2, func(input string, m message.Message) error {
			if busy {
				t.Error("got two calls at a time, want one")
			}
			busy = true
			defer func() { busy = false }()
			got = append(got, input+string(m.Body))
			switch len(got) {
			case 1:
				return errors.New("again")
			case 3:
				cancel()
			}
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's", err)
		}
		if want := []string{"a1", "a1", "a2"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestAfterInputsTheSubscriptionIsServedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: []string{toMod2}})
		c, sender := r.connect(mod2), r.connect(mod1)
		r.subscribe(c, inputsFilter)
		ctx, cancel := context.WithCancel(r.ctx)
		var ended bool
		done := make(chan struct{})
		got := make(chan string, 1)
		go func() {
			defer close(done)
			_ = r.broker.Inputs(ctx, mod2, func(_ string, m message.Message) error {
				if ended {
					t.Error("got a call after Inputs returned")
				}
				got <- string(m.Body)
				return nil
			})
			ended = true
		}()
		synctest.Wait()
		r.publish(sender, events, "to the stream")
		if s := <-got; s != "to the stream" {
			t.Errorf("got %q, want it at the stream", s)
		}
		r.silent(c)
		cancel()
		<-done
		r.publish(sender, events, "to mqtt")
		if s := string(r.next(c).Payload); s != "to mqtt" {
			t.Errorf("got %q, want it at the connection", s)
		}
	})
}

func TestAtQuality0InputsFlowWithoutAcknowledgement(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: []string{toMod2}})
		c, sender := r.connect(mod2), r.connect(mod1)
		if _, err := c.SubscribeQoS(r.ctx, 0, inputsFilter); err != nil {
			t.Fatal(err)
		}
		r.publish(sender, events, "1")
		r.publish(sender, events, "2")
		for _, want := range []string{"1", "2"} {
			if m := r.hold(c); string(m.Payload) != want || m.QoS != 0 {
				t.Errorf("got %q at quality %d, want %q at 0", m.Payload, m.QoS, want)
			}
		}
	})
}

func TestTwinChangesAreRouted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: []string{
			`FROM /twinChangeNotifications INTO BrokeredEndpoint("/modules/mod2/inputs/twins")`, `FROM /twinChangeNotifications INTO $upstream`,
		}})
		c := r.connect(mod2)
		r.subscribe(c, inputsFilter)
		r.publish(r.connect(mod1), "$iothub/twin/PATCH/properties/reported/?$rid=1", `{"a":1}`)
		m := r.next(c)
		d, err := iothub.ParseDelivery(m.Topic)
		if err != nil {
			t.Fatal(err)
		}
		if from, _ := d.Bag.Get(iothub.PropSourceModule); d.Name != "twins" || string(m.Payload) != `{"a":1}` || from != "mod1" {
			t.Errorf("got %s of %s at %s, want the patch of mod1 at twins", m.Payload, from, d.Name)
		}
		if got := r.waiting("upstream/$edgeHub"); len(got) != 1 {
			t.Errorf("got %q for the hub, want the patch", got)
		}
	})
}
