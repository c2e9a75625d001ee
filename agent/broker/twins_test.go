package broker_test

import (
	"encoding/json"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt/mqtttest"
)

// desire changes desired properties as a deployment does.
func (r *rig) desire(id iothub.ID, section string) {
	r.t.Helper()
	if _, err := r.twins.SetDesired(r.ctx, id, json.RawMessage(section)); err != nil {
		r.t.Fatal(err)
	}
}

// getTwin asks for the twin at quality 0, as Node does.
func (r *rig) getTwin(c *mqtttest.Client, rid string) mqtttest.Message {
	r.t.Helper()
	if err := c.Publish(r.ctx, "$iothub/twin/GET/?$rid="+rid, []byte(" "), 0); err != nil {
		r.t.Fatal(err)
	}
	return r.next(c)
}

// sameJSON compares documents.
func sameJSON(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal(got, &g); err != nil {
		t.Errorf("%s: got %q: %v", what, got, err)
		return
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(g)
	b, _ := json.Marshal(w)
	if string(a) != string(b) {
		t.Errorf("%s: got %s, want %s", what, a, b)
	}
}

func TestTwinGetIsAnsweredWithoutASubscription(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{})
		r.desire(mod1, `{"a":1}`)
		c, other := r.connect(mod1), r.connect(mod2)
		r.subscribe(other, resultsFilter)
		m := r.getTwin(c, "Some-Rid")
		if got, want := m.Topic, "$iothub/twin/res/200/?$rid=Some-Rid"; got != want {
			t.Errorf("got topic %s, want %s", got, want)
		}
		sameJSON(t, "twin", m.Payload, `{"desired":{"a":1,"$version":2},"reported":{"$version":1}}`)
		r.silent(other)
	})
}

func TestReportedPatches(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		patch  string
		status int
		code   int
	}{
		"accepted":                {`{"a":1}`, 204, 0},
		"no JSON":                 {`{`, 400, iothub.CodeInvalid},
		"no object":               {`[]`, 400, iothub.CodeInvalid},
		"empty":                   {``, 400, iothub.CodeInvalid},
		"too deep":                {strings.Repeat(`{"a":`, 12) + "1" + strings.Repeat("}", 12), 400, iothub.CodeInvalid},
		"number above the limit":  {`{"a":4503599627370496}`, 400, iothub.CodeInvalid},
		"section above the limit": {`{"a":"` + strings.Repeat("x", 4096) + `","b":"` + strings.Repeat("x", 5000) + `"}`, 400, iothub.CodeInvalid},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t, settings{})
				c := r.connect(mod1)
				if err := c.Publish(r.ctx, "$iothub/twin/PATCH/properties/reported/?$rid=7", []byte(test.patch), 1); err != nil {
					t.Fatal(err) // at quality 1, as Python: a PUBACK whatever the answer
				}
				m := r.next(c)
				d, err := iothub.ParseDelivery(m.Topic)
				if err != nil {
					t.Fatal(err)
				}
				if d.Status != test.status || d.RequestID != "7" {
					t.Errorf("got status %d of %s, want %d of 7", d.Status, d.RequestID, test.status)
				}
				if test.code == 0 {
					if d.Version != r.twins.Snapshot(mod1).ReportedVersion || d.Version == 0 || len(m.Payload) != 0 {
						t.Errorf("got version %d and body %q, want the section's and none", d.Version, m.Payload)
					}
					return
				}
				var body struct{ ErrorCode int }
				if err := json.Unmarshal(m.Payload, &body); err != nil || body.ErrorCode != test.code {
					t.Errorf("got body %s (%v), want errorCode %d", m.Payload, err, test.code)
				}
			})
		})
	}
}

func TestAReportedPatchThatIsNotStoredIsRefusedWithACode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{})
		c := r.connect(mod1)
		if err := r.store.Close(); err != nil {
			t.Fatal(err)
		}
		r.publish(c, "$iothub/twin/PATCH/properties/reported/?$rid=7", `{"a":1}`)
		m := r.next(c)
		if got := iothub.ParseError(500, m.Payload).Code; !strings.Contains(m.Topic, "/res/500/") || got != iothub.CodeInternal {
			t.Errorf("got %s with code %d, want 500 with %d", m.Topic, got, iothub.CodeInternal)
		}
	})
}

func TestDesiredChangesArriveLiveAndAfterAReconnect(t *testing.T) {
	t.Parallel()
	for name, qos := range map[string]byte{"quality 0, as Node": 0, "quality 1, as Python": 1} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				dir := t.TempDir()
				r := newRig(t, settings{dir: dir})
				r.desire(mod1, `{"a":1}`)
				c := r.connect(mod1)
				r.getTwin(c, "1")
				r.desire(mod1, `{"a":2}`) // between GET and SUBSCRIBE
				if _, err := c.SubscribeQoS(r.ctx, qos, desiredFilter); err != nil {
					t.Fatal(err)
				}
				expect := func(what, topic, patch string) {
					t.Helper()
					m := r.next(c)
					if m.Topic != topic || m.QoS != qos {
						t.Errorf("%s: got topic %s at quality %d, want %s at %d", what, m.Topic, m.QoS, topic, qos)
					}
					sameJSON(t, what, m.Payload, patch)
				}
				const topic = "$iothub/twin/PATCH/properties/desired/?$version="
				expect("missed", topic+"3", `{"a":2,"$version":3}`)
				r.desire(mod1, `{"b":{"c":1}}`)
				expect("live", topic+"4", `{"a":null,"b":{"c":1},"$version":4}`)
				synctest.Wait() // until it is noted that the client has it, and below until its DISCONNECT was read: else it is sent again
				_ = c.Close()
				synctest.Wait()

				c = r.connect(mod1)
				r.silent(c) // nothing moved
				_ = c.Close()
				r.desire(mod1, `{"b":{"c":2}}`)
				r.desire(mod1, `{"b":{"c":3}}`)
				c = r.connect(mod1)
				expect("after a reconnect", topic+"6", `{"b":{"c":3},"$version":6}`)
				r.silent(c)
				_ = c.Close()
				r.desire(mod1, `{}`)
				r.stop()

				r = newRig(t, settings{dir: dir})
				c = r.connect(mod1)
				expect("at a new agent", topic+"7", `{"b":null,"$version":7}`)
				r.silent(c)
			})
		})
	}
}

func TestADesiredPatchThatWasNotAcknowledgedComesAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{})
		r.desire(mod1, `{"a":1}`)
		c := r.connect(mod1)
		r.subscribe(c, desiredFilter)
		r.desire(mod1, `{"a":2}`)
		r.hold(c)
		_ = c.Abort()
		c = r.connect(mod1)
		sameJSON(t, "again", r.next(c).Payload, `{"a":2,"$version":3}`)
	})
}

// dying is a link that from some moment on loses what comes, as one whose other end has lost its power.
type dying struct {
	net.Conn
	dead atomic.Bool
}

func (d *dying) Read(b []byte) (int, error) {
	for {
		n, err := d.Conn.Read(b)
		if err != nil || !d.dead.Load() {
			return n, err
		}
	}
}

func TestADesiredPatchLostWithItsConnectionComesAgain(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		alive time.Duration // of the link after the first patch
		want  string
	}{
		"all that was sent while the link may have been dead": {0, `{"a":3,"b":1,"$version":4}`},
		"nothing that is older":                               {time.Minute, `{"b":1,"$version":4}`},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t, settings{})
				r.desire(mod1, `{"a":1}`)
				nc, err := r.mqtt.dial(r.ctx)
				if err != nil {
					t.Fatal(err)
				}
				link := &dying{Conn: nc}
				o := options(mod1)
				o.KeepAlive = 180
				c, err := mqtttest.Connect(link, o)
				if err != nil {
					t.Fatal(err)
				}
				r.getTwin(c, "1")
				if _, err := c.SubscribeQoS(r.ctx, 0, desiredFilter); err != nil {
					t.Fatal(err)
				}
				live := func(d time.Duration) {
					for range int(d / time.Minute) {
						<-time.After(time.Minute)
						if err := c.Ping(r.ctx); err != nil {
							t.Fatal(err)
						}
					}
				}
				live(time.Hour)
				r.desire(mod1, `{"a":3}`)
				r.next(c)
				live(test.alive)
				link.dead.Store(true)
				r.desire(mod1, `{"a":3,"b":1}`)
				<-time.After(time.Hour) // of silence: the connection ends

				m := r.next(r.connect(mod1))
				sameJSON(t, "after the reconnect", m.Payload, test.want)
				_ = c.Abort()
			})
		})
	}
}

func TestATwinMadeAnewIsShownAlthoughItsVersionIsLower(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{})
		for _, section := range []string{`{"a":1}`, `{"a":2}`, `{"a":3}`} {
			r.desire(mod1, section)
		}
		c := r.connect(mod1)
		r.subscribe(c, desiredFilter)
		if err := r.twins.Replace(r.ctx, mod1, json.RawMessage(`{"desired":{"b":1,"$version":1},"reported":{"$version":1}}`)); err != nil {
			t.Fatal(err)
		}
		m := r.next(c)
		if got, want := m.Topic, "$iothub/twin/PATCH/properties/desired/?$version=1"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		_ = c.Close()
		c = r.connect(mod1)
		r.silent(c) // it has it
		r.desire(mod1, `{"b":2}`)
		sameJSON(t, "next", r.next(c).Payload, `{"b":2,"$version":2}`)
	})
}

func TestAClientNeverGoesBackToAnOlderTwin(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{})
		r.desire(mod1, `{"n":0}`)
		c := r.connect(mod1)
		r.subscribe(c, desiredFilter)
		const changes = 50
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range changes {
				r.desire(mod1, `{"n":`+string(rune('0'+i%10))+`}`)
			}
		}()
		for range changes {
			if err := c.Publish(r.ctx, "$iothub/twin/GET/?$rid=1", nil, 0); err != nil {
				t.Fatal(err)
			}
		}
		<-done
		var versions []int64
		for len(versions) == 0 || versions[len(versions)-1] <= changes {
			m := r.next(c)
			var body struct {
				Version int64 `json:"$version"`
				Desired struct {
					Version int64 `json:"$version"`
				} `json:"desired"`
			}
			if err := json.Unmarshal(m.Payload, &body); err != nil {
				t.Fatal(err)
			}
			versions = append(versions, max(body.Version, body.Desired.Version))
		}
		if !slices.IsSorted(versions) {
			t.Errorf("got versions %v, want them never to fall", versions)
		}
	})
}
