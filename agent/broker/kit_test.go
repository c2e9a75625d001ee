package broker_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/broker"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt/mqtttest"
	"github.com/sandpiper-edge/sandpiper/agent/route"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
	"github.com/sandpiper-edge/sandpiper/store"
)

const (
	device = "edge1"
	token  = "good"

	inputsFilter  = "devices/edge1/modules/mod2/inputs/#"
	methodsFilter = "$iothub/methods/POST/#"
	resultsFilter = "$iothub/twin/res/#"
	desiredFilter = "$iothub/twin/PATCH/properties/desired/#"
	events        = "devices/edge1/modules/mod1/messages/events/"
)

var (
	mod1 = iothub.ID{Device: device, Module: "mod1"}
	mod2 = iothub.ID{Device: device, Module: "mod2"}
)

// bubble runs a test on a clock that stands still while anybody works, so that waiting costs nothing and silence can be seen.
func bubble(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, fn)
}

// settings of a rig; the zero value is a broker without routes.
type settings struct {
	dir    string
	routes []string
	auth   func(h mqtt.Hello, user iothub.UserName) (iothub.ID, error)
	http   func(id iothub.ID) error
	origin mqtt.Origin
	now    func() time.Time
	max    int64 // of the store
	tls    *tls.Config

	anyToken bool // HTTPS calls are not judged
}

// rig is a broker on a real store, reached through pipes.
type rig struct {
	t           testing.TB
	ctx         context.Context
	store       *store.Store
	twins       *twin.Keeper
	broker      *broker.Broker
	router      atomic.Pointer[route.Router]
	log         *logbook
	why         atomic.Pointer[error] // the last message that was not stored was not
	mqtt, https *pipes
	stop        func() // idempotent
}

func newRig(t testing.TB, s settings) *rig {
	t.Helper()
	if s.dir == "" {
		s.dir = t.TempDir()
	}
	if s.auth == nil {
		s.auth = func(h mqtt.Hello, user iothub.UserName) (iothub.ID, error) {
			if h.Password != token {
				return iothub.ID{}, iothub.NewError(iothub.CodeToken, "bad token", time.Now())
			}
			return user.ID, nil
		}
	}
	if s.http == nil {
		s.http = func(iothub.ID) error { return nil }
	}
	r := &rig{t: t, log: newLogbook(), mqtt: newPipes(), https: newPipes()}
	ctx, cancel := context.WithCancel(context.Background())
	r.ctx = ctx
	logger := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if r.store, err = store.Open(store.Config{Dir: s.dir, MinFree: 1, MaxBytes: s.max}); err != nil {
		t.Fatal(err)
	}
	if r.twins, err = twin.NewKeeper(r.store.Docs()); err != nil {
		t.Fatal(err)
	}
	r.routes(s.routes...)
	r.broker, err = broker.New(broker.Config{
		Device:       device,
		Authenticate: func(_ context.Context, h mqtt.Hello, user iothub.UserName) (iothub.ID, error) { return s.auth(h, user) },
		AuthorizeHTTP: func(_ context.Context, id iothub.ID, got iothub.Secret) error {
			if got != token && !s.anyToken {
				return iothub.NewError(iothub.CodeToken, "bad token", time.Now())
			}
			return s.http(id)
		},
		Router: r.router.Load, Queue: r.store.Queue(), Docs: r.store.Docs(), Twins: r.twins, Now: s.now, TLS: s.tls, Logger: logger, NotStored: func(err error) { r.why.Store(&err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.store.Run(context.WithoutCancel(ctx)); err != nil {
			t.Errorf("store: %v", err)
		}
	})
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := r.broker.Run(ctx); err != nil {
			t.Errorf("broker: %v", err)
		}
	})
	serving.Go(func() {
		if err := r.broker.Serve(ctx, r.mqtt, r.https, s.origin); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	r.stop = sync.OnceFunc(func() {
		cancel()
		serving.Wait()
		if err := r.store.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
		running.Wait()
	})
	t.Cleanup(r.stop)
	return r
}

// routes puts a table in force.
func (r *rig) routes(texts ...string) {
	r.t.Helper()
	var rules []route.Rule
	for _, text := range texts {
		parsed, err := route.Parse(text)
		if err != nil {
			r.t.Fatal(err)
		}
		rules = append(rules, route.Rule{Name: text, Route: parsed, Priority: route.Lowest})
	}
	r.router.Store(route.NewRouter(rules))
}

func options(id iothub.ID) mqtttest.Options {
	return mqtttest.Options{
		ClientID: id.String(), UserName: "hub.example.net/" + id.String() + "/?api-version=2021-04-12&DeviceClientType=test", Password: token,
	}
}

// connect opens a connection of id as SDKs do: with a durable session.
func (r *rig) connect(id iothub.ID, change ...func(*mqtttest.Options)) *mqtttest.Client {
	r.t.Helper()
	o := options(id)
	for _, fn := range change {
		fn(&o)
	}
	c, err := mqtttest.Dial(r.ctx, r.mqtt.dial, o)
	if err != nil {
		r.t.Fatalf("connect %s: %v", id, err)
	}
	r.t.Cleanup(func() { _ = c.Abort() })
	return c
}

func (r *rig) subscribe(c *mqtttest.Client, filters ...string) {
	r.t.Helper()
	if _, err := c.Subscribe(r.ctx, filters...); err != nil {
		r.t.Fatalf("subscribe %v: %v", filters, err)
	}
	synctest.Wait() // what was granted is switched on behind the SUBACK
}

func (r *rig) publish(c *mqtttest.Client, topic, body string) {
	r.t.Helper()
	if err := c.Publish(r.ctx, topic, []byte(body), 1); err != nil {
		r.t.Fatalf("publish on %s: %v", topic, err)
	}
}

// next waits for a message and acknowledges it.
func (r *rig) next(c *mqtttest.Client) mqtttest.Message {
	r.t.Helper()
	m, err := c.Next(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

// hold waits for a message and does not acknowledge it.
func (r *rig) hold(c *mqtttest.Client) mqtttest.Message {
	r.t.Helper()
	m, ok := <-c.Messages
	if !ok {
		r.t.Fatalf("connection ended: %v", c.Err())
	}
	return m
}

// silent checks that nothing came.
func (r *rig) silent(c *mqtttest.Client) {
	r.t.Helper()
	synctest.Wait()
	select {
	case m, ok := <-c.Messages:
		r.t.Errorf("got a message on %q (open %t), want none", m.Topic, ok)
	default:
	}
}

// waiting returns the bodies that wait in a lane.
func (r *rig) waiting(lane string) (bodies []string) {
	r.t.Helper()
	items, _, err := r.store.Queue().Peek(lane, store.Cursor{}, 4096, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, item := range items {
		m, err := message.Decode(item.Body)
		if err != nil {
			r.t.Fatal(err)
		}
		bodies = append(bodies, string(m.Body))
	}
	return bodies
}

// pipes is a listener without a network.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	mine, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return mine, nil
	case <-p.closed:
		return nil, io.ErrClosedPipe
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// logbook is what was logged.
type logbook struct {
	mu   sync.Mutex
	text strings.Builder
}

func newLogbook() *logbook { return &logbook{} }

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// line returns the first line that holds all words, "" when there is none.
func (l *logbook) line(words ...string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
lines:
	for line := range strings.Lines(l.text.String()) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		return line
	}
	return ""
}

// code returns the code of an *iothub.Error, 0 when err is none.
func code(err error) int {
	var e *iothub.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}
