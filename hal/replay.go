package hal

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"
)

// played is what a recording has of one resource.
type played struct {
	calls  [][]Record // what was asked, each with all of its operations
	at     int        // the next of them
	events []Record
	span   time.Duration // of the recording: the events come again after it
}

// Play has the resources that a recording names give what was recorded instead of what is simulated: a request is answered as the
// next one like it was, from the beginning again after the last, and events come at their times from when they are first read. differs,
// unless it is nil, makes it exact: it is told of each request that is not the very next one of its resource, and no event comes twice.
// Call it before Open.
func (s *Sim) Play(rec Recording, differs func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.differs = differs
	for _, name := range rec.Names {
		s.pinLocked(name).played = &played{}
	}
	more := map[string]bool{}
	for _, r := range rec.Records {
		p := s.pinLocked(r.Name)
		if p.played == nil {
			p.played = &played{}
		}
		switch part := p.played; {
		case r.Op == opEdge || r.Op == opFrame:
			part.events = append(part.events, r)
		case more[r.Name]:
			last := len(part.calls) - 1
			part.calls[last] = append(part.calls[last], r)
		default:
			part.calls = append(part.calls, []Record{r})
		}
		if r.Op == opTransfer {
			more[r.Name] = r.More
		}
		p.played.span = time.Duration(r.T+1) * time.Microsecond
	}
}

// Rest counts what was recorded and not asked for so far, by resource; nil when all was.
func (s *Sim) Rest() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rest map[string]int
	for name, p := range s.pins {
		if p.played == nil || p.played.at == len(p.played.calls) {
			continue
		}
		if rest == nil {
			rest = map[string]int{}
		}
		rest[name] = len(p.played.calls) - p.played.at
	}
	return rest
}

// answer finds what was recorded for a request, whose records have the request alone.
func (d simDevice) answer(want ...Record) ([]Record, error) {
	d.sim.mu.Lock()
	p, differs := d.pin.played, d.sim.differs
	err := fmt.Errorf("%s: the recording has nothing like %s", d.r.Name, want[0].request())
	var found []Record
	for i := range p.calls {
		nth := (p.at + i) % len(p.calls)
		if differs != nil && (i > 0 || p.at == len(p.calls)) {
			break
		}
		other := unlike(p.calls[nth], want)
		if other == nil {
			found, p.at = p.calls[nth], nth+1
			break
		}
		if differs != nil {
			err = fmt.Errorf("%s: call %d of the recording: %w", d.r.Name, nth+1, other)
		}
	}
	d.sim.mu.Unlock()
	if found != nil {
		return found, nil
	}
	if differs != nil {
		differs(err)
	}
	return nil, &Error{Code: Broken, Name: d.r.Name, Detail: err.Error()}
}

// request says what was asked, for an error.
func (r *Record) request() string {
	switch {
	case r.Op == opRead:
		return "a read"
	case r.Op == opWrite:
		return fmt.Sprintf("a write of %g", r.V)
	case r.Fn != "":
		return fmt.Sprintf("%s of %d from %d", r.Fn, r.N, r.Addr)
	}
	return fmt.Sprintf("a transfer that writes %x and reads %d", []byte(r.W), r.N)
}

// unlike says in what a request differs from a recorded one, to the byte; nil = in nothing.
func unlike(recorded, want []Record) error {
	for i := range min(len(recorded), len(want)) {
		r, w := &recorded[i], &want[i]
		if at := differsAt(r.W, w.W); r.Op == opTransfer && w.Op == opTransfer && at >= 0 {
			return fmt.Errorf("operation %d differs in written byte %d: got %x, recorded %x", i+1, at, []byte(w.W), []byte(r.W))
		}
		if r.Op != w.Op || r.Op == opWrite && r.V != w.V || r.N != w.N || r.Until != w.Until || r.Fn != w.Fn || r.Addr != w.Addr || r.ID != w.ID {
			return fmt.Errorf("operation %d: got %s, recorded %s", i+1, w.request(), r.request())
		}
	}
	if len(recorded) != len(want) {
		return fmt.Errorf("got %d operations together, recorded %d", len(want), len(recorded))
	}
	return nil
}

// differsAt is the first byte in which a and b differ; -1 = they are equal.
func differsAt(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// play answers operations as they were recorded.
func (d simBus) play(ops []Op) error {
	want := make([]Record, len(ops))
	for i := range ops {
		want[i] = requested(d.r.Name, &ops[i])
	}
	found, err := d.answer(want...)
	if err != nil {
		return err
	}
	for i := range found {
		if ops[i].Data = slices.Clone([]byte(found[i].R)); found[i].Err != "" {
			return &Error{Code: found[i].Err, Name: d.r.Name, Detail: "as recorded"}
		}
	}
	return nil
}

// plays says whether values come from a recording. Those of an output do only where the play is exact, else it is simulated: what drives
// it may do something new. What an input is, its events say if they were recorded.
func (d simDevice) plays() bool {
	p := d.pin.played
	return p != nil && (d.sim.differs != nil || !d.r.Output()) && (len(p.calls) > 0 || len(p.events) == 0)
}

// playValue answers a read or a write as it was recorded.
func (d simDevice) playValue(op string, v float64) (float64, error) {
	found, err := d.answer(Record{Name: d.r.Name, Op: op, V: v})
	if err != nil {
		return 0, err
	}
	if code := found[0].Err; code != "" {
		return 0, &Error{Code: code, Name: d.r.Name, Detail: "as recorded"}
	}
	return found[0].V, nil
}

// playedEvents gives recorded events at their times.
type playedEvents struct {
	simDevice
	began time.Time
	next  int
	seq   uint64
}

func (e *playedEvents) Close() error { return nil }

func (e *playedEvents) Read(ctx context.Context, into []Event) (int, error) {
	part := e.pin.played
	if e.next == len(part.events) {
		if len(part.events) == 0 || e.sim.differs != nil {
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
		return 0, &Error{Code: r.Err, Name: e.r.Name, Detail: "as recorded"}
	}
	e.seq += r.Lost + 1
	into[0] = Event{Seq: e.seq, Lost: r.Lost, Merged: r.Merged, Edge: r.Edge, Mono: at.UnixNano(), Time: at, ID: r.ID, Data: slices.Clone([]byte(r.R))}
	if r.Op == opEdge {
		e.sim.mu.Lock()
		e.pin.value = map[Edge]float64{Rising: 1}[r.Edge]
		e.sim.mu.Unlock()
	}
	return 1, nil
}
