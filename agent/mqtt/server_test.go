package mqtt_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt/mqtttest"
)

func TestConversation(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	r.present = true
	s := newServer(t, mqtt.Config{Handler: r})
	c := s.connect(t, mqtttest.Options{ClientID: "edge1/filter", UserName: "u", Password: "p", KeepAlive: 180})
	ctx := within(t)
	session := <-r.opened

	if !c.Present {
		t.Error("session-present: got false, want true")
	}
	if got := session.hello; got.UserName != "u" || got.Password.Reveal() != "p" || got.Clean || got.KeepAlive != 3*time.Minute || got.Will != nil {
		t.Errorf("hello: got %+v", got)
	}
	codes, err := c.SubscribeQoS(ctx, 2, "a", "echo", "b")
	if want := []byte{1, 1, 1}; err != nil || !slices.Equal(codes, want) {
		t.Errorf("SUBACK: got %v, %v, want %v", codes, err, want)
	}
	if m, err := c.Next(ctx); err != nil || string(m.Payload) != "after" {
		t.Errorf("after the SUBACK: got %q, %v, want %q", m.Payload, err, "after")
	}
	if err := c.Unsubscribe(ctx, "a", "b"); err != nil {
		t.Error(err)
	}
	if want := []string{"a", "b"}; !slices.Equal(session.unsub, want) {
		t.Errorf("unsubscribed: got %v, want %v", session.unsub, want)
	}
	if err := c.Ping(ctx); err != nil {
		t.Error(err)
	}
	for _, qos := range []byte{0, 1} {
		if err := c.Publish(ctx, "devices/edge1/messages/events/", []byte("x"), qos); err != nil {
			t.Errorf("publish QoS %d: %v", qos, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if got := <-r.closed; got != nil {
		t.Errorf("closed after DISCONNECT: got %v, want nil", got)
	}
}

func TestConnectRefusals(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]mqtt.Code{
		"a client id that is not ours":  mqtt.BadIdentifier,
		"not ready, the SDKs come back": mqtt.Unavailable,
		"a wrong token ends the client": mqtt.NotAuthorized,
		"a user name nobody can read":   mqtt.BadCredentials,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRecorder()
			r.judge = func(context.Context, mqtt.Hello) mqtt.Code { return code }
			s := newServer(t, mqtt.Config{Handler: r})
			_, err := mqtttest.Connect(s.dial(mqtt.Origin{}), mqtttest.Options{ClientID: "c"})
			if got, ok := refusedWith(err); !ok || got != byte(code) {
				t.Errorf("got %v, want refusal with code %d", err, code)
			}
		})
	}
}

func TestHandlerThatPanics(t *testing.T) {
	t.Parallel()
	t.Run("in Connect is not ready", func(t *testing.T) {
		t.Parallel()
		r := newRecorder()
		r.judge = func(context.Context, mqtt.Hello) mqtt.Code { panic("no") }
		s := newServer(t, mqtt.Config{Handler: r})
		_, err := mqtttest.Connect(s.dial(mqtt.Origin{}), mqtttest.Options{ClientID: "c"})
		if got, ok := refusedWith(err); !ok || got != byte(mqtt.Unavailable) {
			t.Errorf("got %v, want refusal with code %d", err, mqtt.Unavailable)
		}
	})
	t.Run("in Publish ends that connection only", func(t *testing.T) {
		t.Parallel()
		r := newRecorder()
		r.publish = func(p *mqtt.Publish) {
			if p.Topic == "bad" {
				panic("no")
			}
			p.Ack()
		}
		s := newServer(t, mqtt.Config{Handler: r})
		bad, good := s.connect(t, mqtttest.Options{ClientID: "bad"}), s.connect(t, mqtttest.Options{ClientID: "good"})
		if err := bad.Publish(within(t), "bad", nil, 1); err == nil {
			t.Error("publish to a panicking handler: acknowledged")
		}
		if got := <-r.closed; !errors.Is(got, mqtt.ErrPanic) {
			t.Errorf("closed: got %v, want %v", got, mqtt.ErrPanic)
		}
		if err := good.Publish(within(t), "good", nil, 1); err != nil {
			t.Errorf("the other connection: %v", err)
		}
	})
}

func TestNewerConnectionWins(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	s := newServer(t, mqtt.Config{Handler: r})
	first := s.connect(t, mqtttest.Options{ClientID: "edge1/a"})
	second := s.connect(t, mqtttest.Options{ClientID: "edge1/a"})
	if got := <-r.closed; !errors.Is(got, mqtt.ErrReplaced) {
		t.Errorf("older closed: got %v, want %v", got, mqtt.ErrReplaced)
	}
	<-first.Ended()
	_ = first.Abort()
	third := s.connect(t, mqtttest.Options{ClientID: "edge1/a"}) // the late end of the first must not have freed the name of the second
	<-second.Ended()
	if err := third.Publish(within(t), "t", nil, 1); err != nil {
		t.Errorf("the newest: %v", err)
	}
	want := []string{"opened edge1/a", "closed edge1/a", "opened edge1/a", "closed edge1/a", "opened edge1/a"}
	if got := r.notes(); !slices.Equal(got, want) {
		t.Errorf("order: got %v, want %v", got, want)
	}
}

func TestNewerWaitsForTheOlderToEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		release := make(chan struct{})
		r.publish = func(*mqtt.Publish) { <-release } // the older is stuck in its handler
		s := newServer(t, mqtt.Config{Handler: r, ConnectTimeout: 10 * time.Second})
		defer s.stop()
		defer close(release)
		older := s.connect(t, mqtttest.Options{ClientID: "c"})
		if err := older.Send("t", nil, 0, 0); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err := mqtttest.Connect(s.dial(mqtt.Origin{}), mqtttest.Options{ClientID: "c"})
		if got, ok := refusedWith(err); !ok || got != byte(mqtt.Unavailable) {
			t.Errorf("got %v, want refusal with code %d", err, mqtt.Unavailable)
		}
		if got, want := time.Since(start), 10*time.Second; got != want {
			t.Errorf("refused after %v, want %v", got, want)
		}
	})
}

func TestKeepAlive(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		seconds uint16
		want    time.Duration
	}{
		"silence of 1.5 times the keep-alive ends it": {seconds: 60, want: 90 * time.Second},
		"a long keep-alive is capped":                 {seconds: 3600, want: 15 * time.Minute},
		"none counts as the cap":                      {seconds: 0, want: 15 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRecorder()
				s := newServer(t, mqtt.Config{Handler: r})
				defer s.stop()
				c := s.connect(t, mqtttest.Options{ClientID: "c", KeepAlive: tc.seconds})
				<-time.After(tc.want - time.Second) // virtual
				if err := c.Ping(t.Context()); err != nil {
					t.Fatalf("ping just in time: %v", err)
				}
				start := time.Now()
				if got := <-r.closed; !errors.Is(got, mqtt.ErrKeepAlive) {
					t.Errorf("closed: got %v, want %v", got, mqtt.ErrKeepAlive)
				}
				if got := time.Since(start); got != tc.want {
					t.Errorf("ended after %v of silence, want %v", got, tc.want)
				}
			})
		})
	}
}

func TestDrippingBytesDoNotKeepAlive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		s := newServer(t, mqtt.Config{Handler: r})
		defer s.stop()
		c := s.connect(t, mqtttest.Options{ClientID: "c", KeepAlive: 10})
		start := time.Now()
		if err := c.Write([]byte{0x30, 100}); err != nil { // a PUBLISH of 100 bytes, one every five seconds
			t.Fatal(err)
		}
		for c.Write([]byte{0}) == nil {
			<-time.After(5 * time.Second) // virtual
		}
		if got := <-r.closed; !errors.Is(got, mqtt.ErrKeepAlive) {
			t.Errorf("closed: got %v, want %v", got, mqtt.ErrKeepAlive)
		}
		if got, most := time.Since(start), 20*time.Second; got > most {
			t.Errorf("lived for %v, want at most %v", got, most)
		}
	})
}

func TestConnectTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, mqtt.Config{Handler: newRecorder()})
		defer s.stop()
		nc := s.dial(mqtt.Origin{})
		start := time.Now()
		if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read: got %v, want %v", err, io.EOF)
		}
		if got, want := time.Since(start), time.Minute; got != want {
			t.Errorf("closed after %v, want %v", got, want)
		}
	})
}

func TestStopEndsEverything(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	s, err := mqtt.New(mqtt.Config{Handler: r})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l, mqtt.Origin{Label: "test"}) }()
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}
	c, err := mqtttest.Dial(t.Context(), dial, mqtttest.Options{ClientID: "c"})
	if err != nil {
		t.Fatal(err)
	}
	silent, err := dial(t.Context()) // never says CONNECT
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	stop()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if got := <-r.closed; !errors.Is(got, mqtt.ErrStopped) {
		t.Errorf("closed: got %v, want %v", got, mqtt.ErrStopped)
	}
	<-c.Ended()
	if _, err := dial(t.Context()); err == nil {
		t.Error("the listener still accepts")
	}
}
