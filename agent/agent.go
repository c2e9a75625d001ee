package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sandpiper-edge/sandpiper/agent/broker"
	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/identity"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/supervisor"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
	"github.com/sandpiper-edge/sandpiper/agent/upstream"
	"github.com/sandpiper-edge/sandpiper/agent/workload"
	"github.com/sandpiper-edge/sandpiper/hal"
	"github.com/sandpiper-edge/sandpiper/hal/linux"
	"github.com/sandpiper-edge/sandpiper/sandbox/container"
	"github.com/sandpiper-edge/sandpiper/sandbox/image"
	"github.com/sandpiper-edge/sandpiper/store"
)

// Agent holds every engine of the device. Build it with New, run it once with Run, then Close it.
type Agent struct {
	cfg     Config
	dev     device
	log     *slog.Logger
	version string
	config  string // path of its configuration file
	started time.Time
	ready   atomic.Int64 // nanoseconds from the start of the process until modules could publish; 0 = not yet

	store      *store.Store
	twins      *twin.Keeper
	identities *identity.Registry
	hubTLS     *tls.Config // how the hub is known
	broker     *broker.Broker
	workload   *workload.Server
	routes     *routes
	doors      *doors
	upstream   *upstream.Upstream // nil on a standalone device
	runtime    *container.Runtime
	images     *image.Store
	arrived    arrivals
	supervisor *supervisor.Supervisor
	control    *control.Server
	audit      *audit
	wear       *wear
	timeline   *timeline
	pacer      *pacer
	hal        *hal.Server // nil = no [hal] section
	bridge     *bridges
	sim        *hal.Sim      // nil = the real board
	keeper     *linux.Keeper // nil = no warden holds outputs
	advice     []string      // where the board disagrees with its outputs; fixed after New
	leaving    atomic.Bool   // for a successor
	stopping   atomic.Bool   // with its modules
	pins       pinModules
	evictor    *evictor
	refused    atomic.Pointer[error] // why the configuration file is not what is in force
	refusal    atomic.Pointer[error] // why the last message that was not stored was not
	syncNow    chan struct{}         // capacity 1: identities changed, the hub should know
	syncError  atomic.Pointer[error] // why the hub could not be told of them the last time
}

// edgeAgent and edgeHub are this agent's own identities on the hub.
func (a *Agent) edgeAgent() iothub.ID {
	return iothub.ID{Device: a.dev.id, Module: deployment.EdgeAgent}
}
func (a *Agent) edgeHub() iothub.ID {
	return iothub.ID{Device: a.dev.id, Module: deployment.EdgeHub}
}

// New opens the store and builds every engine. Nothing runs and nothing listens before Run.
func New(ctx context.Context, cfg Config, opts Options) (a *Agent, err error) {
	cfg = cfg.withDefaults()
	a = &Agent{cfg: cfg, log: opts.Logger, version: opts.Version, config: opts.Config, started: time.Now(), syncNow: make(chan struct{}, 1)}
	a.refused.Store(&opts.Refused)
	if a.dev, err = cfg.identity(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	for _, dir := range []struct {
		path string
		mode os.FileMode
	}{{cfg.StateDir, 0o711}, {cfg.RunDir, 0o711}} {
		if err := os.MkdirAll(dir.path, dir.mode); err != nil {
			return nil, fmt.Errorf("make directory: %w", err)
		}
	}
	if a.store, err = store.Open(store.Config{Dir: filepath.Join(cfg.StateDir, "store"), MaxBytes: int64(cfg.Store.MaxBytes), MinFree: int64(cfg.Store.MinFree), Logger: a.log}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.store.Close())
		}
	}()
	return a, a.build(ctx)
}

// Run starts every engine and returns when all have ended: with nil when ctx ended, else with what broke first.
func (a *Agent) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	storeCtx, endStore := context.WithCancel(context.WithoutCancel(ctx)) // it takes what was acknowledged from memory when all else has ended
	g.Go(func() error { return named("store", a.store.Run(storeCtx)) })
	g.Go(func() error {
		defer endStore()
		return a.pacer.Run(ctx)
	})
	g.Go(func() error { return a.keepBounds(ctx) })
	g.Go(func() error { return named("evictor", a.evictor.Run(ctx)) })
	g.Go(func() error { return named("broker", a.broker.Run(ctx)) })
	g.Go(func() error { return a.wear.Run(ctx) })
	g.Go(func() error { return a.timeline.Run(ctx) })
	if a.hal != nil {
		g.Go(func() error { return named("hal", a.runHal(ctx)) })
		g.Go(func() error { a.auditPins(ctx); return nil })
	}
	if a.upstream != nil {
		g.Go(func() error { return named("upstream", a.upstream.Run(ctx)) })
		g.Go(func() error { return a.keepIdentities(ctx) })
	}
	a.pins.begin(ctx)
	a.routes.apply()
	g.Go(func() error { return a.reportClients(ctx) })
	if a.dev.hub != "" {
		g.Go(func() error { return named("audit", a.audit.Run(ctx)) })
	}
	g.Go(func() error { return named("supervisor", a.supervisor.Run(ctx)) })
	g.Go(func() error { return named("images", a.images.Run(ctx)) })
	g.Go(func() error { return a.keepBridge(ctx) })
	if err := a.listen(ctx, g); err != nil {
		g.Go(func() error { return err }) // which ends all the others
		return g.Wait()
	}
	age, err := processAge(os.Getpid()) // what the runtime did before main counts as start-up too
	if err != nil {
		age = time.Since(a.started)
	}
	a.ready.Store(int64(age))
	a.log.Info("agent is up", "identity", a.dev.id, "hub", a.dev.hub, "version", a.version)
	err = g.Wait()
	a.doors.wait()
	a.pins.wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// foundPatience is when an operator is answered all the same: the modules that are there may be what is wrong.
const foundPatience = 10 * time.Second

// listen opens the control socket and the host addresses that the configuration names, and nothing else.
func (a *Agent) listen(ctx context.Context, g *errgroup.Group) error {
	l, err := control.Listen(filepath.Join(a.cfg.RunDir, "control.sock"))
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	g.Go(func() error {
		select { // who asks earlier waits, instead of hearing that there are no modules
		case <-a.supervisor.Found():
		case <-time.After(foundPatience):
		case <-ctx.Done():
		}
		return named("control", a.control.Serve(ctx, l))
	})
	for _, addr := range a.cfg.Listen.MQTT {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return fmt.Errorf("listen.mqtt: %w", err)
		}
		g.Go(func() error { return named(addr, a.broker.Serve(ctx, l, nil, hostOrigin(addr))) })
	}
	for _, addr := range a.cfg.Listen.HTTPS {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return fmt.Errorf("listen.https: %w", err)
		}
		g.Go(func() error { return named(addr, a.broker.Serve(ctx, nil, l, hostOrigin(addr))) })
	}
	return nil
}

func named(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Close gives up what Run does not own. It must follow the end of Run.
func (a *Agent) Close() error { return errors.Join(a.images.Close(), a.store.Close()) }

// Alive says whether the agent can still do its work, for the watchdog: the store takes a write.
func (a *Agent) Alive() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return a.store.Docs().Put(ctx, "agent/alive", []byte(a.version))
}

// rootsFrom reads a PEM file of trusted roots; no file means the system's.
func rootsFrom(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // crypto/tls takes nil as the system's roots
	}
	raw, err := readSmall(file, 1<<20)
	if err != nil {
		return nil, fmt.Errorf("%w: trusted_ca: %w", ErrConfig, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("%w: trusted_ca: %s holds no certificate in PEM", ErrConfig, file)
	}
	return pool, nil
}
