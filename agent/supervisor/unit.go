package supervisor

import (
	"context"
	"errors"
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
	orderRelease              // write down that no operator wants it stopped
	orderHold                 // an operator wants it stopped, until he or a new deployment says otherwise
	orderResume               // an operator wants it running
	orderRenew                // an operator wants another program in its place
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
	sick   [sources]chan opinion // capacity 1 each: words on its health
	made   time.Time
	beat   atomic.Int64  // when it last said that it is well, nanoseconds since made: the device's clock may jump by years
	noted  chan struct{} // capacity 1: the record holds something that is not written yet
	gone   chan struct{}
	over   bool // it was retired: nothing of it is left; to be read when gone is closed

	exits chan sandbox.Exit // of inst; the goroutine's own

	mu       sync.Mutex // guards what follows, which the goroutine writes and anybody reads
	state    state
	inst     sandbox.Instance
	why      string
	rec      record
	budget   budget
	due      time.Time       // of the next start, while backing off
	sickly   [sources]string // what is wrong with it; "" = nothing
	offences [offenceEnd]offending
	refused  refused
	pins     deployment.Pins
}

// newUnit makes a unit in a state; begin starts it. inst is what an earlier agent left: what runs, or could not be
// removed.
func (s *Supervisor) newUnit(seat Seat, rec record, st state, inst sandbox.Instance) *unit {
	name := seat.Module.Name
	u := &unit{
		s: s, seat: seat, hash: rec.Hash, log: s.cfg.Logger.With("module", name),
		output: newLogFile(filepath.Join(s.cfg.LogDir, name), s.shelf, s.cfg.Now),
		orders: make(chan command), sick: [sources]chan opinion{make(chan opinion, 1), make(chan opinion, 1)}, noted: make(chan struct{}, 1), gone: make(chan struct{}),
		made: time.Now(), state: st, inst: inst, rec: rec, budget: budget{in: rec.Failures, total: rec.Restarts},
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
	var collecting sync.WaitGroup
	for i, path := range []string{Stdout: u.seat.Log, Stderr: u.seat.ErrLog} {
		collecting.Add(1)
		u.s.group.Go(func() {
			defer collecting.Done()
			u.collect(listen, Stream(i), path)
		})
	}
	u.s.group.Go(func() {
		defer close(u.gone)
		u.run(ctx)
		deafen()
		collecting.Wait()
		if err := u.output.Close(); err != nil {
			u.log.Warn("log not closed", "err", err)
		}
	})
}

// collect moves one stream of the module into its log.
func (u *unit) collect(ctx context.Context, stream Stream, path string) {
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	var from source
	if err == nil {
		from, err = u.s.openSource(path)
	}
	if err != nil {
		u.log.Error("log not collected", "stream", stream.String(), "err", err)
		return
	}
	collector{stream, from, u.output, u.log}.run(ctx)
	if err := from.close(); err != nil {
		u.log.Warn("log not closed", "stream", stream.String(), "err", err)
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

// errEnding is the answer to an order that comes when the agent is about to end.
var errEnding = errors.New("the agent ends; ask its successor")

// absent is what an order to a unit that has ended comes to.
func (u *unit) absent(o order) error {
	switch {
	case !u.over:
		return errEnding
	case o == orderStart || o == orderResume || o == orderRenew:
		return ErrNoModule
	}
	return nil
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
	if u.inst != nil && u.state == running { // else only what is left of one
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
				u.over = true
				timer.Stop()
				return
			}
		case o := <-u.sick[itself]:
			u.fell(ctx, o)
		case o := <-u.sick[checks]:
			u.fell(ctx, o)
		case exit := <-u.exits:
			u.ended(ctx, exit)
		case <-u.noted:
			u.keep(ctx)
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
		u.mu.Lock()
		due := time.Until(u.due) <= 0
		u.mu.Unlock()
		if due {
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
	switch o {
	case orderRelease, orderHold, orderResume, orderRenew:
		return u.decided(ctx, o)
	case orderStart:
		if u.held() { // an operator was faster
			return nil
		}
		return u.bringUp(ctx)
	case orderStop, orderRetire:
	}
	u.mu.Lock()
	u.rec.Renew = time.Time{} // nobody wants another one either
	u.mu.Unlock()
	return u.bringDown(ctx)
}

// bringDown has the program ended.
func (u *unit) bringDown(ctx context.Context) error {
	now := u.is()
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

// bringUp has the program running.
func (u *unit) bringUp(ctx context.Context) error {
	switch u.is() {
	case running:
		return nil
	case stopping:
		return errors.New("the module has not ended yet")
	case stopped, starting, ailing, backoff, failed:
	}
	if u.rec.Ended { // it is wanted again: the next agent must know
		if err := u.decide(ctx, func(d *decision) { d.Ended = false }); err != nil {
			return err
		}
	}
	u.mu.Lock()
	u.budget = budget{total: u.budget.total} // somebody asked: a clean sheet
	u.mu.Unlock()
	u.move(evStart)
	return u.launch(ctx)
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
