package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// ended deals with a program that ended by itself.
func (u *unit) ended(ctx context.Context, exit sandbox.Exit) {
	u.mu.Lock()
	inst := u.inst
	u.mu.Unlock()
	u.count(inst)
	switch u.is() { // it was to be killed and could not be
	case stopping:
		u.remember(exit, "")
		renew := u.renewing(inst)
		u.move(evExit)
		u.bury()
		if renew {
			_ = u.bringUp(ctx) // it logged, and the state tells
		}
		return
	case backoff, failed: // what is to become of it was decided then
		u.bury()
		return
	case stopped, starting, running, ailing:
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
	u.why, u.sickly, u.rec.Ailing = why, [sources]string{}, ""
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

// killPatience is how long a killed program may take: the kernel ends it in a moment, unless it hangs in a driver.
const killPatience = 30 * time.Second

// end asks the program to end, gives it the grace time, and kills it; one that hangs in the kernel is an error. When the agent ends
// meanwhile the module is left as it is: the next agent finds it unwanted and does it again.
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
	if p, ok := inst.(sandbox.Pauser); ok { // it could not hear
		if err := p.Resume(); err != nil {
			u.log.Warn("paused module not resumed", "err", err)
		}
	}
	if err := inst.Signal(sig); err != nil && !errors.Is(err, sandbox.ErrEnded) {
		u.log.Warn("stop signal not delivered", "err", err)
		grace = 0
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	for killed := false; ; {
		select {
		case exit := <-u.exits:
			return exit, nil
		case <-ctx.Done():
			return sandbox.Exit{}, ctx.Err()
		case <-timer.C:
			if killed {
				return sandbox.Exit{}, fmt.Errorf("process %d does not end after SIGKILL; a device driver may hang, see dmesg; restart the device if it stays so", inst.Pid())
			}
			killed = true
			timer.Reset(killPatience)
			u.log.Warn("module does not end in time, it is killed", "grace", grace)
			u.offend(Deafness, 1, "")
			if err := inst.Kill(); err != nil {
				return sandbox.Exit{}, fmt.Errorf("kill: %w", err)
			}
		}
	}
}

// sicken ends a running program that is not well; then says whether another one is to replace it (evExit) or not (evDone).
func (u *unit) sicken(ctx context.Context, why string, then event) {
	u.mu.Lock()
	u.rec.Ailing = why
	u.mu.Unlock()
	u.keep(ctx) // before it ends: the next agent could take that for its own decision
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
	if then == evDone {
		u.mu.Lock()
		u.rec.Ended = true
		u.mu.Unlock()
	} else {
		u.delay()
	}
	u.move(then)
	u.keep(ctx)
	u.bury()
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
