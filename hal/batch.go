package hal

import (
	"context"
	"slices"
	"time"
)

// Step is one operation of a batch: with Value a write, with Op a transfer, with neither a read.
type Step struct {
	Name  string
	Value *float64
	For   time.Duration // of a write: a pulse
	Fence uint64        // of a write; 0 = whichever lease the module has
	Op    *Op
}

// Result is what a step gave.
type Result struct {
	Value Value  // of a read
	Fence uint64 // of a write
	Data  []byte // of a transfer
}

// step is a Step that was judged. It has its value by itself: the caller's is not looked at once the batch has begun.
type step struct {
	Step
	v float64
	g *granted
	t *thing
	l *lease
}

// Batch runs up to 64 steps on one bus, in order and without those of others between. All are judged before the first is sent; it
// stops at the first that fails. limit > 0 shortens the deadline.
func (s *Server) Batch(ctx context.Context, who string, steps []Step, limit time.Duration) ([]Result, error) {
	if len(steps) == 0 || len(steps) > maxOps {
		return nil, &Error{Code: Invalid, Detail: "a batch has 1 to 64 operations"}
	}
	list := make([]step, len(steps))
	for i := range steps {
		one := &steps[i]
		if list[i].Step = *one; one.Value != nil {
			list[i].v = *one.Value
		}
		if last := &list[max(i-1, 0)]; last.g != nil && last.g.Rate == 0 && last.Name == one.Name {
			list[i].g, list[i].t = last.g, last.t
		} else {
			var err error
			if list[i].g, list[i].t, err = s.right(who, one.Name); err != nil {
				return nil, err
			}
		}
		t := list[i].t
		if t.worker != list[0].t.worker {
			return nil, &Error{Code: Invalid, Name: one.Name, Detail: "it is on another bus than " + steps[0].Name + "; a batch is of one bus"}
		}
		if err := judge(&list[i]); err != nil {
			return nil, s.denied(who, err)
		}
	}
	for i := range list { // no lease is taken for a batch that is refused
		if list[i].Value == nil {
			continue
		}
		if last := &list[max(i-1, 0)]; last.l != nil && last.t == list[i].t && last.Fence == list[i].Fence {
			list[i].l = last.l
			continue
		}
		l, err := s.hold(who, list[i].g, list[i].t, list[i].Fence)
		if err != nil {
			return nil, err
		}
		list[i].l = l
	}
	answer := make(chan []Result, 1)
	err := list[0].t.worker.do(ctx, who, ClassWrite, list[0].t.deadline(limit), func(ctx context.Context) error {
		results := make([]Result, len(list))
		began := time.Now() // the moment of all of them in the record
		for i := range list {
			if err := s.run(ctx, who, &list[i], &results[i], began); err != nil {
				return named(err, list[i].Name)
			}
		}
		answer <- results
		return nil
	})
	if err != nil {
		return nil, err
	}
	return <-answer, nil
}

// judge refuses a step that the right does not cover.
func judge(one *step) error {
	switch {
	case one.Op != nil:
		return one.g.CheckOps([]Op{*one.Op})
	case one.Value == nil:
		if !one.g.Read {
			return &Error{Code: Denied, Name: one.Name, Detail: "granted to write only"}
		}
		return nil
	}
	return one.g.writes(one.t, one.v, one.For)
}

// writes refuses a value that the right does not cover.
func (g *granted) writes(t *thing, v float64, pulse time.Duration) error {
	if !g.Write || !t.Output() {
		return &Error{Code: Denied, Name: t.Name, Detail: "it cannot be written, or is granted to read only"}
	}
	if pulse < 0 || pulse > maxDeadman {
		return &Error{Code: OutOfRange, Name: t.Name, Detail: "a pulse is at most an hour"}
	}
	return t.check(v)
}

// run does a step; only its worker calls it.
func (s *Server) run(ctx context.Context, who string, one *step, into *Result, now time.Time) (err error) {
	switch {
	case one.Op != nil:
		own := []Op{*one.Op}
		if err := s.transfer(ctx, who, one.g, one.t, own); err != nil {
			return err
		}
		into.Data = own[0].Data
	case one.Value == nil:
		into.Value, err = one.t.get(ctx)
	default:
		into.Fence = one.l.fence
		return s.drive(ctx, one.g, one.t, one.l, one.v, one.For, now)
	}
	return err
}

// drive writes a value under a lease that may have ended while the write waited for its turn; only its worker calls it.
func (s *Server) drive(ctx context.Context, g *granted, t *thing, l *lease, v float64, pulse time.Duration, now time.Time) error {
	s.mu.Lock()
	lost, tell := t.lease != l, false
	if !lost {
		tell = !l.kept || l.pulse != 0 || pulse != 0
		s.armLocked(g, t, v, pulse, l, now)
		l.kept = true
	}
	s.mu.Unlock()
	if lost {
		return &Error{Code: LeaseLost, Name: t.Name, Detail: "the lease ended before the write"}
	}
	if tell { // before the level: the next agent finds who drove it
		s.keep(t, false)
	}
	return t.set(ctx, v)
}

// transfer runs operations under a right that may have ended meanwhile; only its worker calls it.
func (s *Server) transfer(ctx context.Context, who string, g *granted, t *thing, ops []Op) error {
	s.mu.Lock()
	still := s.grants[who][t.Name] == g
	s.mu.Unlock()
	if !still {
		return &Error{Code: Unknown, Detail: "no such name is granted to this module"}
	}
	bus, ok := t.dev.(Bus)
	if !ok {
		return &Error{Code: Absent, Name: t.Name}
	}
	err := bus.Do(ctx, ops)
	if k := t.tape.Load(); k != nil {
		k.transfer(t.Name, ops, err)
	}
	return err
}

// Write drives an output for a module and returns the fence of its lease, which the first write takes. pulse > 0 ends it after
// that time, whatever becomes of the module. fence 0 = whichever lease the module has.
func (s *Server) Write(ctx context.Context, who, name string, v float64, pulse time.Duration, fence uint64) (uint64, error) {
	g, t, err := s.right(who, name)
	if err != nil {
		return 0, err
	}
	if err := g.writes(t, v, pulse); err != nil {
		return 0, s.denied(who, err)
	}
	l, err := s.hold(who, g, t, fence)
	if err != nil {
		return 0, err
	}
	err = t.worker.do(ctx, who, ClassWrite, t.deadline(0), func(ctx context.Context) error { return s.drive(ctx, g, t, l, v, pulse, time.Now()) })
	if err != nil {
		return 0, named(err, name)
	}
	return l.fence, nil
}

// maxOps is how many operations one transfer or batch has.
const maxOps = 64

// Transfer runs operations on one bus resource, in order and without those of others between. limit > 0 shortens the deadline.
func (s *Server) Transfer(ctx context.Context, who, name string, ops []Op, limit time.Duration) ([]Op, error) {
	g, t, err := s.right(who, name)
	if err != nil {
		return nil, err
	}
	if len(ops) == 0 || len(ops) > maxOps {
		return nil, &Error{Code: Invalid, Name: name, Detail: "a transfer has 1 to 64 operations"}
	}
	if err := g.CheckOps(ops); err != nil {
		return nil, s.denied(who, err)
	}
	own := slices.Clone(ops) // a call that overstays keeps its own
	err = t.worker.do(ctx, who, ClassWrite, t.deadline(limit), func(ctx context.Context) error { return s.transfer(ctx, who, g, t, own) })
	if err != nil {
		return nil, named(err, name)
	}
	return own, nil
}
