package hal

import (
	"bytes"
	"context"
	"slices"
	"time"
)

// Player answers a request from a recording: want has its operations without what they gave, and the answer has as many. The error says
// what of it was not recorded.
type Player func(name string, want []Record) ([]Record, error)

// played is what a recording has of one resource.
type played struct {
	calls  []Record // a call with several operations has several
	at     int      // where the next call begins
	events []Record
	span   time.Duration // of the recording: the events come again after it
}

// Play has the resources that a recording names give what was recorded instead of what is simulated: a request is answered as the
// next one like it was, from the beginning again after the last, and events come at their times from when they are first read. Outputs
// are simulated all the same: what drives them may do something new. exact, unless it is nil, answers all requests instead, those on
// outputs too, and no event comes twice. Call it before Open.
func (s *Sim) Play(rec Recording, exact Player) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exact = exact
	for _, name := range rec.Names {
		s.pinLocked(name).played = &played{}
	}
	for i := range rec.Records {
		r := &rec.Records[i]
		part := s.pinLocked(r.Name).played
		switch {
		case part == nil: // of a name that the first line does not have
		case r.Op == opEdge || r.Op == opFrame:
			part.events = append(part.events, *r)
		default:
			part.calls = append(part.calls, *r)
		}
		if part != nil {
			part.span = time.Duration(r.T+1) * time.Microsecond
		}
	}
}

// Asks says whether two records are of one request, whatever came of it.
func (r *Record) Asks(o *Record) bool {
	return r.Op == o.Op && bytes.Equal(r.W, o.W) && r.N == o.N && (r.Op != opWrite || r.V == o.V) &&
		r.Until == o.Until && r.Fn == o.Fn && r.Addr == o.Addr && r.ID == o.ID && r.More == o.More
}

// like finds the next call that is like a request.
func (p *played) like(want []Record) []Record {
	for i := range p.calls {
		from := (p.at + i) % len(p.calls)
		k := 0
		for k < len(want) && from+k < len(p.calls) && p.calls[from+k].Asks(&want[k]) {
			k++
		}
		if k == len(want) && (from == 0 || !p.calls[from-1].More) {
			p.at = from + k
			return p.calls[from : from+k]
		}
	}
	return nil
}

// play answers a request as it was recorded, into the records that ask it.
func (d simDevice) play(calls []Record) error {
	d.sim.mu.Lock()
	exact, found := d.sim.exact, []Record(nil)
	if exact == nil {
		found = d.pin.played.like(calls)
	}
	d.sim.mu.Unlock()
	if exact != nil {
		var err error
		if found, err = exact(d.r.Name, calls); err != nil {
			return &Error{Code: Broken, Name: d.r.Name, Err: err}
		}
	}
	if len(found) == 0 {
		return refusal(Broken, d.r.Name, "the recording has nothing like it")
	}
	copy(calls, found)
	if code := calls[len(calls)-1].Err; code != "" {
		return refusal(code, d.r.Name, "as recorded")
	}
	return nil
}

// plays says whether values come from a recording. What an input is, its events say if they were recorded.
func (d simDevice) plays() bool {
	p := d.pin.played
	return p != nil && (d.sim.exact != nil || !d.r.Output()) && (len(p.calls) > 0 || len(p.events) == 0)
}

// playValue answers a read or a write as it was recorded.
func (d simDevice) playValue(op string, v float64) (float64, error) {
	one := []Record{{Name: d.r.Name, Op: op, V: v}}
	err := d.play(one)
	return one[0].V, err
}

// playOps answers operations as they were recorded.
func (d simDevice) playOps(ops []Op) error {
	list := asked(d.r.Name, ops)
	err := d.play(list)
	for i := range list {
		ops[i].Data = bytes.Clone(list[i].R)
	}
	return err
}

// playedEvents gives recorded events at their times.
type playedEvents struct {
	d     simDevice
	began time.Time
	next  int
	seq   uint64
}

func (e *playedEvents) Close() error { return nil }

func (e *playedEvents) Read(ctx context.Context, into []Event) (int, error) {
	part := e.d.pin.played
	if e.next == len(part.events) {
		if len(part.events) == 0 || e.d.sim.exact != nil {
			<-ctx.Done()
			return 0, ctx.Err()
		}
		e.began, e.next = e.began.Add(part.span), 0
	}
	r := &part.events[e.next]
	at := e.began.Add(time.Duration(r.T) * time.Microsecond)
	select {
	case <-time.After(time.Until(at)):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	e.next++
	if r.Err != "" {
		return 0, &Error{Code: r.Err, Name: e.d.r.Name, Detail: "as recorded"}
	}
	e.seq += r.Lost + 1
	into[0] = Event{Seq: e.seq, Lost: r.Lost, Merged: r.Merged, Edge: r.Edge, Mono: at.UnixNano(), Time: at, ID: r.ID, Data: slices.Clone([]byte(r.R))}
	if r.Op == opEdge {
		e.d.sim.mu.Lock()
		e.d.pin.value = 0
		if r.Edge == Rising {
			e.d.pin.value = 1
		}
		e.d.sim.mu.Unlock()
	}
	return 1, nil
}
