package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// apply makes the units equal the deployment in the twin. True: something is missing that may be had later.
func (s *Supervisor) apply(ctx context.Context) (retry bool) {
	now := s.cfg.Twins.Snapshot(s.id)
	if !now.Known {
		return false
	}
	wanted, err := deployment.ParseAgent(now.Desired)
	s.mu.Lock()
	news := s.version != now.DesiredVersion
	s.mu.Unlock()
	if err == nil {
		err = s.carryOut(ctx, wanted, applied{V: recordVersion, Version: now.DesiredVersion, Desired: now.Desired})
		_, final := errors.AsType[*deployment.Error](err)
		retry = err != nil && !final
	}
	if ctx.Err() != nil || errors.Is(err, errSuperseded) {
		return false
	}
	s.mu.Lock()
	s.version, s.status = now.DesiredVersion, deployment.StatusOf(err)
	none := deployment.IsEmpty(err) && len(s.plan.Desired) == 0
	s.mu.Unlock()
	log := s.cfg.Logger.With("deployment", now.DesiredVersion)
	switch {
	case none:
		log.Info("nothing is deployed to this device yet")
	case err != nil:
		log.Error("deployment not applied", "err", err)
	case news:
		for _, note := range wanted.Notes {
			log.Warn("accepted without effect", "note", note)
		}
		log.Info("deployment applied", "modules", len(wanted.Modules))
	}
	signal(s.tell)
	return retry
}

// carryOut fetches and checks everything, writes down what is to be, and only then stops and starts.
func (s *Supervisor) carryOut(ctx context.Context, wanted deployment.Agent, plan applied) error {
	plan.Images = map[string]Image{}
	s.mu.Lock()
	fresh := s.plan.Version != plan.Version || string(s.plan.Desired) != string(plan.Desired)
	var known map[string]Image
	if !fresh {
		known = s.plan.Images
	}
	for _, u := range s.units {
		plan.Images[u.seat.Module.Name] = u.seat.Image
	}
	s.mu.Unlock()
	fetching, stop := s.untilSuperseded(ctx, plan.Version)
	err := s.fetchAll(fetching, wanted, plan, known)
	stop()
	if err != nil {
		return err
	}
	for name := range plan.Images {
		if wanted.Find(name) == nil {
			delete(plan.Images, name)
		}
	}
	if fresh {
		if err := s.store(ctx, appliedKey, plan); err != nil {
			return err
		}
		if err := s.release(ctx, plan.Version); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.plan, s.applied = plan, wanted
	s.mu.Unlock()
	return s.execute(ctx)
}

// fetchAll has every image that the deployment needs here and noted in the plan.
func (s *Supervisor) fetchAll(ctx context.Context, wanted deployment.Agent, plan applied, known map[string]Image) error {
	for _, step := range s.Plan(wanted) {
		if step.Verb != deployment.Fetch {
			continue
		}
		m := *wanted.Find(step.Module)
		if img, ok := known[m.Name]; ok { // fetched before for this very deployment
			plan.Images[m.Name] = img
			continue
		}
		img, err := s.cfg.Images.Fetch(ctx, m)
		if cause := context.Cause(ctx); errors.Is(cause, errSuperseded) {
			return cause
		}
		if err != nil {
			return fmt.Errorf("image of module %s: %w", m.Name, err)
		}
		if _, err := sandbox.ParseSignal((Seat{Module: m, Image: img}).stopSignal()); err != nil {
			return &deployment.Error{Path: "modules." + m.Name + ".settings", Why: err.Error(), Code: deployment.CodeFormat}
		}
		plan.Images[m.Name] = img
	}
	return nil
}

// release lets go of what operators stopped before they could know of this version: a new deployment is a new decision.
func (s *Supervisor) release(ctx context.Context, version int64) error {
	s.mu.Lock()
	units := s.listLocked()
	s.mu.Unlock()
	var errs []error
	for _, u := range units {
		if !u.heldUnder(version) {
			errs = append(errs, u.do(ctx, orderRelease))
		}
	}
	return errors.Join(errs...)
}

// execute takes the steps from what is here to the applied deployment. Nothing is fetched. One module that fails holds up no other.
func (s *Supervisor) execute(ctx context.Context) error {
	s.mu.Lock()
	wanted, images := s.applied, s.plan.Images
	for _, m := range wanted.Modules { // what needs no restart: policies, order, times
		if u := s.units[m.Name]; u != nil && u.hash == m.Hash() {
			u.wanted.Store(&m)
		}
	}
	held := map[string]bool{}
	for name, u := range s.units {
		held[name] = u.held()
	}
	s.mu.Unlock()
	effective := wanted
	effective.Modules = slices.Clone(wanted.Modules)
	for i := range effective.Modules {
		if held[effective.Modules[i].Name] {
			effective.Modules[i].Status = deployment.StatusStopped
		}
	}
	errs := s.takeDown(ctx, effective)
	if ctx.Err() != nil { // what was not ended goes on, and is the next agent's
		return ctx.Err()
	}
	errs = append(errs, s.bringUp(ctx, effective, images)...)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.mu.Lock()
	keep := make([]string, 0, len(s.units))
	for _, u := range s.units {
		keep = append(keep, u.seat.Image.Digest)
	}
	s.mu.Unlock()
	slices.Sort(keep)
	if err := s.cfg.Images.Keep(ctx, slices.Compact(keep)); err != nil {
		s.cfg.Logger.Warn("unused images not removed", "err", err)
	}
	return errors.Join(errs...)
}

// takeDown stops and removes. Modules of the same startup order are stopped side by side, as each may take its grace time.
func (s *Supervisor) takeDown(ctx context.Context, wanted deployment.Agent) []error {
	stops := map[uint32][]*unit{}
	var removals []*unit
	s.mu.Lock()
	for _, step := range deployment.Plan(s.runningLocked(), wanted.Modules) {
		u := s.units[step.Module]
		switch step.Verb {
		case deployment.Stop:
			stops[u.module().Order] = append(stops[u.module().Order], u)
		case deployment.Remove:
			removals = append(removals, u)
		case deployment.Fetch, deployment.Create, deployment.Start:
		}
	}
	s.mu.Unlock()
	errs := s.stopUnits(ctx, stops)
	for _, u := range removals {
		if err := s.remove(ctx, u, wanted.Find(u.seat.Module.Name) != nil); err != nil {
			errs = append(errs, fmt.Errorf("remove module %s: %w", u.seat.Module.Name, err))
		}
	}
	return errs
}

// ascending are the startup orders that occur, the lowest first.
func ascending[T any](of map[uint32]T) []uint32 {
	orders := slices.Collect(maps.Keys(of))
	sort.Slice(orders, func(i, j int) bool { return orders[i] < orders[j] })
	return orders
}

// stopUnits stops units, the highest startup order first.
func (s *Supervisor) stopUnits(ctx context.Context, orders map[uint32][]*unit) (errs []error) {
	var mu sync.Mutex // guards errs
	for _, order := range slices.Backward(ascending(orders)) {
		var all sync.WaitGroup
		for _, u := range orders[order] {
			all.Go(func() {
				if err := u.do(ctx, orderStop); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, fmt.Errorf("stop module %s: %w", u.seat.Module.Name, err))
				}
			})
		}
		all.Wait()
	}
	return errs
}

// startsAtOnce is how many modules of one startup order are made side by side: a start is mostly waiting for the kernel.
const startsAtOnce = 4

// bringUp installs and starts, along the startup order. A module that does not start tries again by itself and is no error here.
func (s *Supervisor) bringUp(ctx context.Context, wanted deployment.Agent, images map[string]Image) (errs []error) {
	starts := map[uint32][]*unit{}
	for _, step := range s.Plan(wanted) {
		m := wanted.Find(step.Module)
		switch step.Verb {
		case deployment.Create:
			if _, err := s.unit(m.Name); err == nil { // the one before could not be removed, which was said: two must not have one record
				continue
			}
			if err := s.create(ctx, *m, images[m.Name]); err != nil {
				errs = append(errs, fmt.Errorf("install module %s: %w", m.Name, err))
			}
		case deployment.Start:
			s.mu.Lock()
			if u := s.units[m.Name]; u != nil && u.hash == m.Hash() && !u.held() {
				starts[m.Order] = append(starts[m.Order], u)
			}
			s.mu.Unlock()
		case deployment.Fetch, deployment.Stop, deployment.Remove: // done before, or failed then
		}
	}
	for _, order := range ascending(starts) {
		var all sync.WaitGroup
		room := make(chan struct{}, startsAtOnce)
		for _, u := range starts[order] {
			room <- struct{}{}
			all.Go(func() {
				defer func() { <-room }()
				_ = u.do(ctx, orderStart)
			})
		}
		all.Wait()
	}
	return errs
}

// Plan lists what applying a deployment would do now.
func (s *Supervisor) Plan(wanted deployment.Agent) []deployment.Step {
	s.mu.Lock()
	defer s.mu.Unlock()
	return deployment.Plan(s.runningLocked(), wanted.Modules)
}

// runningLocked is what is here, for a plan.
func (s *Supervisor) runningLocked() []deployment.Running {
	list := make([]deployment.Running, 0, len(s.units))
	for name, u := range s.units {
		r := deployment.Running{Name: name, Hash: u.hash, Order: u.module().Order}
		if u.is() != stopped { // a module's own end holds until it changes
			r.State = deployment.Live
		}
		list = append(list, r)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list
}

func (s *Supervisor) seat(ctx context.Context, m deployment.Module, img Image) (Seat, error) {
	base, err := s.idBase(ctx, m.Name)
	fifo := filepath.Join(s.cfg.FIFODir, m.Name)
	return Seat{Module: m, Image: img, IDBase: base, Log: fifo, ErrLog: fifo + ".err"}, err
}

// create writes the record of a module and makes its unit.
func (s *Supervisor) create(ctx context.Context, m deployment.Module, img Image) error {
	seat, err := s.seat(ctx, m, img)
	if err != nil {
		return err
	}
	rec := record{Hash: m.Hash(), Order: m.Order, Image: img, Stop: seat.stopSignal()}
	s.mu.Lock()
	rec.decision = s.carried[m.Name]
	s.mu.Unlock()
	if err := s.saveRecord(ctx, m.Name, rec); err != nil {
		return err
	}
	u := s.newUnit(seat, rec, stopped, nil)
	s.mu.Lock()
	s.units[m.Name] = u
	delete(s.carried, m.Name)
	s.mu.Unlock()
	u.begin(ctx)
	return nil
}

// remove ends a unit; a module that does not come back loses its log, its identity and, last, its record too: while that is there, the next
// agent goes on with the removal.
func (s *Supervisor) remove(ctx context.Context, u *unit, comesBack bool) error {
	if err := u.do(ctx, orderRetire); err != nil {
		return err
	}
	name := u.seat.Module.Name
	select {
	case <-u.gone: // its log is closed
	case <-ctx.Done():
		return ctx.Err()
	}
	if !comesBack {
		err := errors.Join(s.cfg.Hosting.Removed(ctx, name), s.shelf.remove(u.output), os.RemoveAll(u.seat.Log), os.RemoveAll(u.seat.ErrLog))
		if err == nil {
			err = s.cfg.Docs.Put(ctx, recordPrefix+name, nil)
		}
		if err != nil {
			return err
		}
	}
	u.mu.Lock()
	d := u.rec.decision
	u.mu.Unlock()
	s.mu.Lock()
	delete(s.units, name)
	if comesBack && d.Held { // an operator stopped it while this deployment was on its way
		s.carried[name] = decision{Held: true, Under: d.Under}
	}
	s.mu.Unlock()
	return nil
}
