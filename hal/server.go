package hal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// opTime is how long one operation may take unless its resource says otherwise.
const opTime = time.Second

// ServerConfig is what a Server needs.
type ServerConfig struct {
	Resources []Resource // of [Config.Resources]
	Backend   Backend
	Keeper    Keeper        // holds outputs while no agent runs; nil = nobody does
	Hold      time.Duration // how long a module may take to come back after a restart of the agent; 0 = 10 s
	Logger    *slog.Logger  // default: discard
}

// Server does the I/O for all modules. Create with [New]; it works while Run does.
type Server struct {
	cfg     ServerConfig
	log     *slog.Logger
	kept    map[string]Kept    // of the agent before, used up as it is opened; nil = the keeper did not say yet; under mu
	workers map[string]*worker // by bus; fixed after New
	things  map[string]*thing  // by name; fixed after New
	order   []string           // their names, ascending; fixed after New

	feeds  sync.WaitGroup // readers of edges
	opened chan struct{}  // closed when Run tried to open all
	lost   chan struct{}  // capacity 1: something that was open is not

	mu     sync.Mutex
	unlock func()                         // mu's
	grants map[string]map[string]*granted // by module, by name
	strays map[string]*tally              // by module: what is not granted
	fence  uint64                         // of the newest lease; begins with the clock, so that fences of a life before are old
	ended  bool
	leaves bool // for a successor
	ring   []Entry
	oldest int             // in ring, once that is full
	served context.Context //nolint:containedctx // the life of Run, which safe actions outside a request share
}

// thing is one resource and what is open for it. dev is touched by its worker only; the rest is under the server's mutex.
type thing struct {
	*Resource
	worker *worker
	dev    Device
	unkept bool // the keeper did not take it; touched by the worker only

	state   string // ok, or why it is not open: gone, busy, timeout
	tried   bool   // it could not be opened, and the log has it
	lease   *lease
	debt    *debt                // the safe value it has not taken yet; nil = none
	pulse   *time.Timer          // ends a pulse; nil = none runs
	onFor   *time.Timer          // ends what is away from safe for too long; nil = it is safe, or may stay
	onUntil time.Duration        // when that is, since boot, for the next agent
	feed    *feed                // nil = nobody watches
	last    Value                // of a sensor; zero = none was read
	tape    atomic.Pointer[tape] // nil = nobody records; not under the mutex
	said    string               // why it was made safe, as the log has it
	sayAt   time.Time            // when the log has it again
}

// granted is one right of one module, and its token bucket.
type granted struct {
	_ noCompare
	*Effective
	thing  *thing
	tally  tally
	tokens float64
	filled time.Time
}

// New makes a server of resources on a backend.
func New(cfg ServerConfig) (*Server, error) {
	if cfg.Backend == nil {
		return nil, errors.New("hal server: a backend is needed")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: cfg.Logger, workers: map[string]*worker{}, things: map[string]*thing{}, opened: make(chan struct{}), lost: make(chan struct{}, 1),
		grants: map[string]map[string]*granted{}, strays: map[string]*tally{}, fence: uint64(time.Now().UnixMilli())}
	s.unlock = s.mu.Unlock
	for i := range cfg.Resources {
		r := &cfg.Resources[i]
		w := s.workers[r.Bus]
		if w == nil {
			w = newWorker(r.Bus)
			s.workers[r.Bus] = w
		}
		s.things[r.Name] = &thing{Resource: r, worker: w, state: "gone"}
		if r.Kind == KindNode {
			s.things[r.Name].state = "unmediated"
		}
	}
	s.grants[Operator] = map[string]*granted{}
	for _, t := range s.things {
		s.order = append(s.order, t.Name)
		s.grants[Operator][t.Name] = &granted{Effective: whole(t.Resource), thing: t}
	}
	slices.Sort(s.order)
	return s, nil
}

// locked takes the lock; defer what it returns. A deferred method would be a function more at each place.
func (s *Server) locked() func() {
	s.mu.Lock()
	return s.unlock
}

// Operator is the name under which the device's own operator reads and drives everything. No module has it.
const Operator = "$operator"

// whole is all that a resource's owner allows to anybody.
func whole(r *Resource) *Effective {
	e := &Effective{Resource: r, Read: true, Write: r.writable(), Rate: r.Rate}
	if r.Safe != nil {
		e.Safe = *r.Safe
	}
	switch {
	case r.I2C != nil:
		e.ReadRegs, e.WriteRegs = r.I2C.Read, r.I2C.Write
	case r.CAN != nil:
		e.RX, e.TX = r.CAN.RX, r.CAN.TX
	}
	return e
}

// Run opens what there is, serves until ctx ends, then drives every output safe and closes all.
func (s *Server) Run(ctx context.Context) error {
	life, stop := context.WithCancel(context.Background()) // beyond ctx: the outputs are made safe after it
	defer stop()
	var workers sync.WaitGroup
	s.mu.Lock()
	s.served = life
	s.mu.Unlock()
	for _, w := range s.workers {
		workers.Go(func() { w.run(life) })
	}
	s.openAll(ctx)
	close(s.opened)
	claim := time.AfterFunc(cmp.Or(s.cfg.Hold, 10*time.Second), s.unclaimed)
	defer claim.Stop()
	s.follow(ctx)
	s.mu.Lock()
	s.ended = true
	var safe []<-chan struct{}
	leaves := s.leaves
	for _, t := range s.things {
		var done <-chan struct{}
		switch {
		case leaves:
		case t.lease != nil:
			done = s.endLocked(t, "agent stops")
		case t.debt != nil:
			done = s.safeLocked(t, t.debt.level, t.debt.why)
		}
		safe = append(safe, done)
	}
	s.mu.Unlock()
	waitFor(safe)
	for _, t := range s.things {
		_ = t.worker.do(life, "", ClassSafe, time.Now().Add(opTime), func(context.Context) error {
			if !leaves {
				s.drop(t.Name)
			}
			return t.close()
		})
	}
	stop()
	workers.Wait()
	s.feeds.Wait()
	return nil
}

// Check says whether a module could be granted these, without granting them. What an optional grant asks for may be missing.
func (s *Server) Check(who string, grants []Grant) error {
	_, err := s.permit(who, grants)
	return err
}

func (s *Server) permit(who string, grants []Grant) (map[string]*granted, error) {
	fresh := map[string]*granted{}
	for i := range grants {
		g := &grants[i]
		t := s.things[g.Name]
		if t == nil {
			if g.Optional {
				continue
			}
			return nil, s.unknown(g.Name)
		}
		e, err := Permit(t.Resource, who, g)
		if err != nil {
			if g.Optional {
				continue
			}
			return nil, err
		}
		fresh[g.Name] = &granted{Effective: e, thing: t}
	}
	return fresh, nil
}

// Grant replaces what a module may do, all or nothing, as [Server.Check] judges it. Outputs that the module drove and has no longer
// become safe.
func (s *Server) Grant(who string, grants []Grant) error {
	fresh, err := s.permit(who, grants)
	if err != nil {
		return err
	}
	defer s.locked()()
	for name := range s.grants[who] {
		if t := s.things[name]; t.lease != nil && t.lease.who == who && (fresh[name] == nil || !fresh[name].Write) {
			s.endLocked(t, "grant removed")
		}
	}
	for name, g := range fresh {
		if was := s.grants[who][name]; was != nil {
			g.tally = was.tally
		}
	}
	s.grants[who] = fresh
	if len(fresh) == 0 {
		delete(s.grants, who)
	}
	return nil
}

// unknown refuses a name before those who may know the others.
func (s *Server) unknown(name string) error {
	names := s.order
	if len(names) > 20 {
		names = append(names[:20:20], "…")
	}
	return refusal(Unknown, name, "the device's configuration has no such name; known are "+fmt.Sprint(names))
}

// ready waits until Run has opened what there is: a module may ask while the agent starts.
func (s *Server) ready() {
	select {
	case <-s.opened:
	default:
		select {
		case <-s.opened:
		case <-time.After(opTime):
		}
	}
}

// right finds the right of a module. A name that is not granted and one that does not exist give the same error.
func (s *Server) right(who, name string) (*granted, error) {
	s.ready()
	defer s.locked()()
	return s.rightLocked(who, name)
}

func (s *Server) rightLocked(who, name string) (*granted, error) {
	g := s.grants[who][name]
	if g == nil {
		if who == Operator { // who may know what there is
			return nil, s.unknown(name)
		}
		s.strayLocked(who, name)
		return nil, errNotGranted
	}
	if g.Rate > 0 {
		now := time.Now()
		g.tokens = min(max(1, float64(g.Rate)), g.tokens+now.Sub(g.filled).Seconds()*float64(g.Rate))
		if g.filled.IsZero() {
			g.tokens = max(1, float64(g.Rate))
		}
		g.filled = now
		if g.tokens < 1 {
			return nil, &Error{Code: TooFast, Name: name, Detail: "more than " + g.Rate.String(), Retry: time.Duration((1 - g.tokens) / float64(g.Rate) * float64(time.Second))}
		}
		g.tokens--
	}
	return g, nil
}
