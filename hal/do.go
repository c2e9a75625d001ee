package hal

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"
)

// get reads one value; only its worker calls it.
func (t *thing) get(ctx context.Context) (Value, error) {
	now := time.Now()
	v := Value{Unit: t.Unit, Time: now, Quality: Good}
	var err error
	switch dev := t.dev.(type) {
	case Line:
		var on bool
		if on, err = dev.Get(ctx); on {
			v.Num = 1
		}
	case Output:
		v.Num, err = dev.Get(ctx)
	case Sensor:
		v, err = dev.Read(ctx)
		t.recorded(opRead, v.Num, err)
		if err == nil {
			v = t.reading(v)
		}
		return v, err
	case nil:
		err = refusal(Absent, t.Name, "")
	default:
		err = refusal(Unsupported, t.Name, "it has no value to read; transfer")
	}
	t.recorded(opRead, v.Num, err)
	return v, err
}

// reading makes a value of what a sensor gave: value = curve(scale·raw + offset).
func (t *thing) reading(v Value) Value {
	part := t.Sensor
	v.Unit, v.Quality = t.Unit, Good
	if slices.Contains(part.Invalid, v.Num) || math.IsNaN(v.Num) || math.IsInf(v.Num, 0) {
		v.Num, v.Quality = 0, Bad
		return v
	}
	if part.Scale != 0 {
		v.Num *= part.Scale
	}
	v.Num += part.Offset
	if len(part.Curve) > 1 {
		v.Num = along(part.Curve, v.Num)
	}
	if l := t.Limits; (l.Min != 0 || l.Max != 0) && (v.Num < l.Min || v.Num > l.Max) {
		v.Quality = Bad
	}
	return v
}

// along follows a piecewise linear curve, and its first and last piece beyond its ends.
func along(curve [][]float64, x float64) float64 {
	i := 1
	for i < len(curve)-1 && x > curve[i][0] {
		i++
	}
	a, b := curve[i-1], curve[i]
	return a[1] + (x-a[0])*(b[1]-a[1])/(b[0]-a[0])
}

func (t *thing) deadline(now time.Time, asked time.Duration) time.Time {
	most := t.Time
	if most == 0 {
		most = opTime
	}
	if asked > 0 && asked < most {
		most = asked
	}
	return now.Add(most)
}

// named puts the name of the resource into an error.
func named(err error, name string) error {
	e, ok := errors.AsType[*Error](err)
	if err == nil || ok && e.Name != "" {
		return err
	}
	if ok {
		c := *e
		c.Name = name
		return &c
	}
	return &Error{Code: CodeOf(err), Name: name, Err: err}
}

// denied records a refusal.
func (s *Server) denied(who string, err error) error {
	if e, ok := errors.AsType[*Error](err); ok && e.Code == Denied {
		s.mu.Lock()
		s.deniedLocked(who, e.Name, e.Detail)
		s.mu.Unlock()
	}
	return err
}

// Read reads a value of a line, an output or a sensor for a module. The last sample is good enough when it is not older than fresh.
func (s *Server) Read(ctx context.Context, who, name string, class Class, fresh time.Duration) (Value, error) {
	g, err := s.right(who, name)
	if err != nil {
		return Value{}, err
	}
	t := g.thing
	if !g.Read {
		return Value{}, s.denied(who, refusal(Denied, name, "granted to write only"))
	}
	if fresh > 0 {
		s.mu.Lock()
		last := t.last
		s.mu.Unlock()
		if age := time.Since(last.Time); !last.Time.IsZero() && age >= 0 && age <= fresh {
			if last.Quality == Good {
				last.Quality = Stale
			}
			return last, nil
		}
	}
	answer := make(chan Value, 1)
	err = t.worker.do(ctx, who, class, t.deadline(time.Now(), 0), func(ctx context.Context) error {
		v, err := t.get(ctx)
		answer <- v
		return s.seen(ctx, t, err)
	})
	if err != nil {
		return Value{}, named(err, name)
	}
	v := <-answer
	if t.Kind == KindSensor {
		s.mu.Lock()
		t.last = v
		s.mu.Unlock()
	}
	return v, nil
}

// hold finds or takes the lease of an output for a write.
func (s *Server) hold(who string, g *granted, fence uint64) (*lease, error) {
	defer s.locked()()
	if s.grants[who][g.thing.Name] != g {
		return nil, errNotGranted
	}
	return s.holdLocked(who, g, fence)
}

func (s *Server) holdLocked(who string, g *granted, fence uint64) (*lease, error) {
	t := g.thing
	switch {
	case s.ended:
		return nil, refusal(Absent, t.Name, "the agent stops")
	case t.lease != nil && t.lease.who != who:
		if who == Operator {
			return nil, refusal(Busy, t.Name, "module "+t.lease.who+" drives it")
		}
		return nil, refusal(Busy, t.Name, "another module drives it")
	case fence != 0 && (t.lease == nil || t.lease.fence != fence):
		return nil, refusal(LeaseLost, t.Name, "the fence is of a lease that ended")
	case t.lease == nil:
		s.fence++
		t.lease = &lease{who: who, fence: s.fence, ttl: g.Deadman}
		s.recordLocked(who, t.Name, "lease taken")
	}
	stopClock(&t.lease.stays) // the next instance goes on
	s.renewLocked(t)
	return t.lease, nil
}

// armLocked starts the clocks of a value: the end of a pulse, and the longest time away from safe.
func (s *Server) armLocked(g *granted, t *thing, v float64, pulse time.Duration, l *lease, now time.Time) {
	s.enterLocked(Entry{Time: now, Who: l.who, Name: t.Name, What: written(v)})
	g.tally.writes++
	l.pulse = 0
	stopClock(&t.pulse)
	if pulse > 0 {
		s.clockLocked(t, &t.pulse, pulse, pulseEnded)
		l.pulse = s.until(pulse)
	}
	switch {
	case v == g.Safe:
		stopClock(&t.onFor)
		t.onUntil = 0
	case t.onFor == nil && t.Limits.MaxOn > 0:
		s.clockLocked(t, &t.onFor, t.Limits.MaxOn, tooLong)
		t.onUntil = s.until(t.Limits.MaxOn)
	}
}

// until is a moment from now as the next agent reads it; 0 = nobody would tell it.
func (s *Server) until(d time.Duration) time.Duration {
	if s.cfg.Keeper == nil {
		return 0
	}
	return uptime() + d
}
