package supervisor

import (
	"context"
	"fmt"
	"slices"
	"time"

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
	offenceEnd                // how many there are
)

var offenceTexts = [offenceEnd]string{
	"holds as many connections to the agent as it may have, further ones wait", "sent a body larger than is taken",
	"reached its limit of processes", "reached its limit of memory, and a process of it was killed", "does not end when it is asked to, and is killed",
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
}

// Offend notes that a module ran into a bound, n times.
func (s *Supervisor) Offend(module string, what Offence, n uint64) {
	if u, err := s.unit(module); err == nil && what < offenceEnd {
		u.offend(what, n)
	}
}

func (u *unit) offend(what Offence, n uint64) {
	now := u.s.cfg.Now()
	u.mu.Lock()
	o := &u.offences[what]
	o.count += n
	o.last = now
	say := o.said.IsZero() || now.Sub(o.said).Abs() >= offenceQuiet
	if say {
		o.said = now
	}
	count := o.count
	u.mu.Unlock()
	if say {
		u.log.Warn("module ran into a bound", "bound", offenceTexts[what], "times", count)
	}
}

// offencesLocked lists what the module ran into lately.
func (u *unit) offencesLocked(now time.Time) []string {
	var list []string
	for what, o := range u.offences {
		if o.count > 0 && now.Sub(o.last) < offenceShown {
			list = append(list, fmt.Sprintf("%s (%d times)", offenceTexts[what], o.count))
		}
	}
	if lines, last := u.output.missing(); lines > 0 && now.Sub(last) < offenceShown {
		list = append(list, fmt.Sprintf("prints more than its log takes (%d lines dropped)", lines))
	}
	return list
}

// Drifts notes where a module's sandbox differs from what it was granted, a line each; nothing where a probe found it as granted. It is
// reported until the next probe, or until another sandbox is deployed.
func (s *Supervisor) Drifts(module string, lines []string) {
	u, err := s.unit(module)
	if err != nil {
		return
	}
	u.mu.Lock()
	news := !slices.Equal(u.drift, lines)
	u.drift = lines
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
		}
	}
}

// count notes how often the limits of an instance stopped it since it was looked at last.
func (u *unit) count(inst sandbox.Instance) {
	r, ok := inst.(sandbox.Refuser)
	if !ok {
		return
	}
	pids, oom := r.Refused()
	u.mu.Lock()
	was := u.refused
	u.refused = refused{inst, pids, oom}
	if was.of != inst {
		was = refused{}
	}
	u.mu.Unlock()
	if pids > was.pids {
		u.offend(Forking, pids-was.pids)
	}
	if oom > was.oom {
		u.offend(Memory, oom-was.oom)
	}
}

// refused is how often an instance's limits have stopped it so far.
type refused struct {
	of        sandbox.Instance
	pids, oom uint64
}
