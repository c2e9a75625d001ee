package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sandpiper-edge/sandpiper/agent/hub/state"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
)

// Config of a Hub.
type Config struct {
	Dir     string                                                                   // everything durable; made when missing
	Host    string                                                                   // the hub's host name; default localhost.localdomain. Its first label names the hub's state
	MQTT    string                                                                   // address for MQTT over TLS; default :8883
	HTTPS   string                                                                   // address for REST, MQTT over WebSocket and bundles; default :443
	Bundles string                                                                   // directory served at /bundles/; empty = none
	Listen  func(ctx context.Context, network, address string) (net.Listener, error) // default net.ListenConfig.Listen
	Now     func() time.Time                                                         // default time.Now
	Logger  *slog.Logger                                                             // default: discard
}

func (c Config) withDefaults() Config {
	if c.Host == "" {
		c.Host = "localhost.localdomain"
	}
	if c.MQTT == "" {
		c.MQTT = ":8883"
	}
	if c.HTTPS == "" {
		c.HTTPS = ":443"
	}
	if c.Listen == nil {
		c.Listen = new(net.ListenConfig).Listen
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Hub is one hub process. Build it with New, run it once with Run.
type Hub struct {
	cfg      Config
	state    *state.State
	docs     documents
	registry registry
	twins    twins
	events   *eventLog
	gate     *gate
	tls      *tls.Config
	server   *mqtt.Server
	mqttL    net.Listener
	httpsL   net.Listener
	bundles  *os.Root       // nil: none
	sockets  sync.WaitGroup // MQTT connections over WebSocket
	started  chan struct{}  // closed when all is served
	imports  sync.Mutex     // held while an export is taken

	mu      sync.Mutex // guards what follows
	clients map[iothub.ID]*client
	seen    map[iothub.ID]connection
	arrived chan struct{} // closed and replaced when somebody becomes able to take calls
	calls   mqtt.Calls
}

// New opens the state, makes what a first start lacks (authority, certificate, policies) and opens the listeners. Run serves them.
func New(ctx context.Context, cfg Config) (h *Hub, err error) {
	cfg = cfg.withDefaults()
	name, err := state.HubName(cfg.Host)
	if err != nil {
		return nil, fmt.Errorf("host %q: %w", cfg.Host, err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	h = &Hub{
		cfg: cfg, started: make(chan struct{}), clients: map[iothub.ID]*client{}, seen: map[iothub.ID]connection{}, arrived: make(chan struct{}),
	}
	if h.state, err = state.Open(ctx, state.Config{Hub: name, Dir: filepath.Join(cfg.Dir, "state"), Logger: cfg.Logger}); err != nil {
		return nil, err
	}
	made := h
	defer func() {
		if err != nil {
			err = errors.Join(err, made.close())
		}
	}()
	certificate, err := loadCertificate(cfg.Dir, []string{cfg.Host, "localhost", "127.0.0.1", "::1"})
	if err != nil {
		return nil, err
	}
	h.tls = &tls.Config{
		Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12,
		ClientAuth: tls.RequestClientCert, // a device may prove itself by the thumbprint of its certificate
	}
	h.docs = documents{docs: h.state.Docs(), now: cfg.Now}
	h.events = &eventLog{log: h.state.Log(), logger: cfg.Logger}
	h.registry = registry{documents: h.docs, log: h.events}
	h.twins = twins{documents: h.docs, log: h.events}
	h.gate = &gate{documents: h.docs, hosts: map[string]bool{strings.ToLower(cfg.Host): true, "localhost": true, "127.0.0.1": true, "::1": true}}
	if h.server, err = mqtt.New(mqtt.Config{Handler: h, TLS: h.tls, Logger: cfg.Logger, MaxConns: 65536}); err != nil {
		return nil, err
	}
	if cfg.Bundles != "" {
		if h.bundles, err = os.OpenRoot(cfg.Bundles); err != nil {
			return nil, fmt.Errorf("bundles: %w", err)
		}
	}
	if h.mqttL, err = cfg.Listen(ctx, "tcp", cfg.MQTT); err != nil {
		return nil, fmt.Errorf("%w; choose another with --mqtt", err)
	}
	if h.httpsL, err = cfg.Listen(ctx, "tcp", cfg.HTTPS); err != nil {
		return nil, fmt.Errorf("%w; choose another with --https", err)
	}
	return h, nil
}

// close gives up what New took.
func (h *Hub) close() error {
	var errs []error
	for _, l := range []net.Listener{h.mqttL, h.httpsL} {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(append(errs, h.closeStores())...)
}

// closeStores gives up what is on disk.
func (h *Hub) closeStores() error {
	err := h.state.Close()
	if h.bundles != nil {
		err = errors.Join(err, h.bundles.Close())
	}
	return err
}

// MQTTAddr is where MQTT is served.
func (h *Hub) MQTTAddr() string { return h.mqttL.Addr().String() }

// HTTPSAddr is where REST is served.
func (h *Hub) HTTPSAddr() string { return h.httpsL.Addr().String() }

// Host is the hub's host name.
func (h *Hub) Host() string { return h.cfg.Host }

// Started is closed when Run serves devices and operators.
func (h *Hub) Started() <-chan struct{} { return h.started }

// AddressFile is where the address of the REST interface is written, for local commands.
func AddressFile(dir string) string { return filepath.Join(dir, "https.address") }

// Run serves until ctx ends; then connections end, what they sent is stored, and the state is closed. It returns nil.
func (h *Hub) Run(ctx context.Context) error {
	// The committers outlive the connections, so that what was taken is stored.
	committing, stopCommitting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopCommitting()
	committed := make(chan error, 1)
	go func() { committed <- h.state.Run(committing) }()

	err := h.prepare(ctx)
	if err == nil {
		g, ctx := errgroup.WithContext(ctx)
		for shard := range h.state.Docs().Shards() {
			g.Go(func() error { return h.watch(ctx, shard) })
		}
		g.Go(func() error { return h.server.Serve(ctx, h.mqttL, mqtt.Origin{Label: "mqtt"}) })
		g.Go(func() error { return h.serveHTTPS(ctx) })
		close(h.started)
		err = g.Wait()
	}
	stopCommitting()
	err = errors.Join(err, <-committed, h.closeStores())
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// prepare makes the policies and tells local commands where the hub is.
func (h *Hub) prepare(ctx context.Context) (err error) {
	if h.gate.policies, err = loadPolicies(ctx, h.state.Docs()); err != nil {
		return err
	}
	if err := writeConnectionFile(h.cfg.Dir, h.cfg.Host, h.gate.policies[OwnerPolicy]); err != nil {
		return err
	}
	return writeFile(AddressFile(h.cfg.Dir), []byte(h.HTTPSAddr()+"\n"), 0o644)
}

// watch hands every change of a desired section to the connection it is for.
func (h *Hub) watch(ctx context.Context, shard int) error {
	err := h.state.Docs().Watch(ctx, shard, []string{state.KindService}, nil, func(doc state.Doc) {
		id := iothub.ID{Device: doc.Key.Device, Module: doc.Key.Name}
		h.mu.Lock()
		c := h.clients[id]
		h.mu.Unlock()
		if c == nil || !doc.Exists() {
			return
		}
		service, err := decode[serviceTwin](doc)
		if err != nil {
			h.cfg.Logger.Error("twin not readable", "identity", id.String(), "err", err)
			return
		}
		c.showDesired(service.doc)
	})
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the hub stops
	}
	return fmt.Errorf("watch shard %d: %w", shard, err)
}

// connection is what is known of an identity's link.
func (h *Hub) connection(id iothub.ID) connection {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen[id]
}
