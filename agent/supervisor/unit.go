package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// order is what a unit can be told.
type order uint8

const (
	orderStart  order = iota // have the program running
	orderStop                // have it ended
	orderRetire              // have it ended, and end the unit
)

// command is an order and where its result goes.
type command struct {
	order order
	done  chan error // capacity 1
}

// unit is one module: its goroutine owns the instance and the state.
type unit struct {
	s      *Supervisor
	seat   Seat
	wanted atomic.Pointer[deployment.Module] // as seat.Module, with the policies of the newest deployment
	log    *slog.Logger
	orders chan command
	sick   chan string // capacity 1: what an unhealthy module says
	gone   chan struct{}

	mu     sync.Mutex // guards what follows, which the goroutine writes and anybody reads
	state  state
	inst   sandbox.Instance
	why    string
	exit   sandbox.Exit
	exited bool
	again  time.Time // of the last restart
	budget budget
	sickly string // unhealthy, and what it said; "" = healthy
}

// newUnit starts the goroutine of a unit. inst is an adopted instance, or nil.
func (s *Supervisor) newUnit(ctx context.Context, seat Seat, inst sandbox.Instance) *unit {
	u := &unit{
		s: s, seat: seat, log: s.cfg.Logger.With("module", seat.Module.Name),
		orders: make(chan command), sick: make(chan string, 1), gone: make(chan struct{}),
	}
	u.wanted.Store(&seat.Module)
	logs, end := context.WithCancel(ctx)
	s.group.Go(func() { s.collect(logs, seat) })
	s.group.Go(func() {
		defer end()
		defer close(u.gone)
		if inst != nil {
			u.adopt(ctx, inst)
		}
		u.run(ctx)
	})
	return u
}

func (u *unit) module() *deployment.Module { return u.wanted.Load() }

// do gives an order and returns when it has been carried out.
func (u *unit) do(ctx context.Context, o order) error {
	c := command{order: o, done: make(chan error, 1)}
	select {
	case u.orders <- c:
	case <-u.gone:
		if o == orderStart {
			return ErrNoModule
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-c.done:
		return err
	case <-u.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (u *unit) unhealthy(note string) {
	select {
	case u.sick <- note:
	default:
	}
}

// move takes a step of the table.
func (u *unit) move(e event) {
	u.mu.Lock()
	from := u.state
	to, ok := next[from][e]
	if ok {
		u.state = to
	}
	u.mu.Unlock()
	if !ok {
		u.log.Error("impossible event", "state", from.String(), "event", e.String())
		return
	}
	u.log.Debug("state", "from", from.String(), "event", e.String(), "to", to.String())
	signal(u.s.tell)
}

func (u *unit) is() state {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state
}

func (u *unit) note(why string) {
	u.mu.Lock()
	u.why = why
	u.mu.Unlock()
}

// run is the life of the unit until it is retired, or ctx ends and the instance is left to the next agent.
func (u *unit) run(ctx context.Context) {
	due := time.NewTimer(time.Hour)
	due.Stop()
	defer due.Stop()
	exits := u.watch(ctx)
	for {
		select {
		case <-ctx.Done():
			u.s.cfg.Hosting.Shut(u.seat.Module.Name)
			return
		case c := <-u.orders:
			err := u.obey(ctx, c.order)
			exits = u.watch(ctx)
			if u.is() == backoff {
				due.Reset(u.delay())
			} else {
				due.Stop()
			}
			c.done <- err
			if c.order == orderRetire {
				return
			}
		case note := <-u.sick:
			u.fell(ctx, note)
		case exit := <-exits:
			exits = nil
			if u.ended(exit) {
				due.Reset(u.delay())
			}
		case <-due.C:
			u.move(evDue)
			if err := u.launch(ctx); err != nil {
				due.Reset(u.delay())
			}
			exits = u.watch(ctx)
		}
	}
}

// watch returns a channel that gets the exit of the instance, nil when there is none.
func (u *unit) watch(ctx context.Context) <-chan sandbox.Exit {
	u.mu.Lock()
	inst := u.inst
	u.mu.Unlock()
	if inst == nil {
		return nil
	}
	c := make(chan sandbox.Exit, 1)
	u.s.group.Go(func() {
		if exit, err := inst.Wait(ctx); err == nil {
			c <- exit
		} else if ctx.Err() == nil && !errors.Is(err, sandbox.ErrDestroyed) {
			c <- sandbox.Exit{Code: -1, At: u.s.cfg.Now()}
		}
	})
	return c
}

// obey carries out an order.
func (u *unit) obey(ctx context.Context, o order) error {
	now := u.is()
	if o == orderStart {
		if now == running {
			return nil
		}
		u.mu.Lock()
		u.budget = budget{total: u.budget.total} // somebody asked: a clean sheet
		u.mu.Unlock()
		u.move(evStart)
		return u.launch(ctx)
	}
	if now != stopped {
		u.move(evStop)
	}
	if now == running {
		return u.halt(ctx)
	}
	return nil
}

// launch makes the sandbox, opens the doors and lets the program run. State: starting before, running or backoff after.
func (u *unit) launch(ctx context.Context) error {
	start := u.s.cfg.Now()
	inst, err := u.make(ctx)
	if err != nil {
		u.note(err.Error())
		u.log.Error("module does not start", "err", err)
		u.move(evBroken)
		return err
	}
	u.mu.Lock()
	u.inst, u.why, u.sickly = inst, "", ""
	u.budget.up = u.s.cfg.Now()
	u.mu.Unlock()
	u.move(evUp)
	u.log.Info("module runs", "pid", inst.Pid(), "image", u.seat.Image.Digest, "took", u.s.cfg.Now().Sub(start))
	return nil
}

func (u *unit) make(ctx context.Context) (sandbox.Instance, error) {
	u.s.mu.Lock()
	halting := u.s.halting
	u.s.mu.Unlock()
	if halting {
		return nil, errors.New("the agent is stopping")
	}
	spec, err := u.s.cfg.Hosting.Spec(ctx, u.seat)
	if err != nil {
		return nil, err
	}
	inst, err := u.s.cfg.Runtime.Create(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("make sandbox: %w", err)
	}
	if err = u.s.cfg.Hosting.Open(ctx, u.seat, inst); err == nil {
		err = inst.Start()
	}
	if err != nil {
		u.s.cfg.Hosting.Shut(u.seat.Module.Name)
		return nil, errors.Join(err, inst.Destroy())
	}
	return inst, nil
}

// adopt takes over an instance that an earlier agent started.
func (u *unit) adopt(ctx context.Context, inst sandbox.Instance) {
	u.mu.Lock()
	u.inst = inst
	u.budget.up = u.s.cfg.Now()
	u.mu.Unlock()
	u.move(evAdopt)
	if err := u.s.cfg.Hosting.Open(ctx, u.seat, inst); err != nil && !errors.Is(err, sandbox.ErrEnded) {
		u.log.Error("adopted module has no way to the agent; restart it", "err", err)
		u.note(err.Error())
	}
	u.log.Info("module adopted", "pid", inst.Pid(), "since", inst.Started())
}

// delay is how long to back off, counted as one more restart.
func (u *unit) delay() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.again = u.s.cfg.Now()
	return u.budget.next(u.again)
}

// ended clears up after a program that ended by itself. True: it is to run again.
func (u *unit) ended(exit sandbox.Exit) bool {
	u.mu.Lock()
	restart := again(u.module().Restart, exit, u.sickly != "")
	u.mu.Unlock()
	u.bury(exit)
	how := describe(exit)
	if restart {
		u.log.Warn("module ended, it is started again", "exit", how)
		u.note("ended with " + how)
		u.move(evExit)
		return true
	}
	u.log.Warn("module ended", "exit", how, "policy", u.module().Restart.String())
	u.note("ended with " + how)
	u.move(evDone)
	return false
}

// bury removes an instance whose program has ended.
func (u *unit) bury(exit sandbox.Exit) {
	u.mu.Lock()
	inst := u.inst
	u.inst, u.exit, u.exited = nil, exit, true
	u.mu.Unlock()
	u.s.cfg.Hosting.Shut(u.seat.Module.Name)
	if inst == nil {
		return
	}
	if err := inst.Destroy(); err != nil {
		u.log.Error("sandbox not removed", "err", err)
	}
}

// halt ends the program: its stop signal, the grace time, then SIGKILL. State: stopping before, stopped after.
func (u *unit) halt(ctx context.Context) error {
	u.mu.Lock()
	inst := u.inst
	u.mu.Unlock()
	sig, err := sandbox.ParseSignal(u.stopSignal())
	if err != nil {
		return err
	}
	grace := u.module().Settings.StopTimeout
	if grace == 0 {
		grace = deployment.DefaultStopTimeout
	}
	exit, err := sandbox.Stop(ctx, inst, sig, grace)
	if err != nil {
		u.note("not stopped: " + err.Error())
	}
	u.bury(exit)
	u.move(evExit)
	u.log.Info("module stopped", "exit", describe(exit))
	return err
}

func (u *unit) stopSignal() string {
	if s := u.seat.Module.Settings.Create.StopSignal; s != "" {
		return s
	}
	return u.seat.Image.Stop
}

// fell handles a module that says it is not well.
func (u *unit) fell(ctx context.Context, note string) {
	u.mu.Lock()
	u.sickly = note
	inst := u.inst
	u.mu.Unlock()
	signal(u.s.tell)
	if inst == nil || u.module().Restart == deployment.Never {
		return
	}
	u.log.Warn("module says it is unhealthy, it is ended", "note", note)
	if _, err := sandbox.Stop(ctx, inst, 0, deployment.DefaultStopTimeout); err != nil {
		u.log.Error("unhealthy module not ended", "err", err)
	} // its exit comes by watch
}

// describe says how a program ended.
func describe(e sandbox.Exit) string {
	switch {
	case e.OOM:
		return "SIGKILL, out of memory"
	case !e.Known:
		return "an exit code nobody saw"
	case e.Signal != "":
		return e.Signal
	}
	return fmt.Sprintf("exit code %d", e.Code)
}
