package supervisor

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// Image is what a module runs from, present and verified on this device.
type Image struct {
	Digest string   `json:"digest"` // "sha256:" and 64 hex digits
	Args   []string `json:"args"`   // program and arguments, unless the deployment has its own
	Env    []string `json:"env"`    // KEY=value
	Cwd    string   `json:"cwd"`
	User   string   `json:"user"`
	Stop   string   `json:"stop"` // signal, empty = SIGTERM

	Entry   int      `json:"entry,omitempty"`   // how many of Args are the program and what always follows it; the rest a deployment's Cmd replaces
	Volumes []string `json:"volumes,omitempty"` // directories that the image wants to keep

	Health *deployment.ImageHealth `json:"health,omitempty"` // its own check; nil = it has none
}

// Images fetches and mounts images.
type Images interface {
	// Fetch returns when the module's image is present and verified. With the pull policy "never" it does not use the network.
	Fetch(ctx context.Context, m deployment.Module) (Image, error)
	// Keep says which images are in use; others may be removed.
	Keep(ctx context.Context, digests []string) error
}

// Seat is what a module of this device is given: its id range, and what its sandbox is made from.
type Seat struct {
	Module deployment.Module
	Image  Image
	IDBase uint32 // first of its sandbox.IDCount host uids; the same for good
	Log    string // FIFO for its standard output
	ErrLog string // FIFO for its standard error
}

// Hosting is what the agent does around an instance. All calls for one module come one after another.
type Hosting interface {
	// Spec says how the sandbox is made; it mounts the image and makes the identity, durable before it returns.
	Spec(ctx context.Context, s Seat) (sandbox.Spec, error)
	// Open opens the module's doors to the agent; called before the program runs, and again by an agent that adopts it.
	Open(ctx context.Context, s Seat, i sandbox.Instance) error
	// Command gives a further program what the module's own has around it: environment, directory, user.
	Command(s Seat, args []string) sandbox.Command
	// Shut closes the doors of a module whose program has ended.
	Shut(module string)
	// Removed says that a module is no longer part of the deployment.
	Removed(ctx context.Context, module string) error
}

// Docs is where records are kept.
type Docs interface {
	Get(key string) ([]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Keys(prefix string) ([]string, error)
}

// Config of a Supervisor.
type Config struct {
	Device   string
	Runtime  sandbox.Runtime
	Images   Images
	Hosting  Hosting
	Twins    *twin.Keeper
	Docs     Docs
	Commit   func(digest string) error // told that a new image has proved itself; default: nothing
	Boot     string                    // id of this boot of the device; default: the kernel's
	LogDir   string                    // directory of the kept logs: on a tmpfs, or on the state partition
	LogTotal int64                     // bytes of all kept logs together; default 8 MiB
	LogRate  int64                     // bytes a second a module may print for long; default 256 KiB
	FIFODir  string                    // directory of log FIFOs, on tmpfs
	IDBase   uint32                    // first uid of the first range
	// Full lists the places of a module on disk that are bounded and hold no more, as paths inside; nil: nobody looks.
	Full     func(module string) []string
	Build    deployment.Build
	Platform deployment.Platform
	Now      func() time.Time // default time.Now
	// Age is how long ago a process of this boot began, whatever the clock says, which may have been set by years since; default: by the clock.
	Age    func(pid int) (time.Duration, error)
	Logger *slog.Logger // default: discard
}

// Supervisor runs the modules of one device.
type Supervisor struct {
	cfg     Config
	id      iothub.ID // {device}/$edgeAgent
	started time.Time
	kick    chan struct{} // capacity 1: the deployment may have changed
	tell    chan struct{} // capacity 1: the report may have changed
	group   sync.WaitGroup

	found chan struct{} // closed when recover knows what an earlier agent left
	ready chan struct{} // closed when recover is done

	shelf *logShelf

	openSource func(path string) (source, error) // tests put here what works with virtual time

	mu      sync.Mutex // guards what follows
	units   map[string]*unit
	carried map[string]decision // of modules between their old unit and their new one: an operator stopped them
	plan    applied             // what is carried out, durable
	applied deployment.Agent    // plan.Desired, parsed
	version int64               // of the desired section that was last looked at
	status  deployment.DesiredStatus
	halting bool // StopAll was called: nothing is started any more
}

// ErrNoModule is returned for a module that is not part of the deployment.
var ErrNoModule = errors.New("no such module in the deployment")

// New builds a supervisor; nothing is touched before Run.
func New(cfg Config) (*Supervisor, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Commit == nil {
		cfg.Commit = func(string) error { return nil }
	}
	if cfg.Boot == "" {
		cfg.Boot = bootID()
	}
	if cfg.LogTotal == 0 {
		cfg.LogTotal = 8 << 20
	}
	if cfg.LogRate == 0 {
		cfg.LogRate = logRate
	}
	if cfg.Runtime == nil || cfg.Images == nil || cfg.Hosting == nil || cfg.Twins == nil || cfg.Docs == nil {
		return nil, errors.New("new supervisor: runtime, images, hosting, twins and documents are needed")
	}
	s := &Supervisor{
		cfg: cfg, id: iothub.ID{Device: cfg.Device, Module: deployment.EdgeAgent}, started: cfg.Now(),
		kick: make(chan struct{}, 1), tell: make(chan struct{}, 1), found: make(chan struct{}), ready: make(chan struct{}), units: map[string]*unit{}, carried: map[string]decision{}, openSource: openFIFO,
		shelf:  newLogShelf(cfg.LogTotal, cfg.LogRate),
		status: deployment.DesiredStatus{Code: deployment.CodeUnknown},
	}
	cfg.Twins.OnDesired(func(c twin.Change) {
		if c.ID == s.id {
			s.Kick()
		}
	})
	return s, nil
}

// Kick makes Run look at the deployment again.
func (s *Supervisor) Kick() { signal(s.kick) }

// Again has a deployment that is not applied tried now, without the wait of one that failed before. Until that is done its code is
// [deployment.CodeUnknown].
func (s *Supervisor) Again() {
	s.mu.Lock()
	if s.status.Code != deployment.CodeOK {
		s.status = deployment.DesiredStatus{Code: deployment.CodeUnknown, Description: "it is tried again"}
	}
	s.mu.Unlock()
	s.Kick()
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // one that is waiting says the same
	}
}

// Run adopts what an earlier agent left running, applies the deployment and every change of it until ctx ends, and returns when all
// its goroutines have. Modules run on.
func (s *Supervisor) Run(ctx context.Context) error {
	defer s.group.Wait()
	if err := s.recover(ctx); err != nil {
		return err
	}
	close(s.ready)
	s.group.Go(func() { s.report(ctx) })
	s.group.Go(func() { s.guard(ctx) })
	retry := time.NewTimer(0)
	defer retry.Stop()
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.kick:
		case <-retry.C:
		}
		if again := s.apply(ctx); again {
			failures++
			retry.Reset(min(fetchRetry<<min(failures-1, 8), fetchRetryMost))
		} else {
			failures = 0
		}
	}
}

// How long to wait before a deployment whose images could not be fetched is tried again.
const (
	fetchRetry     = 5 * time.Second
	fetchRetryMost = 5 * time.Minute
)

// Found is closed when every module that an earlier agent had is known again; before that there seem to be none.
func (s *Supervisor) Found() <-chan struct{} { return s.found }

// Ready is closed when what an earlier agent left is adopted and the deployment in force runs, or each module of it was tried.
func (s *Supervisor) Ready() <-chan struct{} { return s.ready }

// unit returns the unit of a module.
func (s *Supervisor) unit(name string) (*unit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.units[name]
	if u == nil {
		return nil, ErrNoModule
	}
	return u, nil
}

// Start starts a module that an operator stopped or that ended, and returns when its program runs. What Start, Stop and Restart began
// goes on when ctx ends, and with the next agent when this one does.
func (s *Supervisor) Start(ctx context.Context, name string) error {
	u, err := s.startable(name)
	if err != nil {
		return err
	}
	return u.do(ctx, orderResume)
}

// Stop stops a module and returns when it has ended. It stays stopped, over restarts of the agent and the device too, until Start or
// until a new deployment.
func (s *Supervisor) Stop(ctx context.Context, name string) error {
	u, err := s.unit(name)
	if err != nil {
		return err
	}
	return u.do(ctx, orderHold)
}

// Restart stops a module and starts it again.
func (s *Supervisor) Restart(ctx context.Context, name string) error {
	u, err := s.startable(name)
	if err != nil {
		return err
	}
	return u.do(ctx, orderRenew)
}

// ErrStopped is returned for a module that the deployment wants stopped.
var ErrStopped = errors.New("the deployment wants the module stopped; change its status there")

// startable is unit for one that may run.
func (s *Supervisor) startable(name string) (*unit, error) {
	u, err := s.unit(name)
	if err == nil && u.module().Status == deployment.StatusStopped {
		return nil, ErrStopped
	}
	return u, err
}

// StopAll ends every module, later ones of the startup order first, and starts none any more. It is for the end of the agent's
// service: the deployment stays, and the next agent starts it again.
func (s *Supervisor) StopAll(ctx context.Context) {
	s.mu.Lock()
	s.halting = true
	orders := map[uint32][]*unit{}
	for _, u := range s.units {
		orders[u.module().Order] = append(orders[u.module().Order], u)
	}
	s.mu.Unlock()
	if err := errors.Join(s.stopUnits(ctx, orders)...); err != nil {
		s.cfg.Logger.Error("not every module ended", "err", err)
	}
}

// stopSignal is the signal that asks the module to end, "" = SIGTERM.
func (seat Seat) stopSignal() string {
	return cmp.Or(seat.Module.Settings.Create.StopSignal, seat.Image.Stop)
}
