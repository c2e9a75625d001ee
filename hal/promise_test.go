package hal_test

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

func TestAModuleMayHaveSixtyFourRequestsWaitingAndIsToldWhenToComeAgain(t *testing.T) {
	t.Parallel()
	bench(t, everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		sim.Fail("imu", hal.Fault{Stuck: 500 * time.Millisecond})
		ask := func(who string) error {
			_, err := s.Transfer(t.Context(), who, "imu", []hal.Op{{Write: []byte{0x10}, Read: 1}}, 0)
			return err
		}
		var all sync.WaitGroup
		for range 65 { // one is under way
			all.Go(func() {
				if err := ask("a"); err != nil {
					t.Errorf("one that waits: got %v", err)
				}
			})
			synctest.Wait()
		}
		err := ask("a")
		wantCode(t, err, hal.TooFast)
		if e := (*hal.Error)(nil); !errors.As(err, &e) || e.Retry <= 0 {
			t.Errorf("got %+v, want a time to come again", err)
		}
		if err := ask("b"); err != nil {
			t.Errorf("another module: got %v", err)
		}
		all.Wait()
	})
}

func TestALevelStaysForTheNextInstanceWhereTheGrantKeepsItAndNotForLong(t *testing.T) {
	t.Parallel()
	grants := []hal.Grant{{Name: "relay", Read: true, Write: true, Handover: hal.HandoverKeep}}
	bench(t, grants, func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		write := func(v float64) {
			t.Helper()
			if _, err := s.Write(t.Context(), "a", "relay", v, 0, 0); err != nil {
				t.Error(err)
			}
		}
		write(1)
		s.Gone("a", hal.Replaced)
		<-time.After(20 * time.Second)
		wantTrace(t, sim, 0, 1)
		write(1) // the next instance
		<-time.After(time.Minute)
		wantTrace(t, sim, 0, 1)
		s.Gone("a", hal.Replaced)
		<-time.After(time.Minute) // nobody came
		wantTrace(t, sim, 0, 1, 0)
		write(1)
		s.Gone("a", "module ended") // it was not replaced
		wantTrace(t, sim, 0, 1, 0, 1, 0)
	})
}

func TestWhatIsOptionalMayBeMissingAndNothingElse(t *testing.T) {
	t.Parallel()
	own := board()
	own[1].Allow = nil
	grants := []hal.Grant{{Name: "nothing", Read: true, Optional: true}, {Name: "door", Read: true, Optional: true}, {Name: "relay", Read: true, Write: true}}
	benchOn(t, own, grants, func(t *testing.T, s *hal.Server, _ *hal.Sim) {
		if list := s.List("a"); len(list) != 1 || list[0].Name != "relay" {
			t.Errorf("got %v, want the relay alone", list)
		}
		for i, want := range []hal.Code{hal.Unknown, hal.Denied} {
			needed := grants[i]
			needed.Optional = false
			wantCode(t, s.Check("a", []hal.Grant{needed}), want)
			wantCode(t, s.Grant("a", []hal.Grant{needed}), want)
		}
		if list := s.List("a"); len(list) != 1 {
			t.Errorf("after a grant that was refused: got %v, want what was before", list)
		}
	})
}

func TestTheLastSampleIsGoodEnoughForWhoSaysSo(t *testing.T) {
	t.Parallel()
	bench(t, everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		read := func(who string, fresh time.Duration) hal.Value {
			t.Helper()
			v, err := s.Read(t.Context(), who, "level", hal.ClassRead, fresh)
			if err != nil {
				t.Error(err)
			}
			return v
		}
		sim.Set("level", 20_000)
		if v := read("a", time.Second); v.Num != 20 || v.Quality != hal.Good {
			t.Errorf("before there was one: got %v", v)
		}
		sim.Set("level", 30_000)
		<-time.After(900 * time.Millisecond)
		if v := read("b", time.Second); v.Num != 20 || v.Quality != hal.Stale {
			t.Errorf("a young sample: got %v, want the last", v)
		}
		<-time.After(200 * time.Millisecond)
		if v := read("b", time.Second); v.Num != 30 || v.Quality != hal.Good {
			t.Errorf("an old sample: got %v, want a new one", v)
		}
		sim.Set("level", 40_000)
		if v := read("a", 0); v.Num != 40 {
			t.Errorf("without an age: got %v, want a new one", v)
		}
	})
}

func TestEventsAreGivenFromASequenceOnAndWhatIsNotKeptIsLost(t *testing.T) {
	t.Parallel()
	bench(t, everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		if _, err := s.Watch(t.Context(), "a", "door", 0); err != nil {
			t.Fatal(err)
		}
		const many = 1500
		for i := range many {
			sim.Set("door", float64((i+1)%2))
			synctest.Wait()
		}
		for _, c := range []struct{ from, seq, lost uint64 }{{many - 2, many - 2, 0}, {many - 1023, many - 1023, 0}, {1, many - 1023, many - 1024}} {
			w, err := s.Watch(t.Context(), "b", "door", c.from)
			if err != nil {
				t.Fatal(err)
			}
			var got [1]hal.Event
			if n, err := w.Next(t.Context(), got[:]); err != nil || n != 1 || got[0].Seq != c.seq || got[0].Lost != c.lost {
				t.Errorf("from %d: got %+v, %v, want sequence %d with %d lost", c.from, got[0], err, c.seq, c.lost)
			}
		}
	})
}

func TestAllNamesOfALeaseAreTakenOrNone(t *testing.T) {
	t.Parallel()
	own := board()
	second := own[0]
	second.Name = "valve"
	own = append(own, second)
	grants := []hal.Grant{{Name: "relay", Write: true}, {Name: "valve", Write: true}, {Name: "door", Read: true}}
	benchOn(t, own, grants, func(t *testing.T, s *hal.Server, _ *hal.Sim) {
		if _, err := s.Write(t.Context(), "b", "valve", 1, 0, 0); err != nil {
			t.Fatal(err)
		}
		for names, want := range map[string]hal.Code{"valve": hal.Busy, "door": hal.Denied, "nothing": hal.Unknown} {
			_, err := s.Acquire("a", []string{"relay", names}, time.Second)
			wantCode(t, err, want)
		}
		if list := s.Leases(); len(list) != 1 || list[0].Who != "b" {
			t.Errorf("got %v, want the one of b alone", list)
		}
		s.Gone("b", "module ended")
		l, err := s.Acquire("a", []string{"valve", "relay"}, time.Second)
		if err != nil || len(s.Leases()) != 2 {
			t.Errorf("got %v, %v, want both", l, err)
		}
		<-time.After(2 * time.Second)
		if list := s.Leases(); len(list) != 0 {
			t.Errorf("after its time: got %v", list)
		}
		_, err = s.Renew("a", l.ID)
		wantCode(t, err, hal.LeaseLost)
	})
}

func TestAnOutputThatBeginsAsItStandsIsLeftAloneUntilItIsDriven(t *testing.T) {
	t.Parallel()
	own := board()
	line := *own[0].Line
	line.Initial = "keep"
	own[0].Line = &line
	benchOn(t, own, everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		<-time.After(time.Minute)
		wantTrace(t, sim)
		if _, err := s.Write(t.Context(), "a", "relay", 1, 0, 0); err != nil {
			t.Error(err)
		}
		s.Gone("a", "module ended")
		wantTrace(t, sim, 1, 0)
	})
}
