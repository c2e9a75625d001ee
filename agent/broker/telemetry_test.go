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
	"github.com/sandpiper-edge/sandpiper/agent/mqtt/mqtttest"
	"github.com/sandpiper-edge/sandpiper/store"
)

const toHub = "FROM /messages/* INTO $upstream"

func TestAPublishIsAcknowledgedWhenTheStoreHasIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := t.TempDir()
		r := newRig(t, settings{dir: dir, routes: []string{toHub}})
		c := r.connect(mod1)
		r.publish(c, events, "one")
		before := r.store.Usage().Records
		if before != 1 {
			t.Errorf("got %d records on disk at the PUBACK, want 1", before)
		}
		r.publish(r.connect(iothub.ID{Device: device}), "devices/edge1/messages/events/", "device")
		if got := r.waiting("upstream/mod1"); !slices.Equal(got, []string{"one"}) {
			t.Errorf("got %q in upstream/mod1, want one", got)
		}
		if got := r.waiting("upstream/_"); !slices.Equal(got, []string{"device"}) {
			t.Errorf("got %q in upstream/_, want device", got)
		}
	})
}

func TestAPublishThatIsNotStoredIsNotAcknowledged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: []string{toHub}})
		c := r.connect(mod1)
		if err := r.store.Close(); err != nil {
			t.Fatal(err)
		}
		if err := c.Publish(r.ctx, events, []byte("x"), 1); err == nil {
			t.Error("got a PUBACK, want none")
		}
		<-c.Ended()
		synctest.Wait()
		if r.log.line("message not stored", "edge1/mod1", "store is closed") == "" {
			t.Error("got no log line, want one")
		}
	})
}

func TestAFullStoreHoldsThePublishAndTakesItWhenThereIsRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: []string{toHub}, max: 8 << 20})
		c := r.connect(mod1)
		body := strings.Repeat("x", 200<<10)
		acked := 0
		publish := func() error {
			ctx, cancel := context.WithTimeout(r.ctx, 20*time.Second)
			defer cancel()
			return c.Publish(ctx, events, []byte(fmt.Sprintf("%06d%s", acked, body)), 1)
		}
		for publish() == nil {
			acked++
		}
		select {
		case <-c.Ended():
			t.Fatal("the connection was closed, want it held")
		default:
		}
		if got := len(r.waiting("upstream/mod1")); got != acked || acked == 0 {
			t.Errorf("got %d messages in the store, want the %d acknowledged", got, acked)
		}
		if r.log.line("message not stored", "store is full") == "" {
			t.Error("got no log line, want one")
		}
		if why := r.why.Load(); why == nil || !errors.Is(*why, store.ErrFull) {
			t.Errorf("got %v told, want why", why)
		}
		if _, err := r.store.Queue().Purge(r.ctx, "upstream/mod1"); err != nil {
			t.Fatal(err)
		}
		<-time.After(11 * time.Second) // of the bubble: longer than any pause between two tries
		got := r.waiting("upstream/mod1")
		if len(got) != 1 || got[0][:6] != fmt.Sprintf("%06d", acked) {
			t.Errorf("got %d messages after there was room, want the one held", len(got))
		}
		if r.log.line("messages are stored again") == "" {
			t.Error("got no log line that it goes on, want one")
		}
	})
}

func TestAForeignPublishClosesAndNamesBoth(t *testing.T) {
	t.Parallel()
	for name, topic := range map[string]string{
		"another module":           "devices/edge1/modules/mod2/messages/events/",
		"the device":               "devices/edge1/messages/events/",
		"module of another device": "devices/edge2/modules/mod1/messages/events/",
		"another case":             "devices/edge1/modules/MOD1/messages/events/",
	} {
		for _, qos := range []byte{0, 1} {
			t.Run(name+" at quality "+string('0'+qos), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					r := newRig(t, settings{routes: []string{toHub}})
					c := r.connect(mod1)
					if err := c.Publish(r.ctx, topic, []byte("x"), qos); qos == 1 && err == nil {
						t.Error("got a PUBACK, want none")
					}
					<-c.Ended()
					synctest.Wait()
					parsed, err := iothub.ParsePublish(topic)
					if err != nil {
						t.Fatal(err)
					}
					if r.log.line("identity=edge1/mod1", "other="+parsed.ID.String()) == "" {
						t.Error("got no log line that names both identities, want one")
					}
					if got := r.store.Usage().Records; got != 0 {
						t.Errorf("got %d records stored, want none", got)
					}
				})
			})
		}
	}
}

func TestUnknownTopics(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		topic string
		acked bool
	}{
		"telemetry of no known shape is acknowledged and dropped": {"devices/edge1/nonsense", true},
		"any word is acknowledged and dropped":                    {"hello", true},
		"a twin request that is none closes":                      {"$iothub/twin/PUT/?$rid=1", false},
		"a twin request without $rid closes":                      {"$iothub/twin/GET/", false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t, settings{routes: []string{toHub}})
				c := r.connect(mod1)
				r.publish(c, events+"a=b", "1") // whose bag must not be taken for that of the next topic
				err := c.Publish(r.ctx, test.topic, nil, 1)
				if acked := err == nil; acked != test.acked {
					t.Errorf("got acknowledged %t (%v), want %t", acked, err, test.acked)
				}
				if got := r.store.Usage().Records; got != 1 {
					t.Errorf("got %d records, want 1", got)
				}
			})
		})
	}
}

func TestAMessageWithoutARouteIsAcknowledgedAndDropped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{})
		c := r.connect(mod1)
		r.publish(c, events, "x")
		r.routes("FROM /messages/modules/mod1/outputs/out1 INTO $upstream") // a table that changes is seen at once
		r.publish(c, events, "y")
		r.publish(c, events+"%24.on=out1/", "z")
		if got := r.waiting("upstream/mod1"); !slices.Equal(got, []string{"z"}) {
			t.Errorf("got %q stored, want z", got)
		}
		r.router.Store(nil)
		r.publish(c, events+"%24.on=out1/", "dropped")
		if got := r.waiting("upstream/mod1"); len(got) != 1 {
			t.Errorf("got %q stored, want z alone", got)
		}
	})
}

func TestOutputsAreRoutedApart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: []string{
			`FROM /messages/modules/mod1/outputs/a INTO BrokeredEndpoint("/modules/mod2/inputs/a")`,
			`FROM /messages/modules/mod1/outputs/b INTO BrokeredEndpoint("/modules/mod2/inputs/b")`,
			`FROM /messages/modules/mod1/* INTO $upstream`,
		}})
		c := r.connect(mod1)
		for _, on := range []string{"a", "b", "a", "b", "c"} {
			r.publish(c, events+"%24.on="+on+"/", on)
		}
		for lane, want := range map[string][]string{
			"modules/mod2/inputs/a": {"a", "a"}, "modules/mod2/inputs/b": {"b", "b"}, "upstream/mod1": {"a", "b", "a", "b", "c"},
		} {
			if got := r.waiting(lane); !slices.Equal(got, want) {
				t.Errorf("got %q in %s, want %q", got, lane, want)
			}
		}
	})
}

func TestAMessageThatIsTooLargeClosesTheConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: []string{toHub}})
		c := r.connect(mod1)
		if err := c.Publish(r.ctx, events, make([]byte, iothub.MaxMessage+1), 1); err == nil {
			t.Error("got a PUBACK, want none")
		}
		<-c.Ended()
		c = r.connect(mod1)
		if err := c.Publish(r.ctx, events, make([]byte, iothub.MaxMessage), 1); err != nil {
			t.Errorf("got %v for the largest message, want a PUBACK", err)
		}
	})
}

func TestPropertiesSurviveTheStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: []string{toHub}})
		c := r.connect(mod1)
		topic := events + "%24.on=out1&%24.mid=id%201&%24.cmid=forged&alert=a%2Fb%20c/"
		r.publish(c, topic, "1")
		r.publish(c, topic, "2") // the same topic again: what was parsed is not used twice
		items, _, err := r.store.Queue().Peek("upstream/mod1", store.Cursor{}, 9, 0)
		if err != nil || len(items) != 2 {
			t.Fatalf("got %d items, %v, want 2", len(items), err)
		}
		for _, item := range items {
			m, err := message.Decode(item.Body)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := m.Upstream().String(), "%24.on=out1&%24.mid=id%201&alert=a%2Fb%20c"; got != want || m.Source != mod1 {
				t.Errorf("got %s of %s, want %s of %s", got, m.Source, want, mod1)
			}
		}
	})
}

func TestAWillIsPublishedAfterABreakAlone(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		topic string
		leave func(*mqtttest.Client) error
		want  []string
	}{
		"broken":           {events + "a=b", (*mqtttest.Client).Abort, []string{"gone"}},
		"said goodbye":     {events, (*mqtttest.Client).Close, nil},
		"topic of another": {"devices/edge1/modules/mod2/messages/events/", (*mqtttest.Client).Abort, nil},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t, settings{routes: []string{toHub}})
				c := r.connect(mod1, func(o *mqtttest.Options) { o.WillTopic, o.WillPayload = test.topic, []byte("gone") })
				if err := test.leave(c); err != nil && !errors.Is(err, r.ctx.Err()) {
					t.Fatal(err)
				}
				synctest.Wait()
				if _, err := r.broker.Publish(r.ctx, mod1, "", nil, []byte("after")); err != nil { // stored behind it
					t.Fatal(err)
				}
				if got, want := r.waiting("upstream/mod1"), append(test.want, "after"); !slices.Equal(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		})
	}
}
