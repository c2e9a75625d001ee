package identity

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// TokenLife is how long a token minted by [Registry.Password] holds. A connection must be renewed before that.
const TokenLife = time.Hour

const modulePrefix = "identity/module/"

// written is the earliest time at which this code can run.
var written = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// ErrUnknown is returned for an identity that is not here.
var ErrUnknown = errors.New("identity is not known on this device")

// ErrNoCredential is returned where a hub is needed and this device belongs to none.
var ErrNoCredential = errors.New("this device has no hub")

// Credential is the device's own: a SAS key or an X.509 pair. The zero value belongs to no hub.
type Credential struct {
	Key         iothub.Key
	Certificate *tls.Certificate
}

// IsZero tells a device without a hub.
func (c Credential) IsZero() bool { return len(c.Key) == 0 && c.Certificate == nil }

// Config of a Registry.
type Config struct {
	Hub        string // host name of the hub, as tokens name it; also when the device stands alone
	Device     string // device id
	Gateway    string // the name modules dial; default localhost
	Credential Credential
	Docs       Docs      // where keys are kept
	Built      time.Time // no right clock shows less; default: when this code was written

	Address     string       // host:port to dial for the hub's REST interface; default {hub}:443
	RegistryURL string       // default https://{hub}
	TLS         *tls.Config  // trust for the hub; nil = the system's roots
	HTTP        *http.Client // for the hub's REST interface; default: made from Address, TLS and the device's certificate

	Now    func() time.Time // device clock; default time.Now
	Logger *slog.Logger     // default: discard
}

func (c Config) withDefaults() Config {
	if c.Gateway == "" {
		c.Gateway = "localhost"
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Built.IsZero() {
		c.Built = written
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.RegistryURL == "" {
		c.RegistryURL = "https://" + c.Hub
	}
	c.RegistryURL = strings.TrimSuffix(c.RegistryURL, "/")
	return c
}

// Module is one module's identity.
type Module struct {
	ID         iothub.ID
	Generation string // decimal digits, chosen here; a re-created module gets another
	Key        iothub.Key
	OnHub      bool // the hub's registry has this identity with this key
}

// Registry holds every identity of this device. Safe for concurrent use; reading never waits for the disk.
type Registry struct {
	cfg      Config
	clock    *Clock
	ca       *CA
	vault    *vault
	http     *http.Client
	refusals refusals
	log      *slog.Logger

	syncing chan struct{} // holds one token: one Sync at a time

	entries atomic.Pointer[map[string]entry] // by module id; replaced, never changed
	change  sync.Mutex                       // one change at a time, from reading entries to replacing them
}

// entry is a module with what only this room knows about it.
type entry struct {
	Module
	state         state
	hubGeneration string
}

// New loads what the store has and makes what is missing: the device CA, the master key. It does not use the network.
func New(ctx context.Context, cfg Config) (*Registry, error) {
	cfg = cfg.withDefaults()
	if _, err := iothub.NewID(cfg.Device, ""); err != nil {
		return nil, err
	}
	clock, err := openClock(cfg.Now, cfg.Built, cfg.Docs)
	if err != nil {
		return nil, err
	}
	ca, err := openCA(ctx, cfg.Docs, cfg.Hub, cfg.Device, cfg.Gateway)
	if err != nil {
		return nil, err
	}
	vault, err := openVault(ctx, cfg.Docs)
	if err != nil {
		return nil, err
	}
	r := &Registry{
		cfg: cfg, clock: clock, ca: ca, vault: vault, log: cfg.Logger,
		syncing:  make(chan struct{}, 1),
		refusals: refusals{now: cfg.Now},
	}
	r.syncing <- struct{}{}
	r.http = cfg.HTTP
	if r.http == nil {
		r.http = r.client()
	}
	entries, err := r.loadAll()
	if err != nil {
		return nil, err
	}
	r.entries.Store(&entries)
	return r, nil
}

// Format prints the device's name under every verb: the fields hold keys.
func (r *Registry) Format(f fmt.State, _ rune) {
	_, _ = f.Write([]byte("identities of " + r.cfg.Device))
}

// CA is the device's certificate authority.
func (r *Registry) CA() *CA { return r.ca }

// Clock tells hub time from the device clock.
func (r *Registry) Clock() *Clock { return r.clock }

// ID is the device's own identity.
func (r *Registry) ID() iothub.ID { return iothub.ID{Device: r.cfg.Device} }

// Module returns the identity of a module that may speak now.
func (r *Registry) Module(name string) (Module, bool) {
	e, ok := (*r.entries.Load())[name]
	return e.Module, ok && e.state == live
}

// List returns the modules that may speak now, by name.
func (r *Registry) List() []Module { return r.inState(live) }

// Retired returns the modules that were removed but may still have messages to send, by name.
func (r *Registry) Retired() []Module { return r.inState(retired) }

// sorted are the names of entries, ascending.
func sorted(entries map[string]entry) []string {
	names := make([]string, 0, len(entries))
	for name := range entries {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (r *Registry) inState(want state) []Module {
	var out []Module
	entries := *r.entries.Load()
	for _, name := range sorted(entries) {
		if e := entries[name]; e.state == want {
			out = append(out, e.Module)
		}
	}
	return out
}

// Ensure returns module's identity, making it when there is none: durable when it returns, and usable at once, hub or not.
func (r *Registry) Ensure(ctx context.Context, module string) (Module, error) {
	id, err := iothub.NewID(r.cfg.Device, module)
	if err != nil {
		return Module{}, err
	}
	if module == "" {
		return Module{}, errors.New("identity needs a module name")
	}
	r.change.Lock()
	defer r.change.Unlock()
	if e, ok := (*r.entries.Load())[module]; ok && e.state == live {
		return e.Module, nil
	}
	e := entry{Module: Module{ID: id, Generation: newGeneration(), Key: iothub.NewKey()}, state: live}
	if err := r.putLocked(ctx, module, e); err != nil {
		return Module{}, fmt.Errorf("make identity %s: %w", id, err)
	}
	return e.Module, nil
}

// Remove ends a module: from now on it cannot authenticate here. Its key is kept so that what it has sent can still go to the
// hub in its name, until [Registry.Purge]. Removing an unknown module is not an error.
func (r *Registry) Remove(ctx context.Context, module string) error {
	if strings.HasPrefix(module, "$") {
		return fmt.Errorf("remove identity %s: it belongs to the agent itself", module)
	}
	r.ca.forget(module)
	return r.step(ctx, module, live, retired)
}

// Purge forgets a removed module whose messages have all been delivered. Its key is gone from this device at once; the hub's
// identity is deleted by the next [Registry.Sync]. It does nothing to a module that has been made anew since.
func (r *Registry) Purge(ctx context.Context, module string) error {
	return r.step(ctx, module, retired, gone)
}

// step moves a module from one state to the next; a module that is not in from stays as it is.
func (r *Registry) step(ctx context.Context, module string, from, to state) error {
	r.change.Lock()
	defer r.change.Unlock()
	e, ok := (*r.entries.Load())[module]
	if !ok || e.state != from {
		return nil
	}
	e.state = to
	if to == gone {
		e.Key = nil
		if r.cfg.Credential.IsZero() {
			return r.deleteLocked(ctx, module)
		}
	}
	if err := r.putLocked(ctx, module, e); err != nil {
		return fmt.Errorf("remove identity %s: %w", e.ID, err)
	}
	return nil
}

// Password mints what a connection attempt of id presents to the hub: a token for [TokenLife], or the device's certificate.
func (r *Registry) Password(id iothub.ID) (iothub.Secret, *tls.Certificate, error) {
	if r.cfg.Credential.IsZero() {
		return "", nil, ErrNoCredential
	}
	if id == r.ID() {
		if cert := r.cfg.Credential.Certificate; cert != nil {
			return "", cert, nil
		}
		token, err := r.mint(id, r.cfg.Credential.Key)
		return token, nil, err
	}
	e, ok := (*r.entries.Load())[id.Module]
	if !ok || e.ID != id || e.state == gone {
		return "", nil, fmt.Errorf("%s: %w", id, ErrUnknown)
	}
	token, err := r.mint(id, e.Key)
	return token, nil, err
}

func (r *Registry) mint(id iothub.ID, key iothub.Key) (iothub.Secret, error) {
	return iothub.MintToken(id.Resource(r.cfg.Hub), "", r.clock.Now().Add(TokenLife), key.Signer())
}

// Sign answers a module's request for a MAC with its own key.
func (r *Registry) Sign(module string, data []byte) ([]byte, error) {
	m, ok := r.Module(module)
	if !ok {
		return nil, fmt.Errorf("%s: %w", module, ErrUnknown)
	}
	return m.Key.Sign(data), nil
}

// newGeneration is 18 decimal digits: the shape of the service's own, which take them from a clock.
func newGeneration() string {
	var raw [8]byte
	rand.Read(raw[:]) // never fails: it ends the process instead
	return strconv.FormatUint(1e17+binary.BigEndian.Uint64(raw[:])%9e17, 10)
}
