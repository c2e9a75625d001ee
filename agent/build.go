package agent

import (
	"cmp"
	"context"
	"crypto/tls"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/broker"
	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/identity"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/route"
	"github.com/sandpiper-edge/sandpiper/agent/supervisor"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
	"github.com/sandpiper-edge/sandpiper/agent/upstream"
	"github.com/sandpiper-edge/sandpiper/agent/workload"
)

// build makes the engines in the order of their dependencies.
func (a *Agent) build(ctx context.Context) error {
	for _, part := range []func(context.Context) error{
		a.buildTwins, a.buildIdentities, a.buildTimeline, a.buildKeeping,
		a.buildBroker, a.buildHal, a.buildWorkload, a.buildUpstream,
		a.buildSandboxes, a.buildBridge, a.buildControl,
	} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// buildTwins opens the twins. What the hub said of them is asked for again when the store lost documents.
func (a *Agent) buildTwins(context.Context) (err error) {
	if a.twins, err = twin.NewKeeper(healed{a.store.Docs(), a.log}); err != nil {
		return err
	}
	if a.dev.hub != "" && a.store.Usage().Recovered {
		a.twins.AllLost()
	}
	a.twins.OnDesired(func(c twin.Change) {
		if c.ID == a.edgeHub() {
			a.routes.apply()
		}
		a.pins.desired(c.ID.Module)
	})
	return nil
}

// standaloneHub is the hub's name in the identities of a device that has none. It has a dot: some SDKs insist.
const standaloneHub = "standalone.sandpiper"

// buildIdentities opens the keys and the device's own authority.
func (a *Agent) buildIdentities(ctx context.Context) (err error) {
	if a.hubTLS, err = a.trustOfHub(); err != nil {
		return err
	}
	a.identities, err = identity.New(ctx, identity.Config{
		Hub: cmp.Or(a.dev.hub, standaloneHub), Device: a.dev.id, Gateway: a.cfg.Device.Gateway,
		Credential: identity.Credential{Key: a.dev.key, Certificate: a.dev.pair},
		Docs:       a.store.Docs(), Address: a.cfg.Upstream.HTTPSAddress, TLS: a.hubTLS, Logger: a.log,
	})
	return err
}

// trustOfHub is what the hub's certificate is checked with.
func (a *Agent) trustOfHub() (*tls.Config, error) {
	roots, err := rootsFrom(a.cfg.Upstream.TrustedCA)
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: roots, ServerName: a.dev.hub, MinVersion: tls.VersionTLS12}, nil
}

// buildTimeline makes what gives messages their time, also on a device without a clock.
func (a *Agent) buildTimeline(context.Context) error {
	boot, err := kernelBoot()
	if err != nil {
		return err
	}
	clock := a.identities.Clock()
	a.timeline = newTimeline(&timeline{
		boot: boot, uptime: kernelUptime, now: clock.Now, known: clock.Believable, docs: a.store.Docs(), logger: a.log,
	})
	return nil
}

// buildKeeping makes what watches over the store: what must go, when it is written, how much, and who is told.
func (a *Agent) buildKeeping(context.Context) error {
	queue, docs := a.store.Queue(), a.store.Docs()
	a.evictor = &evictor{
		queue: queue, usage: a.store.Usage, logger: a.log, evicted: map[string]uint64{},
		rules: func() []route.Rule {
			if rules := a.routes.rules.Load(); rules != nil {
				return *rules
			}
			return nil
		},
	}
	a.pacer = newPacer(queue, a.log)
	a.wear = &wear{usage: a.store.Usage, docs: docs, logger: a.log, now: time.Now}
	a.audit = &audit{
		device: a.dev.id, queue: queue, docs: docs, now: time.Now, logger: a.log,
		refused: a.refusedByHub, evicted: a.evictor.count,
	}
	return nil
}

// buildBroker makes what modules speak to, and the routes behind it.
func (a *Agent) buildBroker(context.Context) (err error) {
	a.routes = &routes{id: a.edgeHub(), twins: a.twins, logger: a.log, report: deployment.NewHubReport(a.buildInfo())}
	if a.broker, err = broker.New(broker.Config{
		Device:       a.dev.id,
		Authenticate: a.identities.Authenticate, AuthorizeHTTP: a.identities.AuthorizeHTTP,
		Router: a.routes.router, Queue: a.store.Queue(), Docs: a.store.Docs(), Twins: a.twins, TLS: a.identities.CA().ServerTLS(),
		Put: a.pacer.Put, MaxAge: time.Duration(a.cfg.Store.MaxAge), Untimed: a.timeline.untimed,
		Stored: a.wear.add, NotStored: func(err error) { a.refusal.Store(&err) },
		Crowded: a.offends(supervisor.Crowding), Logger: a.log,
	}); err != nil {
		return err
	}
	a.broker.HandleMethod(a.edgeAgent(), a.ownMethods)
	return nil
}

// buildWorkload makes the modules' own API, and the doors through which they reach it and the broker.
func (a *Agent) buildWorkload(context.Context) (err error) {
	ca := a.identities.CA()
	if a.workload, err = workload.New(workload.Config{
		Generation: func(module string) (string, bool) {
			m, ok := a.identities.Module(module)
			return m.Generation, ok
		},
		Keys: a.identities, Authority: ca, Broker: a.broker, Twins: a.twins, Modules: a.workloadModules, Health: a.heartbeat,
		Crowded: a.offends(supervisor.Crowding), Oversize: a.offends(supervisor.Oversize), Stalled: a.offends(supervisor.Stalling),
		Hal: a.hal, Logger: a.log,
	}); err != nil {
		return err
	}
	a.doors = &doors{
		runDir: a.cfg.RunDir, ca: ca.TrustBundle(), mqtt: a.broker.Serve, socket: a.workload.Serve, names: a.names, logger: a.log,
	}
	return nil
}

// heartbeat is what a module says of its own health.
func (a *Agent) heartbeat(id iothub.ID, h workload.Health) {
	note := "" // well
	if !h.Healthy {
		note = cmp.Or(h.Note, "it says so")
		a.halUnwell(id.Module)
	}
	a.supervisor.Unhealthy(id.Module, note)
}

// buildUpstream makes the links to the hub, if there is one.
func (a *Agent) buildUpstream(context.Context) (err error) {
	if a.dev.hub == "" {
		return nil
	}
	clock := a.identities.Clock()
	a.upstream, err = upstream.New(upstream.Config{
		Hub: a.dev.hub, Address: a.cfg.Upstream.MQTTAddress, TLS: clock.TLS(a.hubTLS), Credential: a.identities.Password,
		Queue: a.store.Queue(), Twins: a.twins, Method: a.method, Refused: a.identities.Refused,
		Now: clock.Now, Made: a.timeline.made, ClientType: "sandpiper/" + a.version, Logger: a.log,
	})
	return err
}

// buildControl makes what the command line speaks to.
func (a *Agent) buildControl(context.Context) error {
	a.control = control.New(control.Config{
		Status: a.status, Verb: a.verb, Exec: a.exec, Effective: a.effective, Why: a.why, Stats: a.stats, Logs: a.logs, Twin: a.twin,
		Plan: a.plan, Apply: a.apply, Deployment: a.deployment, Queue: a.queueFuncs(), Images: a.imageFuncs(),
		Metrics: a.metrics, Hal: a.halHandler(), Logger: a.log,
	})
	return nil
}
