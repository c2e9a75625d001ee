package mqtt_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt/mqtttest"
)

// recorder is a handler that accepts everybody and tells the test what it sees.
type recorder struct {
	judge   func(context.Context, mqtt.Hello) mqtt.Code // nil = accept
	present bool
	publish func(*mqtt.Publish) // nil = acknowledge at once
	opened  chan *recorded
	closed  chan error // nil = not recorded

	mu    sync.Mutex
	trail []string // what happened, in order
}

type recorded struct {
	*recorder
	hello mqtt.Hello
	conn  *mqtt.Conn
	subs  []mqtt.Subscription
	unsub []string
}

func newRecorder() *recorder {
	return &recorder{opened: make(chan *recorded, 64), closed: make(chan error, 64)}
}

func (r *recorder) note(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trail = append(r.trail, what)
}

func (r *recorder) notes() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.trail)
}

func (r *recorder) Connect(ctx context.Context, h mqtt.Hello) (mqtt.Session, mqtt.Code) {
	if r.judge != nil {
		if code := r.judge(ctx, h); code != mqtt.Accepted {
			return nil, code
		}
	}
	return &recorded{recorder: r, hello: h}, mqtt.Accepted
}

func (s *recorded) Resumed() bool { return s.present }

func (s *recorded) Opened(c *mqtt.Conn) {
	s.conn = c
	s.note("opened " + s.hello.ClientID)
	s.opened <- s
}

func (s *recorded) Subscribe(filters []mqtt.Subscription) []byte {
	s.subs = append(s.subs, filters...)
	codes := make([]byte, len(filters))
	for i, f := range filters {
		codes[i] = min(f.QoS, 1)
		if f.Filter == "echo" {
			s.conn.AfterReply(func() { _ = s.conn.Send("echo", []byte("after"), 0, nil) })
		}
	}
	return codes
}

func (s *recorded) Unsubscribe(filters []string) { s.unsub = append(s.unsub, filters...) }

func (s *recorded) Publish(p *mqtt.Publish) {
	if s.publish != nil {
		s.publish(p)
		return
	}
	p.Ack()
}

func (s *recorded) Closed(err error) {
	s.note("closed " + s.hello.ClientID)
	s.closed <- err
}

// server is a Server on in-memory connections.
type server struct {
	*mqtt.Server
	ctx    context.Context
	cancel context.CancelFunc
	conns  sync.WaitGroup
}

func newServer(t *testing.T, cfg mqtt.Config) *server {
	t.Helper()
	s, err := mqtt.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	srv := &server{Server: s, ctx: ctx, cancel: cancel}
	t.Cleanup(srv.stop)
	return srv
}

func (s *server) stop() {
	s.cancel()
	s.conns.Wait()
}

// dial returns the client's end of a connection that the server serves.
func (s *server) dial(origin mqtt.Origin) net.Conn {
	ours, theirs := net.Pipe()
	s.conns.Go(func() { s.ServeConn(s.ctx, theirs, origin) })
	return ours
}

func (s *server) connect(t *testing.T, o mqtttest.Options) *mqtttest.Client {
	t.Helper()
	c, err := mqtttest.Connect(s.dial(mqtt.Origin{}), o)
	if err != nil {
		t.Fatalf("connect %s: %v", o.ClientID, err)
	}
	t.Cleanup(func() { _ = c.Abort() })
	return c
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func refusedWith(err error) (byte, bool) {
	var refused *mqtttest.RefusedError
	if errors.As(err, &refused) {
		return refused.Code, true
	}
	return 0, false
}
