package hal

import (
	"context"
	"math"
	"sync"
	"time"
)

// Sim is a simulated board. Its outputs keep what was set, an input follows the output that it is wired to, a sensor follows its
// wave, a bus device is a file of registers. Create with [NewSim].
type Sim struct {
	mu     sync.Mutex
	pins   map[string]*pin
	change chan Change

	exact Player // of Play; nil = forgiving
}

// pin is the simulated world behind one resource.
type pin struct {
	value  float64
	trace  []float64 // values that were driven, in order; at most maxTrace
	open   bool
	fault  Fault
	regs   [256]byte
	seq    uint64
	events []Event
	lost   uint64
	wake   chan struct{} // capacity 1
	wave   *Wave
	wired  string
	still  bool    // it was set from outside: no wave moves it
	played *played // nil = simulated
}

const maxTrace = 4096

// Fault is what a simulated resource does wrong.
type Fault struct {
	Nack  int           // so many operations are refused
	Stuck time.Duration // the next operation takes so long
	Gone  bool          // unplugged until cleared
}

// NewSim makes a simulated board.
func NewSim() *Sim { return &Sim{pins: map[string]*pin{}, change: make(chan Change, 16)} }

func (s *Sim) pinLocked(name string) *pin {
	p := s.pins[name]
	if p == nil {
		p = &pin{wake: make(chan struct{}, 1)}
		s.pins[name] = p
	}
	return p
}

// Set drives an input or a sensor from outside, which follows its wave no more.
func (s *Sim) Set(name string, v float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pinLocked(name).still = true
	s.driveLocked(name, v)
}

// Fail injects a fault; the zero Fault clears it.
func (s *Sim) Fail(name string, f Fault) {
	s.mu.Lock()
	p := s.pinLocked(name)
	was := p.fault.Gone
	p.fault = f
	s.mu.Unlock()
	if was != f.Gone {
		s.change <- Change{Present: !f.Gone, Node: name, Match: func(r Resource) bool { return r.Name == name }}
	}
}

// Trace gives the values that an output had, in order, without repetitions.
func (s *Sim) Trace(name string) []float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]float64(nil), s.pinLocked(name).trace...)
}

// driveLocked changes a value, and that of all inputs wired to it.
func (s *Sim) driveLocked(name string, v float64) {
	p := s.pinLocked(name)
	if len(p.trace) > 0 && p.value == v {
		return
	}
	changed := p.value != v
	p.value = v
	if len(p.trace) < maxTrace {
		p.trace = append(p.trace, v)
	}
	if changed {
		p.seq++
		edge := Rising
		if v == 0 {
			edge = Falling
		}
		fifo := 16
		if p.wave != nil && p.wave.FIFO > 0 {
			fifo = p.wave.FIFO
		}
		if len(p.events) >= fifo {
			p.events = p.events[1:]
			p.lost++
		}
		now := time.Now()
		p.events = append(p.events, Event{Seq: p.seq, Edge: edge, Time: now, Mono: now.UnixNano()})
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
	for other, q := range s.pins {
		if q.wired == name && other != name {
			s.driveLocked(other, v)
		}
	}
}

// Open opens a simulated resource.
func (s *Sim) Open(_ context.Context, r Resource) (Device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pinLocked(r.Name)
	switch {
	case p.fault.Gone:
		return nil, refusal(Absent, r.Name, "")
	case p.open:
		return nil, refusal(Busy, r.Name, "consumer sp::"+r.Name+" holds it")
	}
	p.open, p.wave = true, r.Sim
	if r.Sim != nil {
		p.wired = r.Sim.Wire
		if w := s.pins[p.wired]; w != nil {
			p.value = w.value
		}
	}
	d := simDevice{s, r, p}
	switch r.Kind {
	case KindLine:
		if r.Line.Direction == Out && r.Line.Initial != "keep" && r.Safe != nil {
			s.driveLocked(r.Name, *r.Safe)
		}
		return simLine{d}, nil
	case KindPWM, KindLED:
		return simOutput{d}, nil
	case KindSensor:
		return simSensor{d}, nil
	case KindI2C, KindSPI, KindSerial, KindModbus, KindCAN:
		return simBus{d}, nil
	case KindNode:
	}
	p.open = false
	return nil, refusal(Unsupported, r.Name, "")
}

// Adopt refuses: a simulated board has no descriptors.
func (s *Sim) Adopt(_ context.Context, r Resource, _ int) (Device, error) {
	return nil, refusal(Unsupported, r.Name, "a simulated board has no descriptors")
}

// Scan lists what was opened or set.
func (s *Sim) Scan(context.Context, Probe) ([]Found, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []Found
	for name := range s.pins {
		found = append(found, Found{Kind: KindLine, Match: []Field{{Key: "name", Value: name}}, Detail: "simulated"})
	}
	return found, nil
}

// Changes tells of faults that plug and unplug.
func (s *Sim) Changes(ctx context.Context) <-chan Change {
	out := make(chan Change)
	go func() {
		defer close(out)
		for {
			select {
			case c := <-s.change:
				select {
				case out <- c:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// simDevice is what all simulated devices share.
type simDevice struct {
	sim *Sim
	r   Resource
	pin *pin
}

// Close lets go: an output keeps its level, or its pull decides where release says so.
func (d simDevice) Close() error {
	d.sim.mu.Lock()
	defer d.sim.mu.Unlock()
	d.pin.open = false
	if w := d.r.Sim; w != nil && d.r.Output() && (w.Release == "input" || w.Release == "pull") {
		level := 0.0
		if d.r.Line != nil && d.r.Line.Bias == "pull-up" {
			level = 1
		}
		d.sim.driveLocked(d.r.Name, level)
	}
	return nil
}

// begin does what the injected fault says.
func (d simDevice) begin() error {
	d.sim.mu.Lock()
	f := &d.pin.fault
	wait, gone, nack := f.Stuck, f.Gone, f.Nack > 0
	f.Stuck = 0
	if nack {
		f.Nack--
	}
	d.sim.mu.Unlock()
	if wait > 0 {
		<-time.After(wait) // as an ioctl, it cannot be cancelled
	}
	switch {
	case gone:
		return refusal(Absent, d.r.Name, "")
	case nack:
		return refusal(Nack, d.r.Name, "")
	}
	return nil
}

func (d simDevice) get() (float64, error) {
	if err := d.begin(); err != nil {
		return 0, err
	}
	if d.plays() {
		return d.playValue(opRead, 0)
	}
	d.sim.mu.Lock()
	defer d.sim.mu.Unlock()
	v, _ := d.pin.nowLocked()
	return v, nil
}

// nowLocked is the value of this moment, and how long it stays the same step; 0 = it has no steps.
func (p *pin) nowLocked() (v float64, stays time.Duration) {
	w := p.wave
	if w == nil || w.Period <= 0 || p.still {
		return p.value, 0
	}
	now, period := time.Now().UnixNano(), int64(w.Period)
	switch {
	case len(w.Steps) > 0:
		return w.Steps[now/period%int64(len(w.Steps))], time.Duration(period - now%period)
	case w.Wave == "sine":
		return w.Min + (w.Max-w.Min)*(1+math.Sin(2*math.Pi*float64(now)/float64(period)))/2, 0
	}
	return p.value, 0
}

func (d simDevice) set(v float64) error {
	if err := d.begin(); err != nil {
		return err
	}
	if d.plays() {
		if _, err := d.playValue(opWrite, v); err != nil {
			return err
		}
	}
	d.sim.mu.Lock()
	defer d.sim.mu.Unlock()
	d.sim.driveLocked(d.r.Name, v)
	return nil
}

type simOutput struct{ simDevice }

func (d simOutput) Get(context.Context) (float64, error)   { return d.get() }
func (d simOutput) Set(_ context.Context, v float64) error { return d.set(v) }

type simSensor struct{ simDevice }

func (d simSensor) Read(context.Context) (Value, error) {
	v, err := d.get()
	return Value{Num: v, Time: time.Now()}, err
}

type simLine struct{ simDevice }

// Prompt is what a line of the processor says. A fault that is stuck holds the caller then.
func (d simLine) Prompt() bool { return true }

func (d simLine) Get(context.Context) (bool, error) {
	v, err := d.get()
	return v != 0, err
}

func (d simLine) Set(_ context.Context, on bool) error {
	if d.r.Line.Direction != Out {
		return refusal(Unsupported, d.r.Name, "an input cannot be set")
	}
	if on {
		return d.set(1)
	}
	return d.set(0)
}

func (d simLine) Edges(context.Context) (EdgeReader, error) {
	if d.r.Line.Direction != In {
		return nil, refusal(Unsupported, d.r.Name, "edges are of an input")
	}
	return d.events(), nil
}

type simBus struct{ simDevice }

// Do treats the device as a file of 256 registers, the first byte written being the register.
func (d simBus) Do(_ context.Context, ops []Op) error {
	if d.pin.played != nil {
		if err := d.begin(); err != nil {
			return err
		}
		return d.playOps(ops)
	}
	for i := range ops {
		if err := d.begin(); err != nil {
			return err
		}
		d.sim.mu.Lock()
		op, at := &ops[i], int(ops[i].Addr)*2
		w := op.Write
		if d.r.Kind != KindModbus && len(w) > 0 {
			at, w = int(w[0]), w[1:]
		}
		for _, b := range w {
			d.pin.regs[at%256] = b
			at++
		}
		n := op.Read
		switch op.Fn {
		case ReadHolding, ReadInput:
			n = 2 * int(op.N)
		case ReadCoils, ReadDiscrete:
			n = int(op.N)
		case WriteCoils, WriteHoldings, "":
		}
		op.Data = make([]byte, n)
		for k := range op.Data {
			op.Data[k] = d.pin.regs[(at+k)%256]
		}
		d.sim.mu.Unlock()
	}
	return nil
}
