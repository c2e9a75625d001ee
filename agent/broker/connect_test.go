package broker_test

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/broker"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt/mqtttest"
)

func TestConnectIsAnsweredByWhoIsToBlame(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*mqtttest.Options)
		auth   func(mqtt.Hello, iothub.UserName) (iothub.ID, error)
		doc    string // the stored session
		want   byte
	}{
		"good": {want: 0},
		"identities not loaded yet": {
			auth: func(mqtt.Hello, iothub.UserName) (iothub.ID, error) { return iothub.ID{}, errors.New("not loaded") }, want: 3,
		},
		"session of a newer agent":        {doc: `{"v":2,"filters":[],"desired":0}`, want: 3},
		"session that cannot be read":     {doc: `{"v":`, want: 0},
		"session with a filter of none":   {doc: `{"v":1,"filters":[{"filter":"x","qos":1}],"desired":0}`, want: 0},
		"user name of no known form":      {change: func(o *mqtttest.Options) { o.UserName = "me" }, want: 4},
		"user name without api-version":   {change: func(o *mqtttest.Options) { o.UserName = "hub.example.net/edge1/mod1/?x=y" }, want: 4},
		"no user name":                    {change: func(o *mqtttest.Options) { o.UserName, o.Password = "", "" }, want: 4},
		"bad token":                       {change: func(o *mqtttest.Options) { o.Password = "bad" }, want: 5},
		"client id of another module":     {change: func(o *mqtttest.Options) { o.ClientID = mod2.String() }, want: 5},
		"client id in another case":       {change: func(o *mqtttest.Options) { o.ClientID = "Edge1/mod1" }, want: 5},
		"client id in a percent spelling": {change: func(o *mqtttest.Options) { o.ClientID = "edge1%2Fmod1" }, want: 5},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t, settings{auth: test.auth})
				if test.doc != "" {
					if err := r.store.Docs().Put(r.ctx, "session/edge1/mod1", []byte(test.doc)); err != nil {
						t.Fatal(err)
					}
				}
				o := options(mod1)
				if test.change != nil {
					test.change(&o)
				}
				c, err := mqtttest.Dial(r.ctx, r.mqtt.dial, o)
				if err == nil {
					defer func() { _ = c.Close() }()
				}
				var got byte
				var refused *mqtttest.RefusedError
				if errors.As(err, &refused) {
					got, err = refused.Code, nil
				}
				if err != nil {
					t.Fatal(err)
				}
				if got != test.want {
					t.Errorf("got CONNACK %d, want %d", got, test.want)
				}
			})
		})
	}
}

func TestANewerConnectionTakesTheOldOnesPlace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: []string{`FROM /messages/modules/mod1/* INTO BrokeredEndpoint("/modules/mod2/inputs/in1")`}})
		var changes atomic.Int32
		r.broker.OnClients(func() { changes.Add(1) })
		older := r.connect(mod2)
		r.subscribe(older, inputsFilter, methodsFilter)
		newer := r.connect(mod2)
		<-older.Ended()
		synctest.Wait()
		r.publish(r.connect(mod1), events, "x")
		if got := string(r.next(newer).Payload); got != "x" {
			t.Errorf("got input %q at the newer connection, want x", got)
		}
		got := r.broker.Clients()
		if len(got) != 2 || got[0].ID != mod1 || got[1].ID != mod2 || !got[0].Connected || !got[1].Connected {
			t.Errorf("got clients %+v, want mod1 and mod2, connected", got)
		}
		if changes.Load() == 0 {
			t.Error("got no call of OnClients, want some")
		}
	})
}

func TestDropLeavesNothingOfAnIdentity(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: []string{`FROM /messages/modules/mod1/* INTO BrokeredEndpoint("/modules/mod2/inputs/in1")`}})
		c := r.connect(mod2)
		r.subscribe(c, methodsFilter)
		sender := r.connect(mod1)
		r.publish(sender, events, "waits")
		if err := r.broker.Drop(r.ctx, mod2); err != nil {
			t.Fatal(err)
		}
		<-c.Ended()
		synctest.Wait()
		if got := r.broker.Clients(); len(got) != 1 || got[0].ID != mod1 {
			t.Errorf("got clients %+v, want mod1 alone", got)
		}
		if got, err := r.store.Docs().Keys("session/edge1/mod2"); err != nil || len(got) != 0 {
			t.Errorf("got session documents %v, %v, want none", got, err)
		}
		if got := r.waiting("modules/mod2/inputs/in1"); len(got) != 0 {
			t.Errorf("got messages %q in its lane, want none", got)
		}
		again := r.connect(mod2) // it was deployed again
		if again.Present {
			t.Error("got session-present, want a new session")
		}
		r.subscribe(again, inputsFilter)
		r.publish(sender, events, "new")
		if got := string(r.next(again).Payload); got != "new" {
			t.Errorf("got input %q, want new", got)
		}
	})
}

func TestATokenThatRunsOutEndsOnlySharedConnections(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		origin mqtt.Origin
		ends   bool
	}{
		"listener of anybody":     {ends: true},
		"listener of this module": {origin: mqtt.Origin{ID: mod1}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				anybody := func(_ mqtt.Hello, user iothub.UserName) (iothub.ID, error) { return user.ID, nil }
				r := newRig(t, settings{auth: anybody, origin: test.origin})
				minted, err := iothub.MintToken(mod1.Resource("hub.example.net"), "", time.Now().Add(time.Minute), iothub.NewKey().Signer())
				if err != nil {
					t.Fatal(err)
				}
				c := r.connect(mod1, func(o *mqtttest.Options) { o.Password = string(minted) })
				pings := time.NewTicker(time.Minute)
				defer pings.Stop()
				for range 14 {
					<-pings.C
					_ = c.Ping(r.ctx)
				}
				synctest.Wait()
				select {
				case <-c.Ended():
					if !test.ends {
						t.Errorf("connection ended (%v), want it open", c.Err())
					}
				default:
					if test.ends {
						t.Error("connection is open, want it ended")
					}
				}
			})
		})
	}
}

func TestNewWantsWhatItCannotDoWithout(t *testing.T) {
	t.Parallel()
	if _, err := broker.New(broker.Config{}); err == nil {
		t.Error("got no error without Authenticate, want one")
	}
}

func TestClientsAreListedInOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{})
		for _, id := range []iothub.ID{mod2, {Device: device}, mod1} {
			_ = r.connect(id).Close()
		}
		synctest.Wait()
		got := r.broker.Clients()
		if !slices.IsSortedFunc(got, func(a, b broker.Client) int { return slices.Compare([]byte(a.ID.String()), []byte(b.ID.String())) }) || len(got) != 3 {
			t.Errorf("got %+v, want three in order", got)
		}
		for _, c := range got {
			if c.Connected {
				t.Errorf("got %s connected, want gone", c.ID)
			}
		}
	})
}
