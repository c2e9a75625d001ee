package agent

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/hal"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// A module of type hal has identity, twin, outputs and routes, and no process: the agent reads and drives in its name. For the
// supervisor it is an instance like any other, of a runtime that makes a goroutine where the other makes a sandbox.

// pinModules are the modules of type hal. The zero value is ready; begin comes before the first is made.
type pinModules struct {
	group sync.WaitGroup

	mu     sync.Mutex      // guards what follows
	life   context.Context //nolint:containedctx // of the agent's Run, which the instances live in
	wanted map[string]deployment.Module
	live   map[string]*pinModule
}

func (p *pinModules) begin(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.life, p.wanted, p.live = ctx, map[string]deployment.Module{}, map[string]*pinModule{}
}

func (p *pinModules) wait() { p.group.Wait() }

// desired tells a module's instance that its twin may have changed.
func (p *pinModules) desired(module string) {
	p.mu.Lock()
	m := p.live[module]
	p.mu.Unlock()
	if m == nil {
		return
	}
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// pinSpec grants what the module asks for, and remembers it for the instance that is made next.
func (a *Agent) pinSpec(m deployment.Module) (sandbox.Spec, error) {
	if err := a.grantHal(m); err != nil {
		return sandbox.Spec{}, err
	}
	a.pins.mu.Lock()
	defer a.pins.mu.Unlock()
	a.pins.wanted[m.Name] = m
	return sandbox.Spec{ID: m.Name}, nil
}

// pinRuntime makes instances of modules without a program, and leaves all others to the sandboxes.
type pinRuntime struct {
	sandbox.Runtime
	a *Agent
}

// Create makes an instance.
func (r pinRuntime) Create(ctx context.Context, s sandbox.Spec) (sandbox.Instance, error) {
	p := &r.a.pins
	p.mu.Lock()
	defer p.mu.Unlock()
	m, ours := p.wanted[s.ID]
	if !ours {
		return r.Runtime.Create(ctx, s)
	}
	delete(p.wanted, s.ID)
	grants, err := hal.ParseGrants(m.Settings.Hal)
	if err != nil {
		return nil, err
	}
	publish, err := parsePublish(m.Settings.Publish, grants)
	if err != nil {
		return nil, err
	}
	life, end := context.WithCancel(p.life)
	i := &pinModule{a: r.a, name: m.Name, settings: m.Settings, publish: publish, made: time.Now(), changed: make(chan struct{}, 1), ended: make(chan struct{}), life: life, end: end}
	p.live[m.Name] = i
	return i, nil
}

// pinModule is one instance.
type pinModule struct {
	a        *Agent
	name     string
	settings deployment.Settings
	publish  []pinPublish
	made     time.Time
	changed  chan struct{}   // capacity 1: desired properties may have changed
	life     context.Context //nolint:containedctx // of the instance
	end      context.CancelFunc
	start    sync.Once
	ended    chan struct{} // closed when it does nothing any more
}

// ID is the module's.
func (m *pinModule) ID() string { return m.name }

// Pid is 0: there is no process.
func (m *pinModule) Pid() int { return 0 }

// Started is when it was made.
func (m *pinModule) Started() time.Time { return m.made }

// Listen is refused: nobody is there to dial.
func (m *pinModule) Listen(string, string) (net.Listener, error) { return nil, errors.ErrUnsupported }

// Start begins to read and to drive.
func (m *pinModule) Start() error {
	err := sandbox.ErrStarted
	m.start.Do(func() {
		err = nil
		m.a.pins.group.Go(func() {
			defer close(m.ended)
			m.run(m.life)
		})
	})
	return err
}

// Wait returns when it was ended.
func (m *pinModule) Wait(ctx context.Context) (sandbox.Exit, error) {
	select {
	case <-m.ended:
		if ctx.Err() != nil { // it ended with the agent, which says nothing of the module
			return sandbox.Exit{}, ctx.Err()
		}
		return sandbox.Exit{At: time.Now(), Known: true}, nil
	case <-ctx.Done():
		return sandbox.Exit{}, ctx.Err()
	}
}

// Signal ends it, whatever the signal.
func (m *pinModule) Signal(os.Signal) error { return m.Kill() }

// Kill ends it.
func (m *pinModule) Kill() error {
	m.end()
	m.start.Do(func() { close(m.ended) })
	return nil
}

// Stats are the agent's own.
func (m *pinModule) Stats() (sandbox.Stats, error) { return sandbox.Stats{}, nil }

// Destroy ends it and waits.
func (m *pinModule) Destroy() error {
	_ = m.Kill() // it cannot fail
	<-m.ended
	p := &m.a.pins
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live[m.name] == m {
		delete(p.live, m.name)
	}
	return nil
}

// run reads, drives and answers until ctx ends.
func (m *pinModule) run(ctx context.Context) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	if m.settings.Methods {
		defer m.a.broker.HandleMethod(m.id(), m.method)()
	}
	for _, p := range m.publish {
		if p.Watch != "" {
			tasks.Go(func() { m.watch(ctx, p) })
		} else {
			tasks.Go(func() { m.poll(ctx, p) })
		}
	}
	if m.settings.Outputs {
		tasks.Go(func() { m.drive(ctx) })
	}
	<-ctx.Done()
}
