package mqtt_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt/mqtttest"
)

// holder keeps what is published and acknowledges when the test says so.
type holder struct {
	mu   sync.Mutex
	held []*mqtt.Publish
}

func (h *holder) publish(p *mqtt.Publish) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = append(h.held, p)
}

func (h *holder) all() []*mqtt.Publish {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.held)
}

func TestAcksLeaveInPacketOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, h := newRecorder(), &holder{}
		r.publish = h.publish
		s := newServer(t, mqtt.Config{Handler: r})
		defer s.stop()
		c := s.connect(t, mqtttest.Options{ClientID: "c"})
		var acks []<-chan []byte
		for range 4 {
			ack, err := c.Start("t", []byte("x"))
			if err != nil {
				t.Fatal(err)
			}
			acks = append(acks, ack)
		}
		synctest.Wait()
		counted := func() (n int) {
			synctest.Wait()
			for _, ack := range acks {
				n += len(ack)
			}
			return n
		}
		for i, step := range []struct{ ack, want int }{{3, 0}, {1, 0}, {0, 2}, {0, 2}, {2, 4}} {
			h.all()[step.ack].Ack()
			if got := counted(); got != step.want {
				t.Errorf("step %d, publish %d is safe: %d acknowledged, want %d", i, step.ack, got, step.want)
			}
		}
	})
}

// meter counts the writes of one end of a connection.
type meter struct {
	net.Conn
	mu     sync.Mutex
	writes int
}

func (m *meter) Write(b []byte) (int, error) {
	m.mu.Lock()
	m.writes++
	m.mu.Unlock()
	return m.Conn.Write(b)
}

func (m *meter) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes
}

func TestAcksOfABatchShareAWrite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, h := newRecorder(), &holder{}
		r.publish = h.publish
		s := newServer(t, mqtt.Config{Handler: r})
		defer s.stop()
		ours, theirs := net.Pipe()
		m := &meter{Conn: theirs}
		s.conns.Go(func() { s.ServeConn(s.ctx, m, mqtt.Origin{}) })
		c, err := mqtttest.Connect(ours, mqtttest.Options{ClientID: "c"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Abort()
		for range 64 {
			if _, err := c.Start("t", nil); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		before := m.count()
		held := h.all()
		for _, p := range held[1:] {
			p.Ack() // nothing may leave before the first
		}
		held[0].Ack()
		synctest.Wait()
		if got, want := m.count()-before, 1; got != want {
			t.Errorf("writes for 64 acknowledgements: got %d, want %d", got, want)
		}
	})
}

func TestWindowStopsReading(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		cfg     mqtt.Config
		payload int
		want    int // publishes handed over before the socket is not read
	}{
		"at so many unacknowledged publishes": {cfg: mqtt.Config{Window: 4}, payload: 1, want: 4},
		"at so many unacknowledged bytes":     {cfg: mqtt.Config{WindowBytes: 10}, payload: 4, want: 2},
		"one message always passes":           {cfg: mqtt.Config{WindowBytes: 10}, payload: 40, want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r, h := newRecorder(), &holder{}
				r.publish = h.publish
				tc.cfg.Handler = r
				s := newServer(t, tc.cfg)
				defer s.stop()
				c := s.connect(t, mqtttest.Options{ClientID: "c", KeepAlive: 1})
				const total = 12
				go func() {
					for range total {
						if _, err := c.Start("t", make([]byte, tc.payload)); err != nil {
							return
						}
					}
				}()
				<-time.After(time.Hour) // virtual: back-pressure is not silence
				if got := len(h.all()); got != tc.want {
					t.Errorf("handed over: got %d, want %d", got, tc.want)
				}
				for i := range total {
					h.all()[i].Ack()
					synctest.Wait()
				}
				if got := len(h.all()); got != total {
					t.Errorf("handed over in the end: got %d, want %d", got, total)
				}
			})
		})
	}
}

func TestSend(t *testing.T) {
	t.Parallel()
	t.Run("QoS 1 is settled by PUBACK, or by the end", func(t *testing.T) {
		t.Parallel()
		r := newRecorder()
		s := newServer(t, mqtt.Config{Handler: r})
		c := s.connect(t, mqtttest.Options{ClientID: "c"})
		session := <-r.opened
		ctx := within(t)
		settled := make(chan error, 2)
		for _, topic := range []string{"first", "second"} {
			if err := session.conn.Send(topic, []byte("x"), 1, func(err error) { settled <- err }); err != nil {
				t.Fatal(err)
			}
		}
		if m, err := c.Next(ctx); err != nil || m.Topic != "first" || m.ID != 1 || m.Dup || m.Retain {
			t.Errorf("got %+v, %v, want the first with identifier 1", m, err)
		}
		if err := <-settled; err != nil {
			t.Errorf("acknowledged: got %v, want nil", err)
		}
		if m := <-c.Messages; m.Topic != "second" || m.ID != 2 {
			t.Errorf("got %+v, want the second with identifier 2", m)
		}
		_ = c.Abort()
		if err := <-settled; err == nil {
			t.Error("never acknowledged: got nil, want the reason")
		}
		if err := <-r.closed; err == nil {
			t.Error("closed: got nil, want the reason")
		}
		if err := session.conn.Send("t", nil, 1, nil); !errors.Is(err, mqtt.ErrClosed) {
			t.Errorf("send after the end: got %v, want %v", err, mqtt.ErrClosed)
		}
	})
	t.Run("a client that takes nothing fills its outbox, then its time is up", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			s := newServer(t, mqtt.Config{Handler: r, Outbox: 10_000})
			defer s.stop()
			nc := s.dial(mqtt.Origin{})
			if _, err := nc.Write(connectPacket("c")); err != nil {
				t.Fatal(err)
			}
			if _, err := nc.Read(make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			session := <-r.opened
			var sent int
			for session.conn.Send("t", make([]byte, 1000), 0, nil) == nil {
				if sent++; sent == 1 {
					synctest.Wait() // the first is with the writer, the outbox is empty again
				}
			}
			if want := 10; sent != want {
				t.Errorf("queued: got %d, want %d", sent, want)
			}
			start := time.Now()
			if got := <-r.closed; got == nil {
				t.Error("closed: got nil, want the reason")
			}
			if got, want := time.Since(start), 61*time.Second; got > want {
				t.Errorf("ended after %v, want at most %v", got, want)
			}
		})
	})
	t.Run("identifiers in flight are not used twice, and zero never", func(t *testing.T) {
		t.Parallel()
		r := newRecorder()
		s := newServer(t, mqtt.Config{Handler: r})
		c := s.connect(t, mqtttest.Options{ClientID: "c"})
		session := <-r.opened
		ctx := within(t)
		if err := session.conn.Send("stays", nil, 1, nil); err != nil {
			t.Fatal(err)
		}
		stays := <-c.Messages
		done := make(chan error, 1)
		for range 1<<16 + 10 {
			if err := session.conn.Send("t", nil, 1, func(err error) { done <- err }); err != nil {
				t.Fatal(err)
			}
			m, err := c.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if m.ID == 0 || m.ID == stays.ID {
				t.Fatalf("identifier %d while %d is in flight", m.ID, stays.ID)
			}
			<-done
		}
	})
	t.Run("what MQTT cannot say is refused", func(t *testing.T) {
		t.Parallel()
		r := newRecorder()
		s := newServer(t, mqtt.Config{Handler: r})
		s.connect(t, mqtttest.Options{ClientID: "c"})
		session := <-r.opened
		if err := session.conn.Send(string(bytes.Repeat([]byte("t"), 1<<16)), nil, 0, nil); err == nil {
			t.Error("a topic of 64 KiB: accepted")
		}
		if err := session.conn.Send("t", nil, 2, nil); err == nil {
			t.Error("QoS 2: accepted")
		}
	})
}

func TestPingsOfADeafClientAreNotKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, mqtt.Config{Handler: newRecorder(), Outbox: 100})
		defer s.stop()
		nc := s.dial(mqtt.Origin{})
		if _, err := nc.Write(connectPacket("c")); err != nil {
			t.Fatal(err)
		}
		var pings int
		for ; pings < 10_000; pings++ {
			_ = nc.SetWriteDeadline(time.Now().Add(time.Second))
			if _, err := nc.Write([]byte{0xc0, 0}); err != nil {
				break
			}
		}
		if most := 8192; pings > most { // what fits in the outbox and in the read buffer
			t.Errorf("%d pings taken from a client that reads no answer, want at most %d", pings, most)
		}
		_ = nc.Close()
	})
}

// connectPacket is the smallest CONNECT.
func connectPacket(id string) []byte {
	p := []byte{0x10, byte(12 + len(id)), 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0, 0, byte(len(id))}
	return append(p, id...)
}

func TestCloseFlushesWhatIsQueued(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	s := newServer(t, mqtt.Config{Handler: r})
	c := s.connect(t, mqtttest.Options{ClientID: "c"})
	session := <-r.opened
	_ = session.conn.Send("last words", nil, 0, nil)
	reason := errors.New("token expired")
	session.conn.Close(reason)
	if m, err := c.Next(within(t)); err != nil || m.Topic != "last words" {
		t.Errorf("got %+v, %v, want the last words", m, err)
	}
	if got := <-r.closed; !errors.Is(got, reason) {
		t.Errorf("closed: got %v, want %v", got, reason)
	}
}

func TestNothingIsHandedOverAfterClose(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	seen := make(chan string, 10)
	session := make(chan *recorded, 1)
	r.publish = func(p *mqtt.Publish) {
		seen <- p.Topic
		s := <-session
		s.conn.Close(nil)
		session <- s
	}
	s := newServer(t, mqtt.Config{Handler: r})
	c := s.connect(t, mqtttest.Options{ClientID: "c"})
	session <- <-r.opened
	_ = c.Write([]byte("\x30\x05\x00\x01axx\x30\x05\x00\x01bxx\x30\x05\x00\x01cxx")) // one segment
	<-r.closed
	if got, want := len(seen), 1; got != want {
		t.Errorf("handed over: got %d, want %d", got, want)
	}
}

func TestWillIsHandedOver(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	hello := make(chan mqtt.Hello, 1)
	r.judge = func(_ context.Context, h mqtt.Hello) mqtt.Code {
		hello <- h
		return mqtt.Accepted
	}
	s := newServer(t, mqtt.Config{Handler: r})
	s.connect(t, mqtttest.Options{ClientID: "c", WillTopic: "devices/c/messages/events/", WillPayload: []byte("bye")})
	if got := (<-hello).Will; got == nil || got.Topic != "devices/c/messages/events/" || string(got.Payload) != "bye" {
		t.Errorf("will: got %+v", got)
	}
}
