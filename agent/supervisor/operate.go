package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// ErrNotRunning is returned for a verb that needs a program that runs.
var ErrNotRunning = errors.New("the module does not run")

// errNotOffered is returned for what this runtime has no means for.
var errNotOffered = errors.New("this runtime cannot do that")

// instance is the running instance of a module, and what it was made from.
func (s *Supervisor) instance(name string) (*unit, sandbox.Instance, error) {
	u, err := s.unit(name)
	if err != nil {
		return nil, nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.inst == nil || u.state != running && u.state != stopping && u.state != ailing {
		return u, nil, ErrNotRunning
	}
	return u, u.inst, nil
}

// Pause holds every process of a module where it is, until Resume. It stays paused over restarts of the agent.
func (s *Supervisor) Pause(name string) error {
	return s.hold(name, sandbox.Pauser.Pause, "pause")
}

// Resume lets a paused module go on.
func (s *Supervisor) Resume(name string) error {
	return s.hold(name, sandbox.Pauser.Resume, "resume")
}

func (s *Supervisor) hold(name string, act func(sandbox.Pauser) error, verb string) error {
	u, inst, err := s.instance(name)
	if err != nil {
		return err
	}
	p, ok := inst.(sandbox.Pauser)
	if !ok {
		return errNotOffered
	}
	u.beats() // it could not, and is given its time anew
	if err := act(p); err != nil {
		return err
	}
	u.log.Info("module held or let go by an operator", "verb", verb)
	signal(s.tell)
	return nil
}

func paused(inst sandbox.Instance) bool {
	p, ok := inst.(sandbox.Pauser)
	return ok && p.Paused()
}

// Stats tells what a module uses now.
func (s *Supervisor) Stats(name string) (sandbox.Stats, error) {
	_, inst, err := s.instance(name)
	if err != nil {
		return sandbox.Stats{}, err
	}
	return inst.Stats()
}

// Seat is what a module was given.
func (s *Supervisor) Seat(name string) (Seat, error) {
	u, err := s.unit(name)
	if err != nil {
		return Seat{}, err
	}
	seat := u.seat
	seat.Module = *u.module()
	return seat, nil
}

// Exec runs one more program in a module's sandbox and returns when it has ended; the end of ctx kills it.
func (s *Supervisor) Exec(ctx context.Context, name string, c sandbox.Command) (sandbox.Exit, error) {
	u, inst, err := s.instance(name)
	if err != nil {
		return sandbox.Exit{}, err
	}
	runner, ok := inst.(sandbox.Execer)
	switch {
	case !ok:
		return sandbox.Exit{}, errNotOffered
	case paused(inst):
		return sandbox.Exit{}, errors.New("the module is paused; resume it first")
	}
	u.log.Info("program runs in the module for an operator", "program", c.Args[0])
	return runner.Exec(ctx, c)
}

// Reason says in one line why a module is or is not running.
func (m Module) Reason(now time.Time) string {
	again := ""
	if m.Restarts > 0 {
		again = fmt.Sprintf("; started again %d times in a row", m.Restarts)
	}
	ran := func() string {
		if m.Started.IsZero() {
			return ""
		}
		return fmt.Sprintf(" since %s (%s)", m.Started.UTC().Format(time.RFC3339), now.Sub(m.Started).Round(time.Second))
	}
	switch {
	case m.Paused:
		return fmt.Sprintf("it is paused by an operator; `sandpiper module resume %s` lets it go on", m.Wanted.Name)
	case m.Status == deployment.RuntimeUnhealthy:
		return "it runs" + ran() + " and is unhealthy: " + m.Why + again
	case m.Status == deployment.RuntimeRunning:
		return "it runs" + ran() + " and nothing is known against it" + again
	case m.Held:
		return fmt.Sprintf("an operator stopped it; `sandpiper module start %s` starts it", m.Wanted.Name)
	case m.Wanted.Status == deployment.StatusStopped:
		return "the deployment wants it stopped"
	case m.Status == deployment.RuntimeBackoff && !m.Next.IsZero():
		return fmt.Sprintf("%s; it is started again at %s (in %s)%s", m.Why, m.Next.UTC().Format(time.RFC3339), max(m.Next.Sub(now), 0).Round(time.Second), again)
	case m.Status == deployment.RuntimeBackoff:
		return "it is being started" + again
	case m.Ended:
		return fmt.Sprintf("%s at %s, and its restart policy is %s; `sandpiper module start %s` starts it",
			m.Why, m.Exited.UTC().Format(time.RFC3339), m.Wanted.Restart, m.Wanted.Name)
	}
	return "it is " + m.Status + ": " + m.Why
}
