package hubtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/hub"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Options of a Hub. The zero value works in tests.
type Options struct {
	Dir     string       // default, in New: the test's temporary directory
	Host    string       // default hub.sandpiper.test, which nothing resolves: dial Hub.MQTT and Hub.HTTPS
	MQTT    string       // default 127.0.0.1:0
	HTTPS   string       // default 127.0.0.1:0
	Bundles string       // served at /bundles/
	Logger  *slog.Logger // default: discard
}

// Hub is a running hub.
type Hub struct {
	Host  string     // host name, as in connection strings
	MQTT  string     // address of MQTT over TLS
	HTTPS string     // address of REST and MQTT over WebSocket
	CA    []byte     // PEM of the authority that clients must trust
	Owner *hub.Owner // speaks for whoever runs it
	Dir   string

	mqtt, https gate
	cancel      context.CancelFunc
	ended       chan error
}

// New runs a hub until the test ends.
func New(tb testing.TB, o Options) *Hub {
	tb.Helper()
	if o.Dir == "" {
		o.Dir = tb.TempDir()
	}
	h, err := Start(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := h.Stop(); err != nil {
			tb.Errorf("end hub: %v", err)
		}
	})
	return h
}

// Start runs a hub in o.Dir until Stop. ctx is for the start alone.
func Start(ctx context.Context, o Options) (*Hub, error) {
	if o.Host == "" {
		o.Host = "hub.sandpiper.test"
	}
	if o.MQTT == "" {
		o.MQTT = "127.0.0.1:0"
	}
	if o.HTTPS == "" {
		o.HTTPS = "127.0.0.1:0"
	}
	h := &Hub{Host: o.Host, Dir: o.Dir, ended: make(chan error, 1)}
	doors := map[string]*gate{o.MQTT: &h.mqtt, o.HTTPS: &h.https}
	next := []*gate{&h.mqtt, &h.https} // the hub listens for MQTT first
	listen := func(ctx context.Context, network, address string) (net.Listener, error) {
		g := doors[address]
		if o.MQTT == o.HTTPS {
			g, next = next[0], next[1:]
		}
		return g, g.open(ctx, network, address)
	}
	running, err := hub.New(ctx, hub.Config{
		Dir: o.Dir, Host: o.Host, MQTT: o.MQTT, HTTPS: o.HTTPS, Bundles: o.Bundles, Logger: o.Logger, Listen: listen,
	})
	if err != nil {
		return nil, err
	}
	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	h.cancel = cancel
	go func() { h.ended <- running.Run(runCtx) }()
	select {
	case <-running.Started():
	case err := <-h.ended:
		cancel()
		return nil, fmt.Errorf("run hub: %w", err)
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), h.Stop())
	}
	h.MQTT, h.HTTPS = running.MQTTAddr(), running.HTTPSAddr()
	if h.Owner, err = hub.OpenOwner(o.Dir); err != nil {
		return nil, errors.Join(err, h.Stop())
	}
	h.CA = h.Owner.CA()
	return h, nil
}

// Stop ends the hub as SIGTERM does and returns what its Run did. Its directory stays.
func (h *Hub) Stop() error {
	h.cancel()
	err := <-h.ended
	h.ended <- err // for a second call
	if h.Owner != nil {
		h.Owner.Close()
	}
	return err
}

// Cut closes both doors and every connection through them. The hub goes on, unreachable, until Restore.
func (h *Hub) Cut() { h.mqtt.cut(); h.https.cut() }

// Restore opens the doors again, at the same addresses.
func (h *Hub) Restore(ctx context.Context) error {
	return errors.Join(h.mqtt.restore(ctx), h.https.restore(ctx))
}

// TLS is what a client that dials the hub's addresses needs.
func (h *Hub) TLS() *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(h.CA)
	return &tls.Config{RootCAs: roots, ServerName: h.Host, MinVersion: tls.VersionTLS12}
}

// CreateDevice registers an edge device and returns its connection string.
func (h *Hub) CreateDevice(ctx context.Context, device string) (iothub.ConnectionString, error) {
	return h.create(ctx, hub.NewIdentity{ID: iothub.ID{Device: device}, Edge: true})
}

// CreateModule registers a module and returns its connection string.
func (h *Hub) CreateModule(ctx context.Context, device, module string) (iothub.ConnectionString, error) {
	return h.create(ctx, hub.NewIdentity{ID: iothub.ID{Device: device, Module: module}})
}

func (h *Hub) create(ctx context.Context, n hub.NewIdentity) (iothub.ConnectionString, error) {
	made, err := h.Owner.Create(ctx, n)
	if err != nil {
		return iothub.ConnectionString{}, err
	}
	text, err := h.Owner.ConnectionString(made)
	if err != nil {
		return iothub.ConnectionString{}, err
	}
	return iothub.ParseConnectionString(text)
}

// Token is a password for an identity, good for an hour.
func Token(cs iothub.ConnectionString) (iothub.Secret, error) {
	return iothub.MintToken(cs.ID.Resource(cs.Host), "", time.Now().Add(time.Hour), cs.Key.Signer())
}

// Telemetry is everything a device and its modules have sent so far.
func (h *Hub) Telemetry(ctx context.Context, device string) ([]hub.Event, error) {
	var events []hub.Event
	err := h.Owner.Events(ctx, hub.EventQuery{Device: device}, func(e hub.Event) error {
		events = append(events, e)
		return nil
	})
	return events, err
}
