package haltest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// Rig is a backend and what its world has. An empty name means: this world has none.
type Rig struct {
	Backend hal.Backend
	Output  hal.Resource                  // a line, safe value 0
	Input   hal.Resource                  // a line that follows Output, both edges
	Chip    hal.Resource                  // an i2c device with registers 0x10-0x1f that keep what is written, one byte a register number
	Sensor  hal.Resource                  // any sensor
	Trace   func(output string) []float64 // physical values that the output had since it was opened, in order; nil = cannot tell
}

const long = 10 * time.Second

// Backend runs the contract on rigs that newRig makes, a fresh one for each claim.
func Backend(t *testing.T, newRig func(t *testing.T) Rig) {
	t.Helper()
	for _, c := range []struct {
		claim string
		needs func(Rig) hal.Resource
		test  func(t *testing.T, r Rig)
	}{
		{"an output gives back what was set", output, roundTrip},
		{"reading an output changes nothing", output, readChangesNothing},
		{"opening an output drives its safe value in one transition", output, opensSafe},
		{"a second opener is told that it is busy", output, secondIsBusy},
		{"closing lets another open", output, closeFrees},
		{"an input follows and its edges come in order", input, edges},
		{"an output has no edges", output, outputHasNoEdges},
		{"a register keeps what was written", chip, registers},
		{"a sensor gives a time", sensor, reads},
		{"changes end with their context", output, changesEnd},
	} {
		t.Run(c.claim, func(t *testing.T) {
			r := newRig(t)
			if c.needs(r).Name == "" {
				t.Skip("SKIPPED: this world has no such resource")
			}
			c.test(t, r)
		})
	}
}

func output(r Rig) hal.Resource { return r.Output }
func input(r Rig) hal.Resource  { return r.Input }
func chip(r Rig) hal.Resource   { return r.Chip }
func sensor(r Rig) hal.Resource { return r.Sensor }

// open opens a resource as the interface of its kind, and closes it at the end of the test.
func open[T hal.Device](t *testing.T, r Rig, what hal.Resource) T {
	t.Helper()
	dev, err := r.Backend.Open(t.Context(), what)
	if err != nil {
		t.Fatalf("open %s: %v", what.Name, err)
	}
	t.Cleanup(func() { _ = dev.Close() }) // a test may have closed it already
	as, ok := dev.(T)
	if !ok {
		t.Fatalf("open %s: got a %T, want the interface of kind %s", what.Name, dev, what.Kind)
	}
	return as
}

func set(t *testing.T, l hal.Line, on bool) {
	t.Helper()
	if err := l.Set(t.Context(), on); err != nil {
		t.Fatal(err)
	}
}

func wantLevel(t *testing.T, l hal.Line, want bool) {
	t.Helper()
	if got, err := l.Get(t.Context()); err != nil || got != want {
		t.Errorf("got level %v, %v; want %v", got, err, want)
	}
}

func roundTrip(t *testing.T, r Rig) {
	l := open[hal.Line](t, r, r.Output)
	for _, on := range []bool{true, false, true} {
		set(t, l, on)
		wantLevel(t, l, on)
	}
}

func readChangesNothing(t *testing.T, r Rig) {
	l := open[hal.Line](t, r, r.Output)
	set(t, l, true)
	for range 5 {
		wantLevel(t, l, true)
	}
	if r.Trace != nil {
		if got, want := r.Trace(r.Output.Name), []float64{0, 1}; !slices.Equal(got, want) {
			t.Errorf("got trace %v, want %v", got, want)
		}
	}
}

func opensSafe(t *testing.T, r Rig) {
	high := r.Output
	one := 1.0
	high.Safe = &one
	l := open[hal.Line](t, r, high)
	wantLevel(t, l, true)
	if r.Trace != nil {
		if got, want := r.Trace(r.Output.Name), []float64{1}; !slices.Equal(got, want) {
			t.Errorf("got trace %v, want %v", got, want)
		}
	}
}

func secondIsBusy(t *testing.T, r Rig) {
	open[hal.Line](t, r, r.Output)
	dev, err := r.Backend.Open(t.Context(), r.Output)
	if err == nil {
		_ = dev.Close() // the failure is reported below
	}
	var e *hal.Error
	if !errors.Is(err, hal.Busy) || !errors.As(err, &e) || e.Detail == "" && e.Err == nil {
		t.Errorf("got %v, want Busy with the consumer's name", err)
	}
}

func closeFrees(t *testing.T, r Rig) {
	l := open[hal.Line](t, r, r.Output)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	open[hal.Line](t, r, r.Output)
}

func edges(t *testing.T, r Rig) {
	out := open[hal.Line](t, r, r.Output)
	in := open[hal.Line](t, r, r.Input)
	reader, err := in.Edges(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }() // what it says last is of no interest
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	var last hal.Event
	for i, on := range []bool{true, false, true, false} {
		set(t, out, on)
		wantLevel(t, in, on)
		var got [4]hal.Event
		n, err := reader.Read(ctx, got[:])
		if err != nil || n != 1 {
			t.Fatalf("edge %d: got %d events, %v; want 1", i, n, err)
		}
		want := hal.Falling
		if on {
			want = hal.Rising
		}
		e := got[0]
		if e.Edge != want || e.Lost != 0 || i > 0 && (e.Seq != last.Seq+1 || e.Mono < last.Mono) {
			t.Errorf("edge %d: got %+v after %+v, want %s next in order", i, e, last, want)
		}
		last = e
	}
}

func outputHasNoEdges(t *testing.T, r Rig) {
	l := open[hal.Line](t, r, r.Output)
	if _, err := l.Edges(t.Context()); !errors.Is(err, hal.Unsupported) {
		t.Errorf("got %v, want Unsupported", err)
	}
}

func registers(t *testing.T, r Rig) {
	b := open[hal.Bus](t, r, r.Chip)
	ops := []hal.Op{{Write: []byte{0x10, 0xa5}}, {Write: []byte{0x11, 0x5a}}, {Write: []byte{0x10}, Read: 1}, {Write: []byte{0x11}, Read: 1}}
	if err := b.Do(t.Context(), ops); err != nil {
		t.Fatal(err)
	}
	if got := slices.Concat(ops[2].Data, ops[3].Data); !slices.Equal(got, []byte{0xa5, 0x5a}) {
		t.Errorf("got %x, want a55a", got)
	}
}

func reads(t *testing.T, r Rig) {
	s := open[hal.Sensor](t, r, r.Sensor)
	if v, err := s.Read(t.Context()); err != nil || v.Time.IsZero() {
		t.Errorf("got %+v, %v; want a value with a time", v, err)
	}
}

func changesEnd(t *testing.T, r Rig) {
	ctx, cancel := context.WithCancel(t.Context())
	changes := r.Backend.Changes(ctx)
	cancel()
	late := time.After(long)
	for {
		select {
		case _, open := <-changes:
			if !open {
				return
			}
		case <-late:
			t.Fatal("the channel is still open")
		}
	}
}
