package hal

import (
	"context"
	"sync"
	"time"
)

// Class of a request: all of a higher class go before any of a lower one.
type Class uint8

// The classes, the most urgent first.
const (
	ClassSafe Class = iota
	ClassWrite
	ClassRead
	ClassPoll
)

// maxQueue is how many jobs one module may have waiting on one bus.
const maxQueue = 64

// job is one turn on a bus.
type job struct {
	who      string
	class    Class
	deadline time.Time
	ages     time.Time // a poll is a read from then on: reads without end do not shut it out
	do       func(ctx context.Context) error
	done     chan error // capacity 1
}

// worker does the I/O of one bus, one job at a time.
type worker struct {
	bus  string
	wake chan struct{} // capacity 1

	mu      sync.Mutex
	unlock  func() // mu's
	waiting []*job
	running *job                     // nil = idle
	stuck   bool                     // running overstayed its deadline
	direct  job                      // of a caller that has the turn
	marked  bool                     // a device was opened
	prompt  bool                     // its devices answer at once: a caller may have the turn itself
	used    map[string]time.Duration // bus time of each module that waits or waited lately
}

func newWorker(bus string) *worker {
	w := &worker{bus: bus, wake: make(chan struct{}, 1), used: map[string]time.Duration{}}
	w.unlock = w.mu.Unlock
	return w
}

// locked takes the lock; defer what it returns.
func (w *worker) locked() func() {
	w.mu.Lock()
	return w.unlock
}

// run does jobs until ctx ends; what waits then is done by nobody.
func (w *worker) run(ctx context.Context) {
	for {
		j := w.next()
		if j == nil {
			select {
			case <-w.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		start := time.Now()
		err := j.do(ctx)
		w.mu.Lock()
		w.running, w.stuck = nil, false
		w.used[j.who] += time.Since(start)
		w.mu.Unlock()
		j.done <- err
	}
}

// next takes the job whose turn it is: the highest class; in it the module with the least bus time; of that the earliest deadline. A
// poll that has waited for half of its time is a read. Jobs that are too late are dropped unsent.
func (w *worker) next() *job {
	defer w.locked()()
	if w.running != nil { // a caller has the turn; it wakes the worker when something waits
		return nil
	}
	now := time.Now()
	best, kept := -1, w.waiting[:0]
	for _, j := range w.waiting {
		if now.After(j.deadline) && j.class != ClassSafe {
			j.done <- Errorf(TimedOut, "waited for bus %s until the deadline", w.bus)
			continue
		}
		if j.class == ClassPoll && now.After(j.ages) {
			j.class = ClassRead
		}
		kept = append(kept, j)
		if best < 0 || w.before(j, kept[best]) {
			best = len(kept) - 1
		}
	}
	clear(w.waiting[len(kept):])
	w.waiting = kept
	if best < 0 {
		clear(w.used) // nobody waits: everybody starts equal
		return nil
	}
	j := kept[best]
	w.waiting = append(kept[:best], kept[best+1:]...)
	w.running = j
	return j
}

func (w *worker) before(a, b *job) bool {
	switch {
	case a.class != b.class:
		return a.class < b.class
	case w.used[a.who] != w.used[b.who]:
		return w.used[a.who] < w.used[b.who]
	}
	return a.deadline.Before(b.deadline)
}

// submit queues a job. A stuck bus and a full queue refuse at once, except what makes an output safe.
func (w *worker) submit(j *job) error {
	defer w.locked()()
	if j.class != ClassSafe {
		if w.stuck || w.running != nil && w.running.deadline.Before(time.Now()) {
			return &Error{Code: Stuck, Detail: "a call holds bus " + w.bus + "; it heals when the call returns", Retry: time.Second}
		}
		n := 0
		for _, o := range w.waiting {
			if o.who == j.who {
				n++
			}
		}
		if n >= maxQueue {
			return &Error{Code: TooFast, Detail: "64 requests of this module wait for bus " + w.bus, Retry: 100 * time.Millisecond}
		}
	}
	if j.class == ClassPoll {
		now := time.Now()
		j.ages = now.Add(j.deadline.Sub(now) / 2)
	}
	w.joinLocked(j)
	w.waiting = append(w.waiting, j)
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return nil
}

// joinLocked holds a module that comes to a busy bus to have used as much of it as the most modest of those that wait for the same: time
// that it did not ask for is not saved up.
func (w *worker) joinLocked(j *job) {
	least, others := time.Duration(0), false
	for _, o := range append(w.waiting, w.running) {
		switch {
		case o == nil || o.class != j.class:
		case o.who == j.who:
			return
		case !others || w.used[o.who] < least:
			least, others = w.used[o.who], true
		}
	}
	w.used[j.who] = max(w.used[j.who], least)
}

// do runs fn on the bus and waits for it, at most until the deadline: then the caller gets TimedOut and, if fn had begun, the bus
// is stuck until it returns. fn must not touch what the caller goes on to use: it may still run.
func (w *worker) do(ctx context.Context, who string, class Class, deadline time.Time, fn func(ctx context.Context) error) error {
	if w.take(deadline) {
		defer w.give()
		return fn(ctx)
	}
	j := &job{who: who, class: class, deadline: deadline, do: fn, done: make(chan error, 1)}
	if err := w.submit(j); err != nil {
		return err
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	left := ctx.Done()
	for {
		select {
		case err := <-j.done:
			return err
		case <-left:
			if w.forget(j) {
				return &Error{Code: TimedOut, Detail: "the caller left before its turn", Err: ctx.Err()}
			}
			left = nil // in its turn: the call ends or the deadline comes
		case <-timer.C:
			switch {
			case w.forget(j):
				return Errorf(TimedOut, "waited for bus %s until the deadline", w.bus)
			case w.overstays(j):
				return Errorf(TimedOut, "the call on bus %s did not return by its deadline", w.bus)
			}
			return <-j.done // it ended meanwhile
		}
	}
}

// overstays says that a job has the turn still, and from now on holds the bus.
func (w *worker) overstays(j *job) bool {
	defer w.locked()()
	w.stuck = w.stuck || w.running == j
	return w.running == j
}

// take gives the caller the turn when nobody else has it or waits for it, on a bus whose calls cannot wait for anything: the way to
// the worker and back would take longer than the call.
func (w *worker) take(deadline time.Time) bool {
	defer w.locked()()
	if !w.prompt || w.running != nil || len(w.waiting) > 0 {
		return false
	}
	w.direct.deadline = deadline
	w.running = &w.direct
	return true
}

func (w *worker) give() {
	defer w.locked()()
	w.running, w.stuck = nil, false
	if len(w.waiting) > 0 {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// forget takes a job that has not begun out of the queue.
func (w *worker) forget(j *job) bool {
	defer w.locked()()
	for i, o := range w.waiting {
		if o == j {
			w.waiting = append(w.waiting[:i], w.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// mark says whether one more device of this bus answers at once. One that does not makes it a bus that does not.
func (w *worker) mark(prompt bool) {
	defer w.locked()()
	w.prompt = prompt && (w.prompt || !w.marked)
	w.marked = true
}

func (w *worker) isStuck() bool {
	defer w.locked()()
	return w.stuck
}
