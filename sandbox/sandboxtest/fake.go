package sandboxtest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// Fake is a sandbox.Runtime in memory. The zero value is ready: every program
// is then [Shell].
type Fake struct {
	// Program stands for what the Spec's Args would run. Default: Shell. Set it
	// before the first Create.
	Program Program
	// OnCreate, if set, is asked first; its error is that of Create.
	OnCreate func(sandbox.Spec) error
	// Features is what Probe returns.
	Features sandbox.Features

	mu        sync.Mutex // guards what follows
	instances map[string]*FakeInstance
	lastPid   int
}

// Create makes a waiting instance.
func (f *Fake) Create(ctx context.Context, s sandbox.Spec) (sandbox.Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if f.OnCreate != nil {
		if err := f.OnCreate(s); err != nil {
			return nil, err
		}
	}
	if s.Args[0] == Missing {
		return nil, fmt.Errorf("sandbox %s: create: %s: no such file", s.ID, s.Args[0])
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.instances[s.ID] != nil {
		return nil, fmt.Errorf("sandbox %s: %w", s.ID, sandbox.ErrExists)
	}
	if f.instances == nil {
		f.instances = map[string]*FakeInstance{}
		f.lastPid = 1 << 22 // above what Linux hands out: a fake pid hits no process
	}
	if s.LogPath != "" {
		if err := sandbox.MakeLog(s.LogPath); err != nil {
			return nil, err
		}
	}
	f.lastPid++
	program := f.Program
	if program == nil {
		program = Shell
	}
	i := newInstance(s, f.lastPid, time.Now(), program, func() { f.forget(s.ID) })
	f.instances[s.ID] = i
	return i, nil
}

// Recover ends waiting instances and returns the others, by ID. Calling it
// stands for a restart of the agent: listeners opened before are closed.
func (f *Fake) Recover(ctx context.Context) ([]sandbox.Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var found []sandbox.Instance
	for _, i := range f.Instances() {
		i.closeListeners()
		if !i.wasStarted() {
			if err := i.Destroy(); err != nil {
				return nil, err
			}
			continue
		}
		found = append(found, i)
	}
	return found, nil
}

// Probe returns the field Features.
func (f *Fake) Probe() sandbox.Features { return f.Features }

// Instances returns those not destroyed, by ID.
func (f *Fake) Instances() []*FakeInstance {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]*FakeInstance, 0, len(f.instances))
	for _, i := range f.instances {
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b *FakeInstance) int { return cmp.Compare(a.ID(), b.ID()) })
	return all
}

// Instance returns the one of that ID, or nil.
func (f *Fake) Instance(id string) *FakeInstance {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.instances[id]
}

func (f *Fake) forget(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.instances, id)
}

var (
	_ sandbox.Runtime  = (*Fake)(nil)
	_ sandbox.Instance = (*FakeInstance)(nil)
	_ sandbox.Execer   = (*FakeInstance)(nil)
)
