package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// recover adopts the instances of an earlier agent that the records know, and ends the others.
func (s *Supervisor) recover(ctx context.Context) error {
	found, err := s.cfg.Runtime.Recover(ctx)
	if err != nil {
		return fmt.Errorf("recover sandboxes: %w", err)
	}
	wanted := deployment.Agent{}
	if now := s.cfg.Twins.Snapshot(s.id); now.Known {
		if wanted, err = deployment.ParseAgent(now.Desired); err != nil {
			s.cfg.Logger.Warn("the stored deployment is not understood; what runs is left alone until it is", "err", err)
		}
	}
	for _, inst := range found {
		if err := s.adopt(ctx, wanted, inst); err != nil {
			s.cfg.Logger.Warn("instance of an earlier agent ended", "instance", inst.ID(), "why", err)
			if err := inst.Destroy(); err != nil {
				s.cfg.Logger.Error("sandbox not removed", "instance", inst.ID(), "err", err)
			}
		}
	}
	return nil
}

// adopt makes a unit of an instance; an error says why that cannot be.
func (s *Supervisor) adopt(ctx context.Context, wanted deployment.Agent, inst sandbox.Instance) error {
	name := inst.ID()
	m := wanted.Find(name)
	rec, ok, err := s.loadRecord(name)
	switch {
	case err != nil:
		return err
	case !ok:
		return errors.New("there is no record of it")
	case m == nil:
		return errors.New("it is not in the deployment")
	case m.Hash() != rec.Hash:
		return errors.New("the deployment wants another one")
	}
	seat, err := s.seat(ctx, *m, rec.Image)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped[name] = rec.Down
	s.units[name] = s.newUnit(ctx, seat, inst)
	return nil
}

func (s *Supervisor) seat(ctx context.Context, m deployment.Module, img Image) (Seat, error) {
	base, err := s.idBase(ctx, m.Name)
	return Seat{Module: m, Image: img, IDBase: base, Log: filepath.Join(s.cfg.FIFODir, m.Name)}, err
}

// apply makes the units equal the deployment. True: something is missing that may be had later.
func (s *Supervisor) apply(ctx context.Context) (retry bool) {
	now := s.cfg.Twins.Snapshot(s.id)
	if !now.Known {
		return false
	}
	wanted, err := deployment.ParseAgent(now.Desired)
	if err == nil {
		err = s.carryOut(ctx, wanted)
		var final *deployment.Error
		retry = err != nil && !errors.As(err, &final)
	}
	if ctx.Err() != nil {
		return false
	}
	log := s.cfg.Logger.With("deployment", now.DesiredVersion)
	s.mu.Lock()
	news := s.version != now.DesiredVersion
	s.version, s.status = now.DesiredVersion, deployment.StatusOf(err)
	s.mu.Unlock()
	switch {
	case err != nil:
		log.Error("deployment not applied", "err", err)
	case news:
		log.Info("deployment applied", "modules", len(wanted.Modules))
	}
	signal(s.tell)
	return retry
}

// Plan lists what applying a deployment would do now.
func (s *Supervisor) Plan(wanted deployment.Agent) []deployment.Step {
	return deployment.Plan(s.running(), wanted.Modules)
}

// running is what is here, for a plan.
func (s *Supervisor) running() []deployment.Running {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]deployment.Running, 0, len(s.units))
	for name, u := range s.units {
		r := deployment.Running{Name: name, Hash: u.seat.Module.Hash(), Order: u.module().Order}
		if now := u.is(); now != stopped && now != stopping { // a module's own end holds until its deployment changes
			r.State = deployment.Live
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b deployment.Running) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// carryOut fetches everything, and only then stops and starts.
func (s *Supervisor) carryOut(ctx context.Context, wanted deployment.Agent) error {
	images := map[string]Image{}
	steps := s.Plan(wanted)
	for _, step := range steps {
		if step.Verb != deployment.Fetch {
			continue
		}
		img, err := s.cfg.Images.Fetch(ctx, *wanted.Find(step.Module))
		if err != nil {
			return fmt.Errorf("image of module %s: %w", step.Module, err)
		}
		images[step.Module] = img
	}
	var failures []error
	for _, step := range steps {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := s.step(ctx, step, wanted, images); err != nil { // one module that does not start holds up no other
			failures = append(failures, fmt.Errorf("%s %s: %w", step.Verb, step.Module, err))
		}
	}
	s.adjust(wanted)
	s.mu.Lock()
	s.applied = wanted
	keep := make([]string, 0, len(s.units))
	for _, u := range s.units {
		keep = append(keep, u.seat.Image.Digest)
	}
	s.mu.Unlock()
	if err := s.cfg.Images.Keep(ctx, keep); err != nil {
		s.cfg.Logger.Warn("unused images not removed", "err", err)
	}
	if len(failures) > 0 { // each is logged and backs off by itself: the deployment as such is in force
		return startError{errors.Join(failures...)}
	}
	return nil
}

// startError says that the deployment is in force but a module of it does not run.
type startError struct{ error }

func (e startError) Unwrap() error { return e.error }

// Error is one line.
func (e startError) Error() string { return strings.ReplaceAll(e.error.Error(), "\n", "; ") }

// step carries out one step of a plan.
func (s *Supervisor) step(ctx context.Context, step deployment.Step, wanted deployment.Agent, images map[string]Image) error {
	s.mu.Lock()
	u := s.units[step.Module]
	s.mu.Unlock()
	switch step.Verb {
	case deployment.Fetch:
		return nil // done before
	case deployment.Stop:
		return u.do(ctx, orderStop)
	case deployment.Remove:
		return s.remove(ctx, u, wanted.Find(step.Module) != nil)
	case deployment.Create:
		return s.create(ctx, *wanted.Find(step.Module), images[step.Module])
	case deployment.Start:
		s.mu.Lock()
		down := s.stopped[step.Module]
		s.mu.Unlock()
		if down {
			return nil
		}
		return u.do(ctx, orderStart)
	}
	return fmt.Errorf("unknown step %s", step)
}

// create writes the unit's record and makes the unit.
func (s *Supervisor) create(ctx context.Context, m deployment.Module, img Image) error {
	rec, _, err := s.loadRecord(m.Name)
	if err != nil {
		return err
	}
	hash := m.Hash()
	down := rec.Down && rec.Hash == hash // a changed module is a new decision
	if err := s.saveRecord(ctx, m.Name, record{Hash: hash, Order: m.Order, Image: img, Down: down}); err != nil {
		return err
	}
	seat, err := s.seat(ctx, m, img)
	if err != nil {
		return err
	}
	u := s.newUnit(ctx, seat, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.units[m.Name], s.stopped[m.Name] = u, down
	return nil
}

// remove ends a unit; a module that does not come back loses its record and its identity too.
func (s *Supervisor) remove(ctx context.Context, u *unit, comesBack bool) error {
	if err := u.do(ctx, orderRetire); err != nil {
		return err
	}
	name := u.seat.Module.Name
	s.mu.Lock()
	delete(s.units, name)
	delete(s.stopped, name)
	s.mu.Unlock()
	if comesBack {
		return nil
	}
	if err := s.cfg.Docs.Put(ctx, recordPrefix+name, nil); err != nil {
		return err
	}
	return s.cfg.Hosting.Removed(ctx, name)
}

// adjust hands what needs no restart (policies, order) to units that stay.
func (s *Supervisor) adjust(wanted deployment.Agent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range wanted.Modules {
		if u := s.units[m.Name]; u != nil {
			u.wanted.Store(&m)
		}
	}
}

// descending lists the keys of m, largest first.
func descending[V any](m map[uint32]V) []uint32 {
	keys := slices.Sorted(maps.Keys(m))
	slices.Reverse(keys)
	return keys
}
