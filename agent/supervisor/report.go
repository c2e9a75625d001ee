package supervisor

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
)

// Module is a unit as an operator sees it.
type Module struct {
	Wanted   deployment.Module
	Digest   string
	Status   string // one of the deployment.Runtime… words
	Why      string
	Pid      int // 0 = does not run
	Started  time.Time
	Restarts int
	ExitCode int
	Exited   time.Time
	Memory   uint64 // bytes
}

// Modules lists the units by name.
func (s *Supervisor) Modules() []Module {
	s.mu.Lock()
	units := make([]*unit, 0, len(s.units))
	for _, u := range s.units {
		units = append(units, u)
	}
	s.mu.Unlock()
	list := make([]Module, 0, len(units))
	for _, u := range units {
		list = append(list, u.describe())
	}
	slices.SortFunc(list, func(a, b Module) int { return cmp.Compare(a.Wanted.Name, b.Wanted.Name) })
	return list
}

// Deployment says which desired version was last looked at, and what became of it.
func (s *Supervisor) Deployment() (version int64, status deployment.DesiredStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version, s.status
}

func (u *unit) describe() Module {
	u.mu.Lock()
	inst := u.inst
	m := Module{
		Wanted: *u.module(), Digest: u.seat.Image.Digest, Why: u.why, Restarts: u.budget.total, Status: statusOf(u.state, u.sickly != ""),
	}
	if u.exited {
		m.ExitCode, m.Exited = u.exit.Code, u.exit.At
	}
	u.mu.Unlock()
	if inst != nil {
		m.Pid, m.Started = inst.Pid(), inst.Started()
		if stats, err := inst.Stats(); err == nil {
			m.Memory = stats.Memory
		}
	}
	return m
}

func statusOf(s state, sick bool) string {
	switch s {
	case running:
		if sick {
			return deployment.RuntimeUnhealthy
		}
		return deployment.RuntimeRunning
	case stopped, stopping:
		return deployment.RuntimeStopped
	case backoff, starting:
		return deployment.RuntimeBackoff
	case failed:
		return deployment.RuntimeFailed
	}
	return deployment.RuntimeUnknown
}

// reportPace bounds how often the report is written: a module that crashes in a circle must not wear out the disk.
const reportPace = time.Second

// report keeps $edgeAgent's reported section equal to what is, writing differences only.
func (s *Supervisor) report(ctx context.Context) {
	pace := time.NewTicker(reportPace)
	defer pace.Stop()
	for {
		select {
		case <-s.tell:
		case <-ctx.Done():
			return
		}
		if err := s.writeReport(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.Warn("report of the modules not stored", "err", err)
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Supervisor) writeReport(ctx context.Context) error {
	lives := map[string]deployment.Life{}
	for _, m := range s.Modules() {
		why := m.Why
		if why == "" {
			why = m.Status
		}
		lives[m.Wanted.Name] = deployment.Life{
			Status: m.Status, Description: why, ImageHash: m.Digest, ExitCode: m.ExitCode, Restarts: m.Restarts,
			Started: m.Started.UTC(), Exited: m.Exited.UTC(),
		}
	}
	s.mu.Lock()
	r := deployment.NewAgentReport(s.cfg.Build, s.cfg.Platform, s.applied, lives, s.started.UTC())
	r.LastDesiredVersion, r.LastDesiredStatus = s.version, s.status
	s.mu.Unlock()
	patch, news, err := deployment.Difference(s.cfg.Twins.Snapshot(s.id).Reported, r)
	if err != nil || !news {
		return err
	}
	_, err = s.cfg.Twins.PatchReported(ctx, s.id, patch)
	return err
}
