package hal

import (
	"slices"
	"strconv"
	"time"
)

// lease is who drives an output. Its fields are under the server's mutex.
type lease struct {
	_     noCompare
	who   string
	fence uint64
	ttl   time.Duration // 0 = as long as the instance
	until time.Time
	timer *time.Timer
	kept  bool          // the keeper knows of it
	safe  *float64      // of one that was adopted; nil = this process made it
	pulse time.Duration // since boot: when the running pulse ends; 0 = none runs
	stays *time.Timer   // runs from the end of the instance when the next one keeps the level
}

// id is what its holder calls it by. It gives nothing to anybody else.
func (l *lease) id() string { return strconv.FormatUint(l.fence, 10) }

// Lease is a right to drive outputs that nobody else has meanwhile.
type Lease struct {
	ID      string    `json:"id"`
	Names   []string  `json:"names"`
	Fence   uint64    `json:"fence"`
	Expires time.Time `json:"expires,omitzero"` // zero = with the instance
}

// Entry is one line of the record of what was done: writes, leases, denials and safe actions.
type Entry struct {
	_    noCompare
	Time time.Time `json:"time"`
	Who  string    `json:"who,omitempty"`
	Name string    `json:"name"`
	What string    `json:"what"`
}

// maxEntries bounds the record.
const maxEntries = 4096

func (s *Server) recordLocked(who, name, what string) {
	s.enterLocked(Entry{Time: time.Now(), Who: who, Name: name, What: what})
}

func (s *Server) enterLocked(e Entry) {
	if len(s.ring) < maxEntries {
		s.ring = append(s.ring, e)
		return
	}
	s.ring[s.oldest] = e
	s.oldest = (s.oldest + 1) % maxEntries
}

// Log gives the record, the oldest first.
func (s *Server) Log() []Entry {
	defer s.locked()()
	return append(append(make([]Entry, 0, len(s.ring)), s.ring[s.oldest:]...), s.ring[:s.oldest]...)
}

// Holding is one output and who drives it.
type Holding struct {
	Name    string    `json:"name"`
	Who     string    `json:"who"`
	Fence   uint64    `json:"fence"`
	Expires time.Time `json:"expires,omitzero"` // zero = with the instance
}

// Leases lists who drives what, in order of names.
func (s *Server) Leases() []Holding {
	defer s.locked()()
	list := []Holding{}
	for _, name := range s.order {
		if l := s.things[name].lease; l != nil {
			list = append(list, Holding{Name: name, Who: l.who, Fence: l.fence, Expires: l.until})
		}
	}
	return list
}

// Acquire leases outputs, all or none. ttl 0 lasts as long as the instance. A lease that the module has already is replaced, with a
// new fence.
func (s *Server) Acquire(who string, names []string, ttl time.Duration) (Lease, error) {
	if len(names) == 0 || len(names) > MaxGrants || ttl < 0 || ttl > maxDeadman {
		return Lease{}, Errorf(Invalid, "a lease has 1 to %d names and at most %v", MaxGrants, maxDeadman)
	}
	defer s.locked()()
	for _, name := range names {
		g, t := s.grants[who][name], s.things[name]
		switch {
		case g == nil:
			s.strayLocked(who, name)
			return Lease{}, errNotGranted
		case !g.Write:
			s.deniedLocked(who, name, "granted to read only")
			return Lease{}, refusal(Denied, name, "granted to read only")
		case t.lease != nil && t.lease.who != who:
			return Lease{}, refusal(Busy, name, "another module drives it")
		}
	}
	s.fence++
	out := Lease{Names: slices.Clone(names), Fence: s.fence}
	slices.Sort(out.Names)
	for _, name := range out.Names {
		t := s.things[name]
		if t.lease != nil {
			stopClock(&t.lease.timer)
			stopClock(&t.lease.stays)
		}
		fresh := &lease{who: who, fence: s.fence, ttl: ttl}
		if t.lease != nil {
			fresh.pulse = t.lease.pulse // which runs on
		}
		t.lease = fresh
		s.renewLocked(t)
		out.ID, out.Expires = t.lease.id(), t.lease.until
		s.recordLocked(who, name, "lease taken")
	}
	return out, nil
}

// renewLocked starts the time of a lease anew.
func (s *Server) renewLocked(t *thing) {
	l := t.lease
	if l.ttl == 0 {
		return
	}
	stopClock(&l.timer)
	l.until = time.Now().Add(l.ttl)
	l.timer = time.AfterFunc(l.ttl, func() {
		defer s.locked()()
		if t.lease == l && !time.Now().Before(l.until) {
			s.endLocked(t, "lease expired")
		}
	})
}

// Renew starts the time of a lease anew. LeaseLost means that it ended, and that its outputs are safe.
func (s *Server) Renew(who, id string) (time.Time, error) {
	defer s.locked()()
	var until time.Time
	found := false
	for _, t := range s.things {
		if t.lease != nil && t.lease.id() == id && t.lease.who == who {
			s.renewLocked(t)
			until, found = t.lease.until, true
		}
	}
	if !found {
		return until, Errorf(LeaseLost, "this lease has ended")
	}
	return until, nil
}

// Release ends a lease; its outputs become safe.
func (s *Server) Release(who, id string) error {
	defer s.locked()()
	found := false
	for _, t := range s.things {
		if t.lease != nil && t.lease.id() == id && t.lease.who == who {
			s.endLocked(t, released)
			found = true
		}
	}
	if !found {
		return Errorf(LeaseLost, "this lease has ended")
	}
	return nil
}

// released is the reason of an end that the module asked for.
const released = "lease released"

// Replaced is the reason of [Server.Gone] for an instance that makes room for the next one.
const Replaced = "instance replaced"

// The reasons that [Count] has of an output whose lease ended though nobody did wrong: whoever drove it may drive it again.
const (
	Unplugged    = "unplugged"
	AgentMissing = "agent was missing"
)

// handoverTime is how long a level is kept for the next instance.
const handoverTime = 30 * time.Second

// Gone tells that no process of the module lives any more, or that it hangs: what it drove becomes safe, unless the instance is
// replaced and the grant keeps its level for the next one. It returns when all is safe.
func (s *Server) Gone(who, why string) {
	var safe []<-chan struct{}
	s.mu.Lock()
	for _, t := range s.things {
		if t.lease == nil || t.lease.who != who {
			continue
		}
		if g := s.grants[who][t.Name]; g != nil && g.Handover == HandoverKeep && why == Replaced {
			l := t.lease
			stopClock(&l.stays)
			stopClock(&l.timer) // nobody is there to renew it
			l.stays = time.AfterFunc(handoverTime, s.lapses(t, l, "no instance took it over"))
			s.recordLocked(who, t.Name, "kept for the next instance")
			continue
		}
		safe = append(safe, s.endLocked(t, why))
	}
	s.mu.Unlock()
	waitFor(safe)
}

// waitFor waits until all is done; nil = there was nothing to do.
func waitFor(safe []<-chan struct{}) {
	for _, done := range safe {
		if done != nil {
			<-done
		}
	}
}

// endLocked ends the lease of t and has its worker drive the safe value. From here on no write under the old lease is sent.
// The channel closes when that was done or given up; nil = there is nothing to do.
func (s *Server) endLocked(t *thing, why string) <-chan struct{} {
	l := t.lease
	stopClock(&l.timer)
	stopClock(&l.stays)
	safe := s.safeOfLocked(t, l)
	t.lease = nil
	if why == released {
		s.recordLocked(l.who, t.Name, why+": safe")
	} else {
		s.safetyLocked(l.who, t.Name, why+": safe")
	}
	if !t.Output() {
		return nil
	}
	return s.safeLocked(t, safe, why)
}

// lapses ends a lease later, if it is still the one.
func (s *Server) lapses(t *thing, l *lease, why string) func() {
	return func() {
		defer s.locked()()
		if t.lease == l {
			s.endLocked(t, why)
		}
	}
}
