package hal_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
	"github.com/sandpiper-edge/sandpiper/hal/haltest"
)

func board() []hal.Resource {
	zero := 0.0
	return []hal.Resource{
		{Name: "relay", Kind: hal.KindLine, Bus: "chip", Safe: &zero, Allow: []string{"*"}, Line: &hal.LinePart{Chip: "sim", Direction: hal.Out}},
		{Name: "door", Kind: hal.KindLine, Bus: "chip", Allow: []string{"*"}, Line: &hal.LinePart{Chip: "sim", Direction: hal.In}, Sim: &hal.Wave{Wire: "relay"}},
		{Name: "imu", Kind: hal.KindI2C, Bus: "i2c", Allow: []string{"*"}, I2C: &hal.I2CPart{Addr: 0x68, RegBytes: 1, Read: []hal.Range{{Last: 0x7f}}, Write: []hal.Range{{First: 0x10, Last: 0x1f}}}},
		{Name: "level", Kind: hal.KindSensor, Bus: "iio", Unit: "Cel", Allow: []string{"*"}, Sensor: &hal.SensorPart{Scale: 0.001, Invalid: []float64{85000}}},
	}
}

func TestTheSimulationKeepsTheContract(t *testing.T) {
	t.Parallel()
	haltest.Backend(t, func(*testing.T) haltest.Rig {
		sim, b := hal.NewSim(), board()
		return haltest.Rig{Backend: sim, Output: b[0], Input: b[1], Chip: b[2], Sensor: b[3], Trace: sim.Trace}
	})
}

// bench runs test inside a bubble of time, with a server that grants everything to modules a and b.
func bench(t *testing.T, grants []hal.Grant, test func(t *testing.T, s *hal.Server, sim *hal.Sim)) {
	t.Helper()
	benchOn(t, board(), grants, test)
}

// benchOn is bench with a board of the test's own.
func benchOn(t *testing.T, board []hal.Resource, grants []hal.Grant, test func(t *testing.T, s *hal.Server, sim *hal.Sim)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sim := hal.NewSim()
		s, err := hal.New(hal.ServerConfig{Resources: board, Backend: sim})
		if err != nil {
			t.Fatal(err)
		}
		for _, who := range []string{"a", "b"} {
			if err := s.Grant(who, grants); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		synctest.Wait()
		test(t, s, sim)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func everything() []hal.Grant {
	return []hal.Grant{{Name: "relay", Read: true, Write: true}, {Name: "door", Read: true}, {Name: "imu", Read: true, Write: true}, {Name: "level", Read: true}}
}

func wantCode(t *testing.T, err error, want hal.Code) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want code %s", err, want)
	}
}

func wantTrace(t *testing.T, sim *hal.Sim, want ...float64) {
	t.Helper()
	if got := sim.Trace("relay"); !slices.Equal(got, want) {
		t.Errorf("got trace %v, want %v", got, want)
	}
}

func TestAnOutputIsSafeWhenItsModuleIsGone(t *testing.T) {
	t.Parallel()
	bench(t, everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		fence, err := s.Write(t.Context(), "a", "relay", 1, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Write(t.Context(), "b", "relay", 1, 0, 0)
		wantCode(t, err, hal.Busy)
		s.Gone("a", "exit")
		wantTrace(t, sim, 0, 1, 0)
		_, err = s.Write(t.Context(), "a", "relay", 1, 0, fence)
		wantCode(t, err, hal.LeaseLost)
		wantTrace(t, sim, 0, 1, 0)
	})
}

func TestAnOutputIsSafeWhenItsModuleHangs(t *testing.T) {
	t.Parallel()
	grants := []hal.Grant{{Name: "relay", Write: true, Deadman: 2 * time.Second}}
	bench(t, grants, func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		fence, err := s.Write(t.Context(), "a", "relay", 1, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(3 * time.Second)
		wantTrace(t, sim, 0, 1, 0)
		_, err = s.Write(t.Context(), "a", "relay", 1, 0, fence)
		wantCode(t, err, hal.LeaseLost)
	})
}

func TestASlowReaderLosesTheOldestAndIsToldHowMany(t *testing.T) {
	t.Parallel()
	bench(t, everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		w, err := s.Watch(t.Context(), "a", "door", 0)
		if err != nil {
			t.Fatal(err)
		}
		const edges = 3000
		for i := range edges {
			sim.Set("door", float64((i+1)%2))
			synctest.Wait()
		}
		got, lost, last := 0, uint64(0), uint64(0)
		for got+int(lost) < edges {
			var events [100]hal.Event
			n, err := w.Next(t.Context(), events[:])
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events[:n] {
				lost += e.Lost
				last = e.Seq
			}
			got += n
		}
		if got != 1024 || lost != edges-1024 || last != edges {
			t.Errorf("got %d events, %d lost, the last %d; want 1024, %d, %d", got, lost, last, edges-1024, edges)
		}
		again, err := s.Watch(t.Context(), "b", "door", edges-1)
		if err != nil {
			t.Fatal(err)
		}
		var events [4]hal.Event
		if n, err := again.Next(t.Context(), events[:]); err != nil || n != 2 || events[0].Seq != edges-1 {
			t.Errorf("got %d events, %v, the first %d; want 2 from %d", n, err, events[0].Seq, edges-1)
		}
	})
}

func TestAPulseEndsByItself(t *testing.T) {
	t.Parallel()
	bench(t, everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		if _, err := s.Write(t.Context(), "a", "relay", 1, 200*time.Millisecond, 0); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Second)
		wantTrace(t, sim, 0, 1, 0)
	})
}

func TestAnOutputIsSafeWhenItsGrantIsRemoved(t *testing.T) {
	t.Parallel()
	bench(t, everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		if _, err := s.Write(t.Context(), "a", "relay", 1, 0, 0); err != nil {
			t.Fatal(err)
		}
		if err := s.Grant("a", nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		wantTrace(t, sim, 0, 1, 0)
		_, err := s.Read(t.Context(), "a", "relay", hal.ClassRead, 0)
		wantCode(t, err, hal.Unknown)
	})
}

func TestAnUngrantedNameAndNonsenseGetTheSameAnswer(t *testing.T) {
	t.Parallel()
	bench(t, []hal.Grant{{Name: "door", Read: true}}, func(t *testing.T, s *hal.Server, _ *hal.Sim) {
		_, real := s.Read(t.Context(), "a", "relay", hal.ClassRead, 0)
		_, nonsense := s.Read(t.Context(), "a", "nonsense", hal.ClassRead, 0)
		if real == nil || nonsense == nil || real.Error() != nonsense.Error() {
			t.Errorf("got %v and %v, want the same error", real, nonsense)
		}
	})
}

func TestAStuckBusFailsFastAndHeals(t *testing.T) {
	t.Parallel()
	bench(t, everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		sim.Fail("imu", hal.Fault{Stuck: 3 * time.Second})
		read := []hal.Op{{Write: []byte{0x10}, Read: 1}}
		_, err := s.Transfer(t.Context(), "a", "imu", read, 50*time.Millisecond)
		wantCode(t, err, hal.TimedOut)
		_, err = s.Transfer(t.Context(), "b", "imu", read, 50*time.Millisecond)
		wantCode(t, err, hal.Stuck)
		if _, err = s.Read(t.Context(), "a", "door", hal.ClassRead, 0); err != nil {
			t.Errorf("another bus: got %v, want no error", err)
		}
		<-time.After(4 * time.Second)
		if _, err = s.Transfer(t.Context(), "b", "imu", read, 0); err != nil {
			t.Errorf("after it returned: got %v, want no error", err)
		}
	})
}

func TestAPowerOnValueIsNoReading(t *testing.T) {
	t.Parallel()
	bench(t, everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		sim.Set("level", 85000)
		v, err := s.Read(t.Context(), "a", "level", hal.ClassRead, 0)
		if err != nil || v.Quality != hal.Bad {
			t.Errorf("got %+v, %v; want quality bad", v, err)
		}
		sim.Set("level", 21500)
		if v, err = s.Read(t.Context(), "a", "level", hal.ClassRead, 0); err != nil || v.Num != 21.5 || v.Unit != "Cel" {
			t.Errorf("got %+v, %v; want 21.5 Cel", v, err)
		}
	})
}

// run lets a server work, and gives what ends it.
func run(t *testing.T, s *hal.Server) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestAModuleReadsItsLimitsWhereItReadsItsRights(t *testing.T) {
	t.Parallel()
	zero := 0.0
	fan := hal.Resource{Name: "fan", Kind: hal.KindPWM, Bus: "pwm", Safe: &zero, Allow: []string{"*"}, Limits: hal.Limits{MaxOn: time.Minute}, PWM: &hal.PWMPart{MaxDuty: 0.8, Period: time.Millisecond}}
	level := hal.Resource{Name: "level", Kind: hal.KindSensor, Bus: "iio", Allow: []string{"*"}, Limits: hal.Limits{Min: -40, Max: 125}, Sensor: &hal.SensorPart{}}
	s, err := hal.New(hal.ServerConfig{Resources: []hal.Resource{fan, level}, Backend: hal.NewSim()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Grant("a", []hal.Grant{{Name: "fan", Write: true, Rate: 5, Deadman: 2 * time.Second}, {Name: "level", Read: true}}); err != nil {
		t.Fatal(err)
	}
	list := s.List("a")
	if st := list[0]; !slices.Equal(st.Limits, []float64{0, 0.8}) || st.Rate != 5 || st.MaxOn != 60 || st.Lease != 2 {
		t.Errorf("got %+v", st)
	}
	if st := list[1]; !slices.Equal(st.Limits, []float64{-40, 125}) || st.Rate != 0 || st.MaxOn != 0 || st.Lease != 0 {
		t.Errorf("got %+v", st)
	}
}

func TestASimulatedOutputFallsToItsPullWhenItIsReleased(t *testing.T) {
	t.Parallel()
	for release, want := range map[string]float64{"": 1, "keep": 1, "input": 0, "pull": 0} {
		sim, r := hal.NewSim(), board()[0]
		r.Sim = &hal.Wave{Release: release}
		dev, err := sim.Open(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if err := dev.(hal.Line).Set(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if err := dev.Close(); err != nil {
			t.Fatal(err)
		}
		if trace := sim.Trace(r.Name); trace[len(trace)-1] != want {
			t.Errorf("release %q: got trace %v, want it to end at %v", release, trace, want)
		}
	}
}
