package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// order is what a unit can be told.
type order uint8

const (
	orderStart   order = iota // have the program running
	orderStop                 // have it ended
	orderRetire               // have it ended, and end the unit
	orderHold                 // write down that an operator wants it stopped
	orderRelease              // write down that no operator does
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
	hash   string // of what was installed; "" = something that no deployment can want
	output *logFile
	wanted atomic.Pointer[deployment.Module] // as seat.Module, with the policies of the newest deployment
	log    *slog.Logger
	orders chan command
	sick   chan string // capacity 1: what the module says of its health
	gone   chan struct{}

	exits chan sandbox.Exit // of inst; the goroutine's own
	due   time.Time         // of the next start, while backing off; the goroutine's own

	mu     sync.Mutex // guards what follows, which the goroutine writes and anybody reads
	state  state
	inst   sandbox.Instance
	why    string
	rec    record
	budget budget
	sickly string // unhealthy, and what it said; "" = healthy
}

// newUnit makes a unit in a state; begin starts it. inst, in the state running, is what an earlier agent left.
func (s *Supervisor) newUnit(seat Seat, rec record, st state, inst sandbox.Instance) *unit {
	name := seat.Module.Name
	u := &unit{
		s: s, seat: seat, hash: rec.Hash, log: s.cfg.Logger.With("module", name),
		output: newLogFile(filepath.Join(s.cfg.LogDir, name), logSize, logFiles, s.cfg.Now),
		orders: make(chan command), sick: make(chan string, 1), gone: make(chan struct{}),
		state: st, inst: inst, rec: rec, budget: budget{in: rec.Failures, total: rec.Restarts},
	}
	if st == backoff || st == failed {
		u.why = rec.Why
	}
	u.wanted.Store(&seat.Module)
	return u
}

// begin starts the goroutines of a unit.
func (u *unit) begin(ctx context.Context) {
	listen, deafen := context.WithCancel(ctx)
	collected := make(chan struct{})
	u.s.group.Go(func() {
		defer close(collected)
		u.collect(listen)
	})
	u.s.group.Go(func() {
		defer close(u.gone)
		u.run(ctx)
		deafen()
		<-collected
	})
}

// collect moves the module's output into its log.
func (u *unit) collect(ctx context.Context) {
	err := os.MkdirAll(filepath.Dir(u.seat.Log), 0o700)
	var from source
	if err == nil {
		from, err = u.s.openSource(u.seat.Log)
	}
	if err != nil {
		u.log.Error("log not collected", "err", err)
		return
	}
	collect(ctx, from, u.output, u.log)
	if err := errors.Join(from.close(), u.output.Close()); err != nil {
		u.log.Warn("log not closed", "err", err)
	}
}

func (u *unit) module() *deployment.Module { return u.wanted.Load() }

// do gives an order and returns when it has been carried out.
func (u *unit) do(ctx context.Context, o order) error {
	c := command{order: o, done: make(chan error, 1)}
	select {
	case u.orders <- c:
	case <-u.gone:
		return u.absent(o)
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-u.gone:
	}
	select {
	case err := <-c.done: // the last thing it did
		return err
	default:
		return u.absent(o)
	}
}

// absent is what an order to a unit that has ended comes to.
func (u *unit) absent(o order) error {
	if o == orderStart {
		return ErrNoModule
	}
	return nil
}

// unhealthy passes on what the module says of its health; the newest word counts.
func (u *unit) unhealthy(note string) {
	for {
		select {
		case u.sick <- note:
			return
		default:
		}
		select {
		case <-u.sick:
		default:
		}
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

// hold writes down whether an operator wants the module stopped.
func (u *unit) hold(ctx context.Context, held bool) error {
	u.mu.Lock()
	was := u.rec.Held
	u.rec.Held = held
	u.mu.Unlock()
	if was == held {
		return nil
	}
	err := u.save(ctx)
	if err != nil {
		u.mu.Lock()
		u.rec.Held = was
		u.mu.Unlock()
	}
	return err
}

// held tells whether an operator wants the module stopped.
func (u *unit) held() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.rec.Held
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
	if u.inst != nil {
		u.adopt(ctx)
	}
	for {
		timer := time.NewTimer(u.pause())
		select {
		case <-ctx.Done():
			timer.Stop()
			u.s.cfg.Hosting.Shut(u.seat.Module.Name)
			return
		case c := <-u.orders:
			err := u.obey(ctx, c.order)
			c.done <- err
			if c.order == orderRetire && err == nil {
				timer.Stop()
				return
			}
		case note := <-u.sick:
			u.fell(ctx, note)
		case exit := <-u.exits:
			u.ended(ctx, exit)
		case <-timer.C:
			u.tick(ctx)
		}
		timer.Stop()
	}
}

// pause is how long nothing has to be done.
func (u *unit) pause() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	at := time.Duration(1<<63 - 1)
	switch u.state {
	case backoff:
		at = time.Until(u.due)
	case running:
		ran := u.s.cfg.Now().Sub(u.budget.up)
		if !u.rec.Proven {
			at = u.probation() - ran
		}
		if u.budget.in > 0 || u.budget.total > 0 {
			at = min(at, healthyAfter-ran)
		}
	case stopped, starting, stopping, ailing, failed:
	}
	return max(at, 0)
}

// tick does what is due.
func (u *unit) tick(ctx context.Context) {
	switch u.is() {
	case backoff:
		if time.Until(u.due) <= 0 {
			u.move(evDue)
			_ = u.launch(ctx) // it logged, and the state tells
		}
	case running:
		ran := u.s.cfg.Now().Sub(u.budget.up)
		if ran >= u.probation() {
			u.prove(ctx)
		}
		if ran >= healthyAfter {
			u.mu.Lock()
			u.budget = budget{up: u.budget.up}
			u.mu.Unlock()
			signal(u.s.tell)
		}
	case stopped, starting, stopping, ailing, failed:
	}
}

// obey carries out an order.
func (u *unit) obey(ctx context.Context, o order) error {
	now := u.is()
	switch o {
	case orderHold, orderRelease:
		return u.hold(ctx, o == orderHold)
	case orderStart:
		return u.obeyStart(ctx, now)
	case orderStop, orderRetire:
	}
	if now != stopped {
		u.move(evStop)
	}
	if now == running || now == stopping {
		if err := u.halt(ctx); err != nil {
			return err
		}
	}
	return u.clear()
}

// obeyStart has the program running.
func (u *unit) obeyStart(ctx context.Context, now state) error {
	switch now {
	case running:
		return nil
	case stopping:
		return errors.New("the module has not ended yet")
	case stopped, starting, ailing, backoff, failed:
	}
	if u.rec.Ended { // it is wanted again: the next agent must know
		u.mu.Lock()
		u.rec.Ended = false
		u.mu.Unlock()
		if err := u.save(ctx); err != nil {
			return err
		}
	}
	u.mu.Lock()
	u.budget = budget{total: u.budget.total} // somebody asked: a clean sheet
	u.mu.Unlock()
	u.move(evStart)
	return u.launch(ctx)
}

// launch makes the sandbox, opens the doors and lets the program run. State: starting before, running or backoff after.
func (u *unit) launch(ctx context.Context) error {
	start := u.s.cfg.Now()
	inst, err := u.make(ctx)
	if err != nil && ctx.Err() != nil {
		return err // the next agent starts it
	}
	if err != nil {
		u.mu.Lock()
		u.why, u.rec.Why = err.Error(), err.Error()
		if !u.rec.Proven {
			u.rec.Unproven++
		}
		u.mu.Unlock()
		wait := u.delay()
		u.log.Error("module does not start", "err", err, "again", wait)
		u.move(evBroken)
		return err
	}
	u.mu.Lock()
	u.inst, u.why, u.sickly = inst, "", ""
	u.budget.up = u.s.cfg.Now()
	u.mu.Unlock()
	u.watch(ctx, inst)
	u.move(evUp)
	u.log.Info("module runs", "pid", inst.Pid(), "image", u.seat.Image.Digest, "took", u.s.cfg.Now().Sub(start))
	return nil
}

// make gives a running instance; what it made is gone again when it returns an error.
func (u *unit) make(ctx context.Context) (sandbox.Instance, error) {
	u.s.mu.Lock()
	halting := u.s.halting
	u.s.mu.Unlock()
	if halting {
		return nil, errors.New("the agent is stopping")
	}
	if err := u.clear(); err != nil {
		return nil, err
	}
	spec, err := u.s.cfg.Hosting.Spec(ctx, u.seat)
	if err != nil {
		return nil, err
	}
	inst, err := u.s.cfg.Runtime.Create(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("make sandbox: %w", err)
	}
	err = u.s.cfg.Hosting.Open(ctx, u.seat, inst)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = inst.Start()
	}
	if err != nil {
		u.s.cfg.Hosting.Shut(u.seat.Module.Name)
		return nil, errors.Join(err, inst.Destroy())
	}
	return inst, nil
}

// watch has exits get the end of inst.
func (u *unit) watch(ctx context.Context, inst sandbox.Instance) {
	exits := make(chan sandbox.Exit, 1)
	u.exits = exits
	u.s.group.Go(func() {
		exit, err := inst.Wait(ctx)
		switch {
		case err == nil:
			exits <- exit
		case ctx.Err() == nil && !errors.Is(err, sandbox.ErrDestroyed):
			u.log.Error("how the module ended is not known", "err", err)
			exits <- sandbox.Exit{Code: -1, At: u.s.cfg.Now()}
		}
	})
}

// adopt takes over the instance that an earlier agent started. One that cannot be given a way to the agent is of no use and starts
// anew.
func (u *unit) adopt(ctx context.Context) {
	u.mu.Lock()
	inst := u.inst
	u.budget.up = inst.Started()
	u.mu.Unlock()
	u.watch(ctx, inst)
	if u.hash == "" {
		return // it is only to be ended
	}
	if err := u.s.cfg.Hosting.Open(ctx, u.seat, inst); err != nil && !errors.Is(err, sandbox.ErrEnded) && ctx.Err() == nil {
		u.log.Error("adopted module has no way to the agent, it is restarted", "err", err)
		u.sicken(ctx, "no way to the agent: "+err.Error())
		return
	}
	u.log.Info("module adopted", "pid", inst.Pid(), "since", inst.Started())
	signal(u.s.tell)
}

// delay is how long to back off, counted as one more restart.
func (u *unit) delay() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	wait := u.budget.next(u.s.cfg.Now())
	u.rec.Failures, u.rec.Restarts = u.budget.in, u.budget.total
	u.due = time.Now().Add(wait)
	return wait
}

// probation is how long a newly deployed module is watched.
func (u *unit) probation() time.Duration {
	if p := u.module().Settings.Health.Probation; p > 0 {
		return p
	}
	return deployment.DefaultProbation
}

// prove ends the probation of what was newly deployed.
func (u *unit) prove(ctx context.Context) {
	u.mu.Lock()
	was := u.rec.Proven
	u.rec.Proven, u.rec.Unproven = true, 0
	u.mu.Unlock()
	if was {
		return
	}
	if err := u.s.cfg.Commit(u.seat.Image.Digest); err != nil {
		u.log.Error("image not committed", "image", u.seat.Image.Digest, "err", err)
	}
	u.keep(ctx)
	u.log.Info("module has proved itself", "image", u.seat.Image.Digest)
	signal(u.s.tell)
}

// ended deals with a program that ended by itself.
func (u *unit) ended(ctx context.Context, exit sandbox.Exit) {
	if u.is() == stopping { // it was to be killed and could not be
		u.remember(exit, "")
		u.move(evExit)
		u.bury()
		return
	}
	u.remember(exit, "ended with "+describe(exit))
	u.mu.Lock()
	bad := exit.Code != 0 || !exit.Known
	if !u.rec.Proven && bad {
		u.rec.Unproven++
	}
	u.mu.Unlock()
	if again(u.module().Restart, exit, false) {
		wait := u.delay()
		u.log.Warn("module ended, it is started again", "exit", describe(exit), "again", wait)
		u.move(evExit)
	} else {
		u.mu.Lock()
		u.rec.Ended = true
		u.mu.Unlock()
		if !bad {
			u.prove(ctx) // it did its work
		}
		u.log.Warn("module ended", "exit", describe(exit), "policy", u.module().Restart.String())
		u.move(evDone)
	}
	u.keep(ctx) // before the instance goes, which is the other witness of its end
	u.bury()
}

// remember takes the end of the instance into the record.
func (u *unit) remember(exit sandbox.Exit, why string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.why, u.sickly = why, ""
	u.rec.Exit, u.rec.Exited, u.rec.Why, u.rec.Began = exit.Code, exit.At, why, u.inst.Started()
}

// bury removes an instance whose program has ended.
func (u *unit) bury() {
	if err := u.clear(); err != nil {
		u.log.Error("sandbox not removed, before the next start it is tried again", "err", err)
	}
}

// clear removes what is left of the instance, if anything.
func (u *unit) clear() error {
	u.mu.Lock()
	inst := u.inst
	u.mu.Unlock()
	if inst == nil {
		return nil
	}
	u.s.cfg.Hosting.Shut(u.seat.Module.Name)
	if err := inst.Destroy(); err != nil {
		return fmt.Errorf("remove sandbox: %w", err)
	}
	u.mu.Lock()
	u.inst, u.exits = nil, nil
	u.mu.Unlock()
	return nil
}

// halt ends the program because it is not wanted. State: stopping before, stopped after.
func (u *unit) halt(ctx context.Context) error {
	exit, err := u.end(ctx)
	if err != nil {
		u.note("not stopped: " + err.Error())
		return err
	}
	u.remember(exit, "")
	err = u.clear()
	u.move(evExit)
	u.log.Info("module stopped", "exit", describe(exit))
	return err
}

// end asks the program to end, gives it the grace time, and kills it. When the agent ends meanwhile the module is left as it is: the
// next agent finds it unwanted and does it again.
func (u *unit) end(ctx context.Context) (sandbox.Exit, error) {
	u.mu.Lock()
	inst := u.inst
	u.mu.Unlock()
	sig, err := sandbox.ParseSignal(u.seat.stopSignal())
	if err != nil {
		return sandbox.Exit{}, err
	}
	grace := u.module().Settings.StopTimeout
	if grace == 0 {
		grace = deployment.DefaultStopTimeout
	}
	if err := inst.Signal(sig); err != nil && !errors.Is(err, sandbox.ErrEnded) {
		u.log.Warn("stop signal not delivered", "err", err)
		grace = 0
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	for {
		select {
		case exit := <-u.exits:
			return exit, nil
		case <-ctx.Done():
			return sandbox.Exit{}, ctx.Err()
		case <-timer.C:
			u.log.Warn("module does not end in time, it is killed", "grace", grace)
			if err := inst.Kill(); err != nil {
				return sandbox.Exit{}, fmt.Errorf("kill: %w", err)
			}
		}
	}
}

// fell handles what a module says of its health.
func (u *unit) fell(ctx context.Context, note string) {
	u.mu.Lock()
	news := u.sickly != note
	if u.state == running {
		u.sickly = note
	}
	ill := u.state == running && note != ""
	u.mu.Unlock()
	if news {
		signal(u.s.tell)
	}
	if ill && u.module().Restart != deployment.Never {
		u.log.Warn("module says it is unhealthy, it is ended", "note", note)
		u.sicken(ctx, "unhealthy: "+note)
	}
}

// sicken ends a running program that another one is to replace.
func (u *unit) sicken(ctx context.Context, why string) {
	u.move(evSick)
	exit, err := u.end(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		u.log.Error("unhealthy module not ended", "err", err)
		exit = sandbox.Exit{Code: -1, At: u.s.cfg.Now()} // Destroy kills too
	}
	u.remember(exit, why)
	u.mu.Lock()
	if !u.rec.Proven {
		u.rec.Unproven++
	}
	u.mu.Unlock()
	u.delay()
	u.move(evExit)
	u.keep(ctx)
	u.bury()
}

// save writes the unit's record.
func (u *unit) save(ctx context.Context) error {
	u.mu.Lock()
	rec := u.rec
	u.mu.Unlock()
	return u.s.saveRecord(ctx, u.seat.Module.Name, rec)
}

// keep is save where the module has to go on even when the record cannot be written.
func (u *unit) keep(ctx context.Context) {
	if err := u.save(ctx); err != nil && ctx.Err() == nil {
		u.log.Error("record of the module not stored; the next agent will not know of its end", "err", err)
	}
}

// failing says why a newly deployed module is not as it should be, "" when it is.
func (u *unit) failing() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.rec.Proven || u.rec.Unproven <= u.module().Settings.Health.Restarts {
		return ""
	}
	return fmt.Sprintf("module %s has not run for %s yet, %d failures: %s", u.seat.Module.Name, u.probation(), u.rec.Unproven, u.rec.Why)
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
	case e.Code == stayDown:
		return fmt.Sprintf("exit code %d, which asks not to be started again", stayDown)
	}
	return fmt.Sprintf("exit code %d", e.Code)
}
