package hal

import (
	"context"
	"time"
)

// debt is a safe value that an output has not taken yet. It is paid when the output took it, and void as soon as somebody begins to
// drive the output again, or a newer one takes its place. Its fields are fixed, but for refused, which is under the server's mutex.
type debt struct {
	_       noCompare
	thing   *thing
	level   float64
	why     string
	quiet   bool          // the log had its reason lately
	refused bool          // the output did not take it at the first try
	over    chan struct{} // closed when it is paid or void
	back    chan struct{} // capacity 1: the output is there again
}

// soon and late are how long after a refusal an output is driven safe again: at first, and at most.
const (
	soon = 100 * time.Millisecond
	late = 10 * time.Second
)

// settleLocked makes what an output owes void.
func (t *thing) settleLocked() {
	if t.debt != nil {
		close(t.debt.over)
		t.debt = nil
	}
}

// safeLocked has an output driven safe by its worker, before anything else that waits for it, and again and again if it refuses. The
// channel closes when that was done or did not succeed in a second; nil = nobody serves.
func (s *Server) safeLocked(t *thing, level float64, why string) <-chan struct{} {
	stopClock(&t.pulse)
	stopClock(&t.onFor)
	t.onUntil = 0
	t.settleLocked()
	now := time.Now()
	d := &debt{thing: t, level: level, why: why, quiet: why == t.said && now.Before(t.sayAt), // a pulse that ends ten times a second is no news
		over: make(chan struct{}), back: make(chan struct{}, 1)}
	if !d.quiet {
		t.said, t.sayAt = why, now.Add(time.Minute)
	}
	t.debt = d
	first := s.try(d)
	if s.served == nil {
		return nil
	}
	life, given := s.served, make(chan struct{})
	go func() { // ends when the debt is paid or void, or with Run
		waited := time.AfterFunc(opTime, func() { close(given) })
		s.pay(life, d, first)
		if waited.Stop() {
			close(given)
		}
	}()
	return given
}

// try sends an output its safe value.
func (s *Server) try(d *debt) *job {
	t := d.thing
	j := &job{class: ClassSafe, deadline: time.Now().Add(opTime), done: make(chan error, 1)}
	j.do = func(ctx context.Context) error {
		s.mu.Lock()
		void := t.debt != d
		s.mu.Unlock()
		if void {
			return nil
		}
		err := s.seen(ctx, t, t.set(ctx, d.level))
		s.mu.Lock()
		tell := err == nil || !d.refused // the keeper hears of a debt once
		d.refused = err != nil
		if err == nil && t.debt == d {
			t.settleLocked()
		}
		s.mu.Unlock()
		if tell {
			s.keep(t, false)
		}
		return err
	}
	_ = t.worker.submit(j) // this class is never refused
	return j
}

// pay waits for the first try and makes others until the output took its safe value.
func (s *Server) pay(life context.Context, d *debt, j *job) {
	name, told := d.thing.Name, false
	for wait := soon; ; wait = min(2*wait, late) {
		stuck := time.After(opTime)
		var err error
		for waiting := true; waiting; {
			select {
			case err = <-j.done:
				waiting = false
			case <-stuck: // the try stays first in its queue
				s.log.Error("output not safe yet", "name", name, "err", Stuck)
			case <-life.Done():
				return
			}
		}
		if err == nil {
			if told || !d.quiet {
				s.log.Info("output safe", "name", name, "reason", d.why)
			}
			return
		}
		if !told {
			s.log.Error("output not safe, tried again until it is", "name", name, "err", err)
			told = true
		}
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-d.back:
		case <-d.over:
			again.Stop()
			return
		case <-life.Done():
			again.Stop()
			return
		}
		again.Stop()
		j = s.try(d)
	}
}

// clockLocked has an output end what it does after a time, unless the clock of that place is stopped or set anew before.
func (s *Server) clockLocked(t *thing, place **time.Timer, after time.Duration, why string) {
	stopClock(place)
	var clock *time.Timer
	clock = time.AfterFunc(after, func() {
		defer s.locked()()
		if *place == clock {
			*place = nil
			s.overLocked(t, why)
		}
	})
	*place = clock
}

func stopClock(place **time.Timer) {
	if *place != nil {
		(*place).Stop()
		*place = nil
	}
}

// The reasons of a clock.
const (
	pulseEnded = "pulse ended"
	tooLong    = "on for too long" // than its owner's max_on
)

// overLocked brings an output back to its safe value under the lease that drives it, whichever that is by now.
func (s *Server) overLocked(t *thing, why string) {
	l := t.lease
	switch {
	case l == nil:
		return
	case l.who == Operator: // who is not there to let go
		s.endLocked(t, why)
		return
	case why == tooLong:
		s.safetyLocked(l.who, t.Name, why)
	default:
		s.recordLocked(l.who, t.Name, why)
	}
	l.pulse = 0
	s.safeLocked(t, s.safeOfLocked(t, l), why)
}

// set drives an output; only its worker calls it.
func (t *thing) set(ctx context.Context, v float64) (err error) {
	defer func() { t.recorded(opWrite, v, err) }()
	switch dev := t.dev.(type) {
	case Line:
		return dev.Set(ctx, v != 0)
	case Output:
		return dev.Set(ctx, v)
	case nil:
		return refusal(Absent, t.Name, "")
	}
	return refusal(Unsupported, t.Name, "it has no value to write")
}
