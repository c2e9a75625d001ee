package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
	"github.com/sandpiper-edge/sandpiper/agent/route"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
	"github.com/sandpiper-edge/sandpiper/store"
)

// Config of a Broker.
type Config struct {
	Device string // this device's id

	// Authenticate judges a CONNECT. An *iothub.Error is a definite no (CONNACK 5); any other error means not now (CONNACK 3), after
	// which SDKs come back. It logs its refusals itself.
	Authenticate func(ctx context.Context, h mqtt.Hello, user iothub.UserName) (iothub.ID, error)
	// AuthorizeHTTP judges the token of an HTTPS call that says it comes from id.
	AuthorizeHTTP func(ctx context.Context, id iothub.ID, token iothub.Secret) error

	Router func() *route.Router // the table in force; may return nil: nothing is routed
	Queue  *store.Queue
	Docs   *store.Docs // sessions
	Twins  *twin.Keeper
	TLS    *tls.Config // of the endpoints; nil = listeners are plain or TLS already

	// Put hands a record to the queue at the durability that its routes ask for and returns the one it gets; done is called once, with nil
	// when it is that safe. Default: every record is strict.
	Put    func(rec store.Record, asked route.Durability, done func(error)) route.Durability
	MaxAge time.Duration                 // of a message, whatever its route says; 0 = no bound
	Stored func(id iothub.ID, bytes int) // called for every message of an identity once it is stored; must be quick; nil = nobody counts

	NotStored func(err error) // called for every message that could not be stored; must be quick; nil = nobody asks why

	Crowded func(id iothub.ID) // told when an identity, zero = anybody, holds as many connections as it may; nil = not of interest

	AckTimeout time.Duration    // for a module's PUBACK of an input; default 30 s, as edgeHub's MessageAckTimeoutSecs
	Now        func() time.Time // device clock; default time.Now
	// Untimed is asked for every message: true while the device does not know the time, with the boot and how long ago it began. The
	// time of the message is then found later. Default: the time is known.
	Untimed func() (boot string, uptime time.Duration, untimed bool)
	Logger  *slog.Logger // default: discard
}

func (c Config) withDefaults() Config {
	if c.AckTimeout == 0 {
		c.AckTimeout = 30 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Put == nil {
		c.Put = func(rec store.Record, _ route.Durability, done func(error)) route.Durability {
			c.Queue.Enqueue(rec, done)
			return route.Durability{}
		}
	}
	if c.Untimed == nil {
		c.Untimed = func() (string, time.Duration, bool) { return "", 0, false }
	}
	if c.NotStored == nil {
		c.NotStored = func(error) {}
	}
	if c.Crowded == nil {
		c.Crowded = func(iothub.ID) {}
	}
	if c.Stored == nil {
		c.Stored = func(iothub.ID, int) {}
	}
	if c.Router == nil {
		c.Router = func() *route.Router { return nil }
	}
	return c
}

// Broker serves modules and downstream devices. Its methods may be called by any goroutine.
type Broker struct {
	cfg    Config
	server *mqtt.Server

	pumps sync.WaitGroup
	lanes sync.Map // string → nothing: input lanes that have a pump, or will when Run begins; read for every message

	mu       sync.Mutex      // guards what follows
	life     context.Context //nolint:containedctx // Run's: pumps are started by whoever fills a lane first, and end with it
	stopped  bool            // Run waits for its pumps: no more of them
	clients  map[iothub.ID]*client
	sessions map[iothub.ID]*session
	seen     map[iothub.ID]Client
	arrived  chan struct{} // closed and replaced whenever somebody becomes able to take calls
	handlers map[iothub.ID]handler
	boxes    map[string]*mailbox // by module
	calls    mqtt.Calls          // direct methods that wait for an answer
	onChange []func()
}

// New builds a broker. It registers with the twins, so it is made before they are used; nothing runs before Run and Serve.
func New(cfg Config) (*Broker, error) {
	cfg = cfg.withDefaults()
	switch {
	case cfg.Authenticate == nil || cfg.AuthorizeHTTP == nil:
		return nil, errors.New("new broker: no one to authenticate")
	case cfg.Queue == nil || cfg.Docs == nil || cfg.Twins == nil:
		return nil, errors.New("new broker: no store")
	}
	b := &Broker{
		cfg: cfg, arrived: make(chan struct{}),
		clients: map[iothub.ID]*client{}, sessions: map[iothub.ID]*session{}, seen: map[iothub.ID]Client{}, handlers: map[iothub.ID]handler{},
		boxes: map[string]*mailbox{},
	}
	var err error
	if b.server, err = mqtt.New(mqtt.Config{Handler: b, TLS: cfg.TLS, Crowded: func(o mqtt.Origin) { cfg.Crowded(o.ID) }, Logger: cfg.Logger}); err != nil {
		return nil, err
	}
	cfg.Twins.OnDesired(b.desiredChanged)
	cfg.Twins.OnReported(b.reportedChanged)
	return b, nil
}

// recheck is how often tokens of connections on shared listeners are looked at again.
const recheck = 5 * time.Minute

// Run pumps input lanes until ctx ends, and returns when every pump has.
func (b *Broker) Run(ctx context.Context) error {
	b.mu.Lock()
	b.life = ctx
	for _, s := range b.cfg.Queue.Stats() {
		if _, _, ok := parseInputLane(s.Sink); ok {
			b.lanes.Store(s.Sink, struct{}{})
		}
	}
	b.lanes.Range(func(lane, _ any) bool {
		b.startPumpLocked(lane.(string))
		return true
	})
	b.mu.Unlock()
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.recheckTokens()
		case <-ctx.Done():
			b.mu.Lock()
			b.stopped = true
			b.mu.Unlock()
			b.pumps.Wait()
			return nil
		}
	}
}

// Serve accepts MQTT connections from one listener and WebSocket and HTTPS from the other until ctx ends, and returns when every
// connection has ended. Either may be nil. origin says who alone may speak there; zero = anybody of this device.
func (b *Broker) Serve(ctx context.Context, mqttListener, httpsListener net.Listener, origin mqtt.Origin) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, 2)
	n := 0
	if mqttListener != nil {
		n++
		go func() { errs <- b.server.Serve(ctx, mqttListener, origin) }()
	}
	if httpsListener != nil {
		n++
		go func() { errs <- b.serveHTTPS(ctx, httpsListener, origin) }()
	}
	var all error
	for range n {
		all = errors.Join(all, <-errs)
		cancel() // one door that closes closes the other: they belong to one module
	}
	return all
}

// recheckTokens ends connections on shared listeners whose token has run out. On a listener that belongs to one module the
// listener says who speaks, and a clock that jumped must not end it.
func (b *Broker) recheckTokens() {
	now := b.cfg.Now()
	b.mu.Lock()
	var stale []*client
	for _, c := range b.clients {
		if !c.hello.Origin.ID.IsZero() || c.hello.Password == "" {
			continue
		}
		if token, err := iothub.ParseToken(c.hello.Password); err == nil && token.Expired(now) {
			stale = append(stale, c)
		}
	}
	b.mu.Unlock()
	for _, c := range stale {
		b.cfg.Logger.Info("token has run out, connection closed", "identity", c.id.String())
		c.close(iothub.NewError(iothub.CodeToken, "token has run out", now))
	}
}
