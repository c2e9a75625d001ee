package supervisor

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
)

// Module is a unit as an operator sees it.
type Module struct {
	Wanted    deployment.Module
	Digest    string
	Status    string // one of the deployment.Runtime… words
	Why       string
	Pid       int       // 0 = does not run
	Started   time.Time // of the newest program, which may have ended
	Restarts  int       // in a row, without ten healthy minutes between
	Restarted time.Time
	ExitCode  int
	Exited    time.Time
	Held      bool      // an operator stopped it
	Ended     bool      // it ended, and its policy leaves it so
	Paused    bool      // an operator holds it where it is
	Next      time.Time // when it is started again; zero = that is not waited for
	Memory    uint64    // bytes
	Offences  []string  // bounds it ran into lately
	Pins      deployment.Pins
	Drift     []string // where its sandbox differs from what it was granted, as the last probe found
}

// Modules lists the units by name.
func (s *Supervisor) Modules() []Module {
	s.mu.Lock()
	units := s.listLocked()
	s.mu.Unlock()
	list := make([]Module, 0, len(units))
	for _, u := range units {
		list = append(list, u.describe())
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Wanted.Name < list[j].Wanted.Name })
	return list
}

// Asked says whether a module's program was asked to end, as another one takes its place or none is wanted; false for one that ended
// by itself and for a module that is not there.
func (s *Supervisor) Asked(module string) bool {
	s.mu.Lock()
	u := s.units[module]
	s.mu.Unlock()
	if u == nil {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state == stopping
}

// Deployment says which desired version was last looked at, and what became of it: also whether its modules prove themselves.
func (s *Supervisor) Deployment() (version int64, status deployment.DesiredStatus) {
	s.mu.Lock()
	version, status = s.version, s.status
	units := s.listLocked()
	s.mu.Unlock()
	if status.Code != deployment.CodeOK {
		return version, status
	}
	var failures []string
	for _, u := range units {
		if why := u.failing(); why != "" {
			failures = append(failures, why)
		}
	}
	if len(failures) > 0 {
		slices.Sort(failures)
		status = deployment.StatusOf(errors.New(strings.ReplaceAll(strings.Join(failures, "; "), "\n", "; ")))
	}
	return version, status
}

func (s *Supervisor) listLocked() []*unit { return slices.Collect(maps.Values(s.units)) }

func (u *unit) describe() Module {
	u.mu.Lock()
	inst := u.inst
	m := Module{
		Wanted: *u.module(), Digest: u.seat.Image.Digest, Why: u.why, Restarts: u.budget.total, Status: statusOf(u.state, u.rec, u.illnessLocked() != ""),
		Started: u.rec.Began, Held: u.rec.Held, Ended: u.rec.Ended, ExitCode: u.rec.Exit, Exited: u.rec.Exited, Offences: u.offencesLocked(u.s.cfg.Now()), Drift: u.rec.Drift, Pins: u.pins,
	}
	if u.state == backoff {
		m.Next = u.due
	}
	if m.Restarts > 0 {
		m.Restarted = u.budget.up
	}
	if ill := u.illnessLocked(); ill != "" {
		m.Why = ill
	}
	u.mu.Unlock()
	if inst == nil {
		return m
	}
	if m.Pid = inst.Pid(); m.Pid != 0 {
		m.Started = inst.Started()
		m.Paused = paused(inst)
		if stats, err := inst.Stats(); err == nil {
			m.Memory = stats.Memory
		}
	}
	return m
}

func statusOf(s state, rec record, sick bool) string {
	switch s {
	case running, ailing:
		if sick {
			return deployment.RuntimeUnhealthy
		}
		return deployment.RuntimeRunning
	case stopped, stopping:
		return deployment.RuntimeStopped
	case backoff, starting:
		return deployment.RuntimeBackoff
	case failed:
		if rec.Exit == 0 || rec.Exit == stayDown {
			return deployment.RuntimeStopped
		}
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
	r := s.document()
	patch, news, err := deployment.Difference(s.cfg.Twins.Snapshot(s.id).Reported, r)
	if err != nil || !news {
		return err
	}
	_, err = s.cfg.Twins.PatchReported(ctx, s.id, patch)
	if limit, ok := errors.AsType[*twin.LimitError](err); ok {
		s.cfg.Logger.Warn("the report is too large for a twin, environment and options are left out", "err", limit)
		if patch, _, err = deployment.Difference(s.cfg.Twins.Snapshot(s.id).Reported, r.Lean()); err == nil {
			_, err = s.cfg.Twins.PatchReported(ctx, s.id, patch)
		}
	}
	return err
}

// document is the report as it should be now.
func (s *Supervisor) document() deployment.AgentReport {
	lives := map[string]deployment.Life{}
	for _, m := range s.Modules() {
		why := m.Why
		if why == "" {
			why = m.Status
		}
		lives[m.Wanted.Name] = deployment.Life{
			Status: m.Status, Description: why, ImageHash: m.Digest, ExitCode: m.ExitCode, Restarts: m.Restarts,
			Started: m.Started, Exited: m.Exited, Restarted: m.Restarted, Drift: m.Drift, Pins: m.Pins,
		}
	}
	version, status := s.Deployment()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := deployment.NewAgentReport(s.cfg.Build, s.cfg.Platform, s.applied, lives, s.started)
	r.LastDesiredVersion, r.LastDesiredStatus = version, status
	return r
}
