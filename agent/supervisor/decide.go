package supervisor

import (
	"context"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// decision is the part of a record that says whether the module is to run. It is durable before the program is touched, as an agent may
// die at any step after that: the next one does the rest.
type decision struct {
	Held  bool  `json:"down,omitempty"`  // an operator stopped it
	Under int64 `json:"under,omitempty"` // newest version of the deployment then, if it was in force or not; the next one lets go of it, also when a power cut came between

	// What follows is about this boot of the device.
	Ended    bool      `json:"ended,omitempty"`    // it ended and its policy leaves it so
	Renew    time.Time `json:"renew,omitzero"`     // an operator wants another program in the place of the one that began then: its own end means nothing
	Failures int       `json:"failures,omitempty"` // budget.in
}

// decide changes what is to be and writes it down. After an error it is as it was.
func (u *unit) decide(ctx context.Context, change func(*decision)) error {
	u.mu.Lock()
	was := u.rec.decision
	change(&u.rec.decision)
	same := u.rec.decision == was
	u.mu.Unlock()
	if same {
		return nil
	}
	err := u.save(ctx)
	if err != nil {
		u.mu.Lock()
		u.rec.decision = was
		u.mu.Unlock()
	}
	return err
}

// decided carries out what an operator decided, or a new deployment for him.
func (u *unit) decided(ctx context.Context, o order) error {
	version := u.s.newest()
	u.mu.Lock()
	var runs time.Time
	if u.inst != nil && (u.state == running || u.state == stopping) {
		runs = u.inst.Started()
	}
	u.mu.Unlock()
	err := u.decide(ctx, func(d *decision) {
		switch o {
		case orderHold:
			d.Held, d.Under, d.Renew = true, version, time.Time{}
		case orderRenew:
			*d = decision{Renew: runs}
		case orderResume:
			*d = decision{Renew: d.Renew}
		default:
			d.Held, d.Under = false, 0
		}
	})
	switch {
	case err != nil || o == orderRelease:
		return err
	case o == orderHold:
		return u.bringDown(ctx)
	case o == orderRenew:
		return u.renew(ctx)
	}
	return u.bringUp(ctx)
}

// renew has another program in the place of the one that runs, if one does.
func (u *unit) renew(ctx context.Context) error {
	if err := u.bringDown(ctx); err != nil {
		return err
	}
	return u.bringUp(ctx)
}

// renewing tells whether an operator wants another program in the place of inst, and the deployment wants one at all.
func (u *unit) renewing(inst sandbox.Instance) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.rec.Renew.IsZero() && u.rec.Renew.Equal(inst.Started()) && u.module().Status != deployment.StatusStopped
}

// newest is the version of the deployment that the device knows of: one that is still being fetched is what an operator has seen too.
func (s *Supervisor) newest() int64 {
	if now := s.cfg.Twins.Snapshot(s.id); now.Known {
		return now.DesiredVersion
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plan.Version
}

// heldUnder tells whether an operator stopped the module when this version was known, so that it is no new decision.
func (u *unit) heldUnder(version int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.rec.Held && u.rec.Under == version
}

// held tells whether an operator wants the module stopped.
func (u *unit) held() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.rec.Held
}
