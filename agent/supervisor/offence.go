package supervisor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// Offence is a way in which a module runs into one of its bounds. The bound holds; that it was hit is told, so that the one behind a slow
// device has a name.
type Offence uint8

// The offences.
const (
	Crowding   Offence = iota // it holds as many connections to the agent as it may
	Oversize                  // it sent a body larger than is taken
	Forking                   // its limit of processes refused it one
	Memory                    // the kernel killed one of its processes for its memory
	Deafness                  // it did not end when it was asked to, and was killed
	Trespass                  // it made calls of the kernel that no module has a use for
	Hoarding                  // it holds nearly as many files open as it may
	Filling                   // it has filled its data directory, or memory that it may write files to
	Reaching                  // it asks for pins or buses that it is not granted, or for more of them
	Stalling                  // it began to send something to the agent and did not go on
	offenceEnd                // how many there are
)

var offenceTexts = [offenceEnd]string{
	"holds as many connections to the agent as it may have, further ones wait", "sent a body larger than is taken",
	"reached its limit of processes", "reached its limit of memory, and a process of it was killed", "does not end when it is asked to, and is killed",
	"tries to mount, to change its root or namespaces, or to reach into the kernel, and is refused",
	"holds nearly as many files open as it may", "has filled what it may write to",
	"asks for pins, buses or sensors beyond what it is granted, and is refused",
	"begins requests to the agent and does not end them",
}

// How long an offence is shown, how often the same one is logged, and how often limits are looked at.
const (
	offenceShown = 10 * time.Minute
	offenceQuiet = time.Minute
	offencePace  = 5 * time.Second
)

// offending is what is remembered of one kind.
type offending struct {
	count      uint64
	last, said time.Time
	lasts      bool   // it was so when limits were looked at last: that counts once
	where      string // more about the last time, "" = nothing
}

// Offend notes that a module ran into a bound, n times.
func (s *Supervisor) Offend(module string, what Offence, n uint64) {
	if u, err := s.unit(module); err == nil && what < offenceEnd {
		u.offend(what, n, "")
	}
}

func (u *unit) offend(what Offence, n uint64, where string) {
	now := u.s.cfg.Now()
	u.mu.Lock()
	o := &u.offences[what]
	o.count += n
	o.last, o.where = now, where
	say := o.said.IsZero() || now.Sub(o.said).Abs() >= offenceQuiet
	if say {
		o.said = now
	}
	count := o.count
	u.mu.Unlock()
	if say {
		u.log.Warn("module ran into a bound", "bound", offenceTexts[what]+where, "times", count)
	}
}

// offencesLocked lists what the module ran into lately.
func (u *unit) offencesLocked(now time.Time) []string {
	var list []string
	for what, o := range u.offences {
		if o.count > 0 && now.Sub(o.last) < offenceShown {
			list = append(list, fmt.Sprintf("%s%s (%d times)", offenceTexts[what], o.where, o.count))
		}
	}
	if lines, last := u.output.missing(); lines > 0 && now.Sub(last) < offenceShown {
		list = append(list, fmt.Sprintf("prints more than its log takes (%d lines dropped)", lines))
	}
	return list
}

// Drifts notes where a module's sandbox differs from what it was granted, a line each; nothing where a probe found it as granted. It is
// reported, over restarts of agent and device too, until the next probe or until another sandbox is deployed.
func (s *Supervisor) Drifts(module string, lines []string) {
	u, err := s.unit(module)
	if err != nil {
		return
	}
	u.mu.Lock()
	news := !slices.Equal(u.rec.Drift, lines)
	u.rec.Drift = lines
	u.mu.Unlock()
	if news {
		signal(u.noted)
		signal(s.tell)
	}
}

// Pins notes what a module was refused of pins, buses and sensors, and what was made safe in its place. It is reported.
func (s *Supervisor) Pins(module string, p deployment.Pins) {
	u, err := s.unit(module)
	if err != nil {
		return
	}
	u.mu.Lock()
	news := u.pins != p
	u.pins = p
	u.mu.Unlock()
	if news {
		signal(s.tell)
	}
}

// guard looks at the limits of every running module until ctx ends.
func (s *Supervisor) guard(ctx context.Context) {
	pace := time.NewTicker(offencePace)
	defer pace.Stop()
	for {
		select {
		case <-pace.C:
		case <-ctx.Done():
			return
		}
		s.mu.Lock()
		units := s.listLocked()
		s.mu.Unlock()
		for _, u := range units {
			u.mu.Lock()
			inst := u.inst
			u.mu.Unlock()
			u.count(inst)
			u.used(inst)
		}
	}
}

// count notes how often the limits of an instance stopped it since it was looked at last.
func (u *unit) count(inst sandbox.Instance) {
	r, ok := inst.(sandbox.Refuser)
	if !ok {
		return
	}
	now := r.Refused()
	u.mu.Lock()
	was := u.refused
	u.refused = refused{inst, now}
	if was.of != inst {
		was = refused{}
	}
	u.mu.Unlock()
	for what, n := range map[Offence]uint64{Forking: less(now.Pids, was.Pids), Memory: less(now.OOM, was.OOM), Trespass: less(now.Calls, was.Calls)} {
		if n > 0 {
			u.offend(what, n, "")
		}
	}
}

// less is how much a count has grown.
func less(now, was uint64) uint64 {
	if now < was {
		return 0
	}
	return now - was
}

// refused is how often an instance's walls have stopped it so far.
type refused struct {
	of sandbox.Instance
	sandbox.Refusals
}

// used notes what of its own an instance has used up.
func (u *unit) used(inst sandbox.Instance) {
	e, ok := inst.(sandbox.Exhauster)
	if !ok {
		return
	}
	now := e.Exhausted()
	full := now.Full
	if u.s.cfg.Full != nil {
		full = append(u.s.cfg.Full(u.seat.Module.Name), full...)
	}
	where := ""
	if len(full) > 0 {
		where = ": " + strings.Join(full, ", ")
	}
	u.lasting(Hoarding, now.Files, "")
	u.lasting(Filling, len(full) > 0, where)
}

// lasting notes an offence that is a state: it counts when it begins.
func (u *unit) lasting(what Offence, is bool, where string) {
	u.mu.Lock()
	o := &u.offences[what]
	began := is && !o.lasts
	o.lasts = is
	if is {
		o.last = u.s.cfg.Now()
	}
	u.mu.Unlock()
	if began {
		u.offend(what, 1, where)
	}
}
