package hal

import (
	"context"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// keptLease is what a [Keeper] remembers of an output: who drove it, so that the next agent goes on where this one ended.
type keptLease struct {
	_     noCompare
	Who   string        `json:"who,omitempty"`
	Fence uint64        `json:"fence,omitempty"`
	TTL   time.Duration `json:"ttl,omitempty"`
	Safe  float64       `json:"safe,omitempty"`
	Pulse time.Duration `json:"pulse,omitempty"` // since boot: when the pulse ends
	On    time.Duration `json:"on,omitempty"`    // since boot: when it was on for too long
	Owed  bool          `json:"owed,omitempty"`  // nobody drives it, and it has not taken Safe yet
}

// uptime is the time since boot, suspension included: the one clock that outlives a process.
func uptime() time.Duration {
	raw, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(raw), " ")
	seconds, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return time.Duration(seconds * float64(time.Second))
}

// keep tells the keeper of an output's lease, and with fd of its descriptor too; only its worker calls it. An output whose keeper does
// not answer is driven all the same: it is as safe as without one.
func (s *Server) keep(t *thing, fresh bool) {
	holder, ok := t.dev.(Holder)
	if s.cfg.Keeper == nil || !ok {
		return
	}
	s.mu.Lock()
	var k keptLease
	safe := 0.0
	if t.Safe != nil {
		safe = *t.Safe
	}
	switch l := t.lease; {
	case l != nil:
		safe = s.safeOfLocked(t, l)
		k = keptLease{Who: l.who, Fence: l.fence, TTL: l.ttl, Safe: safe, Pulse: l.pulse, On: t.onUntil}
	case t.debt != nil:
		safe = t.debt.level
		k = keptLease{Owed: true, Safe: safe}
	}
	s.mu.Unlock()
	fd, action := holder.FD(safe)
	if fd < 0 {
		return
	}
	if !fresh && !t.unkept {
		fd = -1
	}
	state, err := json.Marshal(k)
	if err == nil {
		err = s.cfg.Keeper.Keep(t.Name, fd, action, state)
	}
	t.unkept = err != nil
	if err != nil {
		s.log.Warn("output not kept for now: it would not outlive this agent", "name", t.Name, "err", err)
	}
}

// safeOfLocked is the safe value of an output under a lease: as the grant says, or as it was kept, or as the owner says.
func (s *Server) safeOfLocked(t *thing, l *lease) float64 {
	if g := s.grants[l.who][t.Name]; g != nil {
		return g.Safe
	}
	if l.safe != nil {
		return *l.safe
	}
	if t.Safe != nil {
		return *t.Safe
	}
	return 0
}

// takeKept asks the keeper what the agent before left, until it answers: nobody else can open what the keeper holds.
func (s *Server) takeKept() {
	if s.cfg.Keeper == nil || s.kept != nil {
		return
	}
	list, err := s.cfg.Keeper.List()
	if err != nil {
		s.log.Warn("outputs of the agent before are not adopted, tried again", "err", err)
		return
	}
	kept := map[string]Kept{}
	for _, k := range list {
		if s.things[k.Key] == nil { // the configuration names it no more
			_ = syscall.Close(k.FD)
			s.drop(k.Key)
			continue
		}
		kept[k.Key] = k
	}
	s.mu.Lock()
	s.kept = kept
	s.mu.Unlock()
}

func (s *Server) drop(key string) {
	if s.cfg.Keeper == nil {
		return
	}
	if err := s.cfg.Keeper.Drop(key); err != nil {
		s.log.Warn("output stays kept", "name", key, "err", err)
	}
}

// adopt takes a device back that the keeper held, and its lease; only its worker calls it. One that does not match the configuration
// is made safe, and requested anew.
func (s *Server) adopt(ctx context.Context, t *thing, k Kept) Device {
	dev, err := s.cfg.Backend.Adopt(ctx, *t.Resource, k.FD)
	if err != nil {
		_ = syscall.Close(k.FD)
		s.log.Warn("output of the agent before is made safe and requested anew", "name", t.Name, "err", err)
		s.drop(t.Name)
		return nil
	}
	var was keptLease
	if err := json.Unmarshal(k.State, &was); err != nil {
		return dev
	}
	defer s.locked()()
	switch {
	case was.Owed:
		s.safeLocked(t, was.Safe, "as the agent before could not")
		return dev
	case was.Who == "":
		return dev
	}
	l := &lease{who: was.Who, fence: was.Fence, ttl: was.TTL, safe: &was.Safe, pulse: was.Pulse, kept: true}
	t.lease = l
	s.fence = max(s.fence, was.Fence)
	s.renewLocked(t) // it may write within its time as if nothing had been
	s.recordLocked(was.Who, t.Name, "lease adopted")
	if was.Pulse > 0 {
		s.clockLocked(t, &t.pulse, max(was.Pulse-uptime(), 0), pulseEnded)
	}
	if was.On > 0 && t.Limits.MaxOn > 0 {
		t.onUntil = was.On
		s.clockLocked(t, &t.onFor, max(min(was.On-uptime(), t.Limits.MaxOn), 0), tooLong)
	}
	return dev
}

// unclaimed ends the leases of modules that did not come back after a restart of the agent.
func (s *Server) unclaimed() {
	defer s.locked()()
	for _, t := range s.things {
		if l := t.lease; l != nil && l.safe != nil {
			if g := s.grants[l.who][t.Name]; g == nil || !g.Write {
				s.endLocked(t, "module is not back")
			}
		}
	}
}

// Heard tells that the keeper answers. What it could not be given before is given now. lapsed: it took this agent for missing and made
// its outputs safe; their leases end before Heard returns, and whoever drove one is told so by its fence.
func (s *Server) Heard(lapsed bool) {
	if lapsed {
		s.mu.Lock()
		for _, t := range s.things {
			if t.lease != nil {
				s.endLocked(t, AgentMissing)
			}
		}
		s.mu.Unlock()
		return
	}
	for _, t := range s.things {
		again := func(context.Context) error {
			if t.dev != nil && t.unkept {
				s.keep(t, true)
			}
			return nil
		}
		_ = t.worker.do(context.Background(), "", ClassPoll, time.Now().Add(opTime), again) // a bus that is busy is asked with the next beat
	}
}

// awake is asked before anything is driven: a process that was stopped goes on in the middle of a write, whose output was made safe
// meanwhile.
func (s *Server) awake() {
	if s.cfg.Keeper != nil {
		s.cfg.Keeper.Awake(func() { s.Heard(true) })
	}
}

// Leave says that Run is about to end for a successor: with a keeper nothing moves then.
func (s *Server) Leave() {
	defer s.locked()()
	s.leaves = s.cfg.Keeper != nil
}
