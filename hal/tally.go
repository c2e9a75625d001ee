package hal

import (
	"strconv"
	"strings"
	"time"
)

// tally is what one module did with one resource since the server began.
type tally struct {
	_                    noCompare
	writes, denied, safe uint64
	last                 string // the newest denial or safe action
	at                   time.Time
}

// Count is what one module did with one resource since the server began. Name is "" for names that are not granted to it.
type Count struct {
	Who, Name string
	Writes    uint64
	Denied    uint64    // requests beyond what is granted
	Safe      uint64    // ends of a lease that made the resource safe, but for those that the module asked for
	Last      string    // the newest denial or safe action
	At        time.Time // of it; zero = none
}

// Counts gives what modules did, in no order. What a module did with a name that is granted no more is forgotten.
func (s *Server) Counts() []Count {
	defer s.locked()()
	var list []Count
	add := func(who, name string, t *tally) {
		if who != Operator && (t.writes > 0 || !t.at.IsZero()) {
			list = append(list, Count{who, name, t.writes, t.denied, t.safe, t.last, t.at})
		}
	}
	for who, grants := range s.grants {
		for name, g := range grants {
			add(who, name, &g.tally)
		}
	}
	for who, t := range s.strays {
		add(who, "", t)
	}
	return list
}

// strayLocked counts a request for a name that is not granted. The record has one of them in a second: what a module asks for without
// end does not push out the rest.
func (s *Server) strayLocked(who, name string) {
	t := s.strays[who]
	if t == nil {
		if len(s.strays) == MaxGrants { // of modules that were, mostly
			clear(s.strays)
		}
		t = &tally{}
		s.strays[who] = t
	}
	now := time.Now()
	fresh := now.Sub(t.at).Abs() >= time.Second
	t.denied, t.last = t.denied+1, "denied: a name that is not granted"
	if fresh {
		t.at = now
		s.enterLocked(Entry{Time: now, Who: who, Name: name[:min(len(name), 40)], What: t.last})
	}
}

// deniedLocked counts and records a refusal, one a second of each resource.
func (s *Server) deniedLocked(who, name, detail string) {
	g := s.grants[who][name]
	if g == nil {
		return
	}
	now := time.Now()
	fresh := now.Sub(g.tally.at).Abs() >= time.Second || !strings.HasPrefix(g.tally.last, "denied: ")
	g.tally.denied, g.tally.last = g.tally.denied+1, "denied: "+detail
	if fresh {
		g.tally.at = now
		s.enterLocked(Entry{Time: now, Who: who, Name: name, What: g.tally.last})
	}
}

// safetyLocked counts and records that a resource is made safe in place of who drove it.
func (s *Server) safetyLocked(who, name, why string) {
	s.recordLocked(who, name, why)
	if g := s.grants[who][name]; g != nil {
		g.tally.safe, g.tally.last, g.tally.at = g.tally.safe+1, why, time.Now()
	}
}

// written is what the record says of a write.
func written(v float64) string {
	switch v {
	case 0:
		return "write 0"
	case 1:
		return "write 1"
	}
	return "write " + strconv.FormatFloat(v, 'g', 6, 64)
}
