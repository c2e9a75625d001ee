package hal

import (
	"context"
	"time"
)

// Step is one operation of a batch: with Value a write, with Op a transfer, with neither a read.
type Step struct {
	_     noCompare
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
	_ noCompare
	Step
	v float64
	g *granted
	l *lease
}

// Batch runs up to 64 steps on one bus, in order and without those of others between. All are judged before the first is sent; it
// stops at the first that fails. limit > 0 shortens the deadline.
func (s *Server) Batch(ctx context.Context, who string, steps []Step, limit time.Duration) ([]Result, error) {
	if len(steps) == 0 || len(steps) > maxOps {
		return nil, refusal(Invalid, "", "a batch has 1 to 64 operations")
	}
	list := make([]step, len(steps))
	for i := range steps {
		one := &steps[i]
		if list[i].Step = *one; one.Value != nil {
			list[i].v = *one.Value
		}
		if last := &list[max(i-1, 0)]; last.g != nil && last.g.Rate == 0 && last.Name == one.Name {
			list[i].g = last.g
		} else {
			var err error
			if list[i].g, err = s.right(who, one.Name); err != nil {
				return nil, err
			}
		}
		if list[i].g.thing.worker != list[0].g.thing.worker {
			return nil, refusal(Invalid, one.Name, "it is on another bus than "+steps[0].Name+"; a batch is of one bus")
		}
		if err := judge(&list[i]); err != nil {
			return nil, s.denied(who, err)
		}
	}
	for i := range list { // no lease is taken for a batch that is refused
		if list[i].Value == nil {
			continue
		}
		if last := &list[max(i-1, 0)]; last.l != nil && last.g == list[i].g && last.Fence == list[i].Fence {
			list[i].l = last.l
			continue
		}
		l, err := s.hold(who, list[i].g, list[i].Fence)
		if err != nil {
			return nil, err
		}
		list[i].l = l
	}
	answer := make(chan []Result, 1)
	err := list[0].g.thing.worker.do(ctx, who, ClassWrite, list[0].g.thing.deadline(time.Now(), limit), func(ctx context.Context) error {
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
			return refusal(Denied, one.Name, "granted to write only")
		}
		return nil
	}
	return one.g.writes(one.v, one.For)
}

// writes refuses a value that the right does not cover.
func (g *granted) writes(v float64, pulse time.Duration) error {
	t := g.thing
	if !g.Write || !t.Output() {
		return refusal(Denied, t.Name, "it cannot be written, or is granted to read only")
	}
	if pulse < 0 || pulse > maxDeadman {
		return refusal(OutOfRange, t.Name, "a pulse is at most an hour")
	}
	return t.check(v)
}

// run does a step; only its worker calls it.
func (s *Server) run(ctx context.Context, who string, one *step, into *Result, now time.Time) (err error) {
	switch {
	case one.Op != nil:
		own := []Op{*one.Op}
		if err := s.transfer(ctx, who, one.g, own); err != nil {
			return err
		}
		into.Data = own[0].Data
	case one.Value == nil:
		into.Value, err = one.g.thing.get(ctx)
		err = s.seen(ctx, one.g.thing, err)
	default:
		into.Fence = one.l.fence
		return s.drive(ctx, one.g, one.l, one.v, one.For, now)
	}
	return err
}

// drive writes a value under a lease that may have ended while the write waited for its turn; only its worker calls it.
func (s *Server) drive(ctx context.Context, g *granted, l *lease, v float64, pulse time.Duration, now time.Time) error {
	s.awake()
	s.mu.Lock()
	lost, tell := g.thing.lease != l, false
	if !lost {
		tell = s.beginLocked(g, l, v, pulse, now)
	}
	s.mu.Unlock()
	if lost {
		return refusal(LeaseLost, g.thing.Name, "the lease ended before the write")
	}
	return s.level(ctx, g.thing, v, tell)
}

// beginLocked starts the clocks of a write, and says whether the keeper has to hear of it.
func (s *Server) beginLocked(g *granted, l *lease, v float64, pulse time.Duration, now time.Time) bool {
	t := g.thing
	t.settleLocked()
	tell, on := !l.kept || l.pulse != 0 || pulse != 0, t.onUntil
	s.armLocked(g, t, v, pulse, l, now)
	l.kept = true
	return tell || t.onUntil != on
}

// level drives an output whose write has begun; only its worker calls it.
func (s *Server) level(ctx context.Context, t *thing, v float64, tell bool) error {
	if tell { // before the level: the next agent finds who drove it
		s.keep(t, false)
	}
	return s.seen(ctx, t, t.set(ctx, v))
}

// transfer runs operations under a right that may have ended meanwhile; only its worker calls it.
func (s *Server) transfer(ctx context.Context, who string, g *granted, ops []Op) error {
	t := g.thing
	s.mu.Lock()
	still := s.grants[who][t.Name] == g
	s.mu.Unlock()
	if !still {
		return errNotGranted
	}
	bus, ok := t.dev.(Bus)
	if !ok {
		return refusal(Absent, t.Name, "")
	}
	err := s.seen(ctx, t, bus.Do(ctx, ops))
	if k := t.tape.Load(); k != nil {
		k.transfer(t.Name, ops, err)
	}
	return err
}

// Write drives an output for a module and returns the fence of its lease, which the first write takes. pulse > 0 ends it after
// that time, whatever becomes of the module. fence 0 = whichever lease the module has.
func (s *Server) Write(ctx context.Context, who, name string, v float64, pulse time.Duration, fence uint64) (uint64, error) {
	s.ready()
	s.awake()
	now := time.Now()
	s.mu.Lock()
	g, err := s.rightLocked(who, name)
	if err == nil {
		err = g.writes(v, pulse)
	}
	var l *lease
	if err == nil {
		l, err = s.holdLocked(who, g, fence)
	}
	if err != nil {
		s.mu.Unlock()
		return 0, s.denied(who, err)
	}
	t := g.thing
	deadline := t.deadline(now, 0)
	if t.worker.take(deadline) { // nobody is before this write: it begins under the same lock
		tell := s.beginLocked(g, l, v, pulse, now)
		s.mu.Unlock()
		defer t.worker.give()
		err = s.level(ctx, t, v, tell)
	} else {
		s.mu.Unlock()
		err = t.worker.do(ctx, who, ClassWrite, deadline, func(ctx context.Context) error { return s.drive(ctx, g, l, v, pulse, time.Now()) })
	}
	if err != nil {
		return 0, named(err, name)
	}
	return l.fence, nil
}

// maxOps is how many operations one transfer or batch has.
const maxOps = 64

// Transfer runs operations on one bus resource, in order and without those of others between. limit > 0 shortens the deadline.
func (s *Server) Transfer(ctx context.Context, who, name string, ops []Op, limit time.Duration) ([]Op, error) {
	g, err := s.right(who, name)
	if err != nil {
		return nil, err
	}
	if len(ops) == 0 || len(ops) > maxOps {
		return nil, refusal(Invalid, name, "a transfer has 1 to 64 operations")
	}
	if err := g.CheckOps(ops); err != nil {
		return nil, s.denied(who, err)
	}
	own := append([]Op(nil), ops...) // a call that overstays keeps its own
	err = g.thing.worker.do(ctx, who, ClassWrite, g.thing.deadline(time.Now(), limit), func(ctx context.Context) error { return s.transfer(ctx, who, g, own) })
	if err != nil {
		return nil, named(err, name)
	}
	return own, nil
}
