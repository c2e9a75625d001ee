package supervisor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// recover makes the units that an earlier agent had, with their instances, and goes on with the deployment it was carrying out. That is
// the applied one, not the twin's: the twin may hold one that was refused, or whose images are not here yet. No network is needed.
func (s *Supervisor) recover(ctx context.Context) error {
	instances := map[string]sandbox.Instance{}
	found, err := s.cfg.Runtime.Recover(ctx)
	if err != nil {
		return fmt.Errorf("recover sandboxes: %w", err)
	}
	for _, inst := range found {
		instances[inst.ID()] = inst
	}
	records, err := s.records()
	if err != nil {
		return err
	}
	understood, err := s.loadApplied()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(records)) {
		u, err := s.revive(ctx, name, records[name], instances[name])
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		delete(instances, name)
		s.mu.Lock()
		s.units[name] = u
		s.mu.Unlock()
		u.begin(ctx)
	}
	close(s.found)
	s.shelf.sweep(s.cfg.LogDir)
	for id, inst := range instances {
		s.cfg.Logger.Warn("instance that no record knows is ended", "instance", id)
		if err := inst.Destroy(); err != nil {
			s.cfg.Logger.Error("sandbox not removed", "instance", id, "err", err)
		}
	}
	if !understood {
		return nil
	}
	if err := s.execute(ctx); err != nil && ctx.Err() == nil {
		s.cfg.Logger.Error("deployment not carried out to its end", "deployment", s.plan.Version, "err", err)
		signal(s.kick)
	}
	return nil
}

// loadApplied reads the deployment in force; false when there is none. One that this agent does not understand, as after a return to an
// older agent, changes nothing: what runs goes on, if without a way to this agent, until the twin has a deployment that is understood.
func (s *Supervisor) loadApplied() (bool, error) {
	var plan applied
	ok, err := s.load(appliedKey, &plan)
	if err != nil || !ok {
		return false, err
	}
	wanted, err := deployment.ParseAgent(plan.Desired)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version, s.status = plan.Version, deployment.StatusOf(err)
	if err != nil {
		s.cfg.Logger.Error("the deployment in force is not understood by this agent; what runs is left alone", "deployment", plan.Version, "err", err)
		return false, nil
	}
	s.plan, s.applied = plan, wanted
	return true, nil
}

// revive makes the unit of a record.
func (s *Supervisor) revive(ctx context.Context, name string, rec record, inst sandbox.Instance) (*unit, error) {
	m := deployment.Module{Name: name, Order: rec.Order} // enough to end and remove it
	m.Settings.Create.StopSignal = rec.Stop
	if wanted := s.applied.Find(name); wanted != nil && wanted.Hash() == rec.Hash {
		m = *wanted
	} else {
		rec.Hash = ""
	}
	if rec.Under != 0 && s.plan.Version != 0 && rec.Under != s.plan.Version && rec.Under != s.newest() {
		rec.Held, rec.Under = false, 0
	}
	seat, err := s.seat(ctx, m, rec.Image)
	if err != nil {
		return nil, err
	}
	if inst != nil && rec.counts(inst) { // it ended, that is on record, and the agent with it
		if err := inst.Destroy(); err != nil { // before the next start it is tried again
			s.cfg.Logger.Error("sandbox not removed", "module", name, "err", err)
		} else {
			inst = nil
		}
	}
	st := stopped
	switch {
	case inst != nil && !rec.counts(inst):
		st = running
	case rec.Ended:
		st = failed
	case rec.Failures > 0:
		st = backoff
	}
	u := s.newUnit(seat, rec, st, inst)
	if st == backoff {
		b := budget{in: rec.Failures - 1}
		u.due = time.Now().Add(b.next(time.Time{}) - max(s.cfg.Now().Sub(rec.Exited), 0)) // the clock may have been set since
	}
	return u, nil
}
