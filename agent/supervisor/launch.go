package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

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
		u.keep(ctx) // how often it failed
		return err
	}
	u.mu.Lock()
	u.inst, u.why, u.sickly = inst, "", [sources]string{}
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
	for _, words := range u.sick { // on the one before
		select {
		case <-words:
		default:
		}
	}
	life, end := context.WithCancel(ctx)
	u.s.group.Go(func() { u.examine(life, inst) })
	u.s.group.Go(func() {
		defer end()
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
	u.budget.up = u.s.cfg.Now().Add(-u.s.age(inst))
	u.mu.Unlock()
	u.watch(ctx, inst)
	if u.hash == "" {
		return // it is only to be ended
	}
	if why := u.rec.Ailing; why != "" {
		u.log.Warn("adopted module was being ended as it is unhealthy, that goes on", "note", why)
		u.sicken(ctx, why, u.afterIllness())
		return
	}
	if u.renewing(inst) {
		u.log.Info("adopted module was being restarted by an operator, that goes on")
		if err := u.renew(ctx); err != nil && ctx.Err() == nil {
			u.log.Error("module not restarted", "err", err)
		}
		return
	}
	if err := u.s.cfg.Hosting.Open(ctx, u.seat, inst); err != nil && !errors.Is(err, sandbox.ErrEnded) && ctx.Err() == nil {
		u.log.Error("adopted module has no way to the agent, it is restarted", "err", err)
		u.sicken(ctx, "no way to the agent: "+err.Error(), evExit)
		return
	}
	u.log.Info("module adopted", "pid", inst.Pid(), "since", inst.Started())
	signal(u.s.tell)
}

// age is how long ago an instance began.
func (s *Supervisor) age(inst sandbox.Instance) time.Duration {
	if pid := inst.Pid(); pid != 0 && s.cfg.Age != nil {
		if age, err := s.cfg.Age(pid); err == nil {
			return age
		}
	}
	return max(s.cfg.Now().Sub(inst.Started()), 0) // it has ended meanwhile
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

// failing says why a newly deployed module is not as it should be, "" when it is.
func (u *unit) failing() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.rec.Proven || u.rec.Unproven <= u.module().Settings.Health.Restarts {
		return ""
	}
	return fmt.Sprintf("module %s has not run for %s yet, failures: %d, the last: %s", u.seat.Module.Name, u.probation(), u.rec.Unproven, u.rec.Why)
}
