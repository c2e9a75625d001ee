package hal_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// tenSeconds is the board whose relay is on for ten seconds at most.
func tenSeconds() []hal.Resource {
	b := board()
	b[0].Limits.MaxOn = 10 * time.Second
	return b
}

// on drives the relay for a module.
func on(t *testing.T, s *hal.Server, who string, pulse time.Duration) {
	t.Helper()
	if _, err := s.Write(t.Context(), who, "relay", 1, pulse, 0); err != nil {
		t.Fatal(err)
	}
}

func TestAnOutputIsOnForItsTimeAtMostHoweverItIsDriven(t *testing.T) {
	t.Parallel()
	for name, drive := range map[string]func(t *testing.T, s *hal.Server){
		"once": func(t *testing.T, s *hal.Server) { on(t, s, "a", 0) },
		"by a second lease": func(t *testing.T, s *hal.Server) {
			on(t, s, "a", 0)
			s.Gone("a", "exit")
			on(t, s, "a", 0)
		},
		"again after it was too long": func(t *testing.T, s *hal.Server) {
			on(t, s, "a", 0)
			<-time.After(11 * time.Second)
			on(t, s, "a", 0)
		},
		"under a lease taken while it is on": func(t *testing.T, s *hal.Server) {
			on(t, s, "a", 0)
			if _, err := s.Acquire("a", []string{"relay"}, 0); err != nil {
				t.Fatal(err)
			}
		},
		"by a pulse that is longer": func(t *testing.T, s *hal.Server) { on(t, s, "a", time.Minute) },
		"after it was unplugged while it was on": func(t *testing.T, s *hal.Server) {
			on(t, s, "a", 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			benchOn(t, tenSeconds(), everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
				drive(t, s)
				if name == "after it was unplugged while it was on" {
					sim.Fail("relay", hal.Fault{Gone: true})
					synctest.Wait()
					sim.Fail("relay", hal.Fault{})
					synctest.Wait()
					on(t, s, "a", 0)
				}
				<-time.After(9 * time.Second)
				if v := last(sim.Trace("relay")); v != 1 {
					t.Errorf("after 9 s: got %v, want on", v)
				}
				<-time.After(2 * time.Second)
				if v := last(sim.Trace("relay")); v != 0 {
					t.Errorf("after 11 s: got %v, want safe", v)
				}
			})
		})
	}
}

func last(list []float64) float64 { return list[len(list)-1] }

func TestAPulseEndsThoughItsModuleLeasesTheOutputMeanwhile(t *testing.T) {
	t.Parallel()
	bench(t, everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		on(t, s, "a", 200*time.Millisecond)
		if _, err := s.Acquire("a", []string{"relay"}, time.Minute); err != nil {
			t.Fatal(err)
		}
		<-time.After(300 * time.Millisecond)
		wantTrace(t, sim, 0, 1, 0)
	})
}

func TestAnOutputThatRefusesItsSafeValueIsDrivenUntilItTakesIt(t *testing.T) {
	t.Parallel()
	bench(t, everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		on(t, s, "a", 0)
		sim.Fail("relay", hal.Fault{Nack: 4})
		s.Gone("a", "exit")
		synctest.Wait()
		if st := stateOf(s, "relay"); st != "unsafe" {
			t.Errorf("before it took it: got state %q, want unsafe", st)
		}
		<-time.After(10 * time.Second)
		wantTrace(t, sim, 0, 1, 0)
		if st := stateOf(s, "relay"); st != "ok" {
			t.Errorf("after it took it: got state %q, want ok", st)
		}
	})
}

func TestASafeValueThatIsOwedDoesNotUndoALaterWrite(t *testing.T) {
	t.Parallel()
	bench(t, everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		on(t, s, "a", 0)
		sim.Fail("relay", hal.Fault{Nack: 100})
		s.Gone("a", "exit")
		sim.Fail("relay", hal.Fault{})
		on(t, s, "b", 0)
		<-time.After(time.Minute)
		wantTrace(t, sim, 0, 1)
		s.Gone("b", "exit")
		wantTrace(t, sim, 0, 1, 0)
	})
}

func TestAnOutputThatIsUnpluggedWhileItOwesItsSafeValueIsSafeWhenItIsBack(t *testing.T) {
	t.Parallel()
	b := board()
	b[0].Line.Initial = "keep"
	benchOn(t, b, everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		on(t, s, "a", 0)
		sim.Fail("relay", hal.Fault{Gone: true})
		synctest.Wait()
		s.Gone("a", "exit")
		sim.Fail("relay", hal.Fault{})
		<-time.After(time.Minute)
		if v := last(sim.Trace("relay")); v != 0 {
			t.Errorf("got %v, want safe", v)
		}
	})
}

func stateOf(s *hal.Server, name string) string {
	list := s.List("")
	return list[slices.IndexFunc(list, func(st hal.Status) bool { return st.Name == name })].State
}

// shelf is a keeper that forgets nothing, and does not answer when it is asked for all while it is slow.
type shelf struct {
	kept   map[string]hal.Kept
	slow   int
	missed bool // it takes the agent for missing
}

func (k *shelf) Keep(key string, fd int, _ hal.SafeAction, state []byte) error {
	was := k.kept[key]
	if fd >= 0 {
		was.FD = fd
	}
	k.kept[key] = hal.Kept{Key: key, FD: was.FD, State: slices.Clone(state)}
	return nil
}

func (k *shelf) Awake(lapsed func()) {
	if k.missed {
		k.missed = false
		lapsed()
	}
}

func (k *shelf) Drop(key string) error { delete(k.kept, key); return nil }

func (k *shelf) List() ([]hal.Kept, error) {
	if k.slow > 0 {
		k.slow--
		return nil, errors.New("no answer")
	}
	return slices.Collect(maps.Values(k.kept)), nil
}

// held is a simulated board whose relay outlives its agent: whoever opens what the shelf holds finds it busy.
type held struct {
	*hal.Sim
	shelf *shelf
}

type heldLine struct{ hal.Line }

func (heldLine) FD(float64) (int, hal.SafeAction) { return 1 << 20, hal.SafeAction{} } // no descriptor of this process

func (h held) Open(ctx context.Context, r hal.Resource) (hal.Device, error) {
	if _, taken := h.shelf.kept[r.Name]; taken {
		return nil, &hal.Error{Code: hal.Busy, Name: r.Name}
	}
	return h.open(ctx, r)
}

func (h held) open(ctx context.Context, r hal.Resource) (hal.Device, error) {
	dev, err := h.Sim.Open(ctx, r)
	if line, ok := dev.(hal.Line); ok && r.Output() {
		return heldLine{line}, err
	}
	return dev, err
}

func (h held) Adopt(ctx context.Context, r hal.Resource, _ int) (hal.Device, error) {
	r.Line.Initial = "keep"
	return h.open(ctx, r)
}

// relayed runs first on a server, which leaves for a successor, and then second on that, with what the first one's keeper held.
func relayed(t *testing.T, first func(t *testing.T, s *hal.Server, sim *hal.Sim), between func(t *testing.T, k *shelf), second func(t *testing.T, s *hal.Server, sim *hal.Sim)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sim, keeper := hal.NewSim(), &shelf{kept: map[string]hal.Kept{}}
		for i, life := range []func(*testing.T, *hal.Server, *hal.Sim){first, second} {
			s, err := hal.New(hal.ServerConfig{Resources: tenSeconds(), Backend: held{sim, keeper}, Keeper: keeper})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Grant("a", everything()); err != nil {
				t.Fatal(err)
			}
			end := run(t, s)
			synctest.Wait()
			life(t, s, sim)
			s.Leave()
			end()
			if i == 0 {
				between(t, keeper)
			}
		}
	})
}

func TestTheTimeAnOutputIsOnGoesOnOverTheAgentsSuccessor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		level float64
		want  []float64 // after four more seconds, of which the first six are in the state
	}{
		"on for six seconds": {1, []float64{0, 1, 0}},
		"safe":               {0, []float64{0, 1, 0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relayed(t, func(t *testing.T, s *hal.Server, _ *hal.Sim) {
				on(t, s, "a", 0)
				if _, err := s.Write(t.Context(), "a", "relay", c.level, 0, 0); err != nil {
					t.Fatal(err)
				}
			}, func(t *testing.T, k *shelf) {
				kept := k.kept["relay"]
				var state map[string]any
				if err := json.Unmarshal(kept.State, &state); err != nil {
					t.Fatal(err)
				}
				if since, ok := state["on"].(float64); ok {
					state["on"] = since - float64(6*time.Second)
				}
				kept.State, _ = json.Marshal(state)
				k.kept["relay"] = kept
			}, func(t *testing.T, s *hal.Server, sim *hal.Sim) {
				on(t, s, "a", 0)
				<-time.After(5 * time.Second)
				wantTrace(t, sim, c.want...)
			})
		})
	}
}

func TestAWardenThatDoesNotAnswerAtOnceIsAskedAgain(t *testing.T) {
	t.Parallel()
	relayed(t, func(t *testing.T, s *hal.Server, _ *hal.Sim) {
		on(t, s, "a", 0)
	}, func(_ *testing.T, k *shelf) { k.slow = 2 }, func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		<-time.After(5 * time.Second)
		on(t, s, "a", 0)
		wantTrace(t, sim, 0, 1)
	})
}

func TestASafeValueThatAnAgentOwedIsPaidByItsSuccessor(t *testing.T) {
	t.Parallel()
	relayed(t, func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		on(t, s, "a", 0)
		sim.Fail("relay", hal.Fault{Nack: 100})
		s.Gone("a", "exit")
		wantTrace(t, sim, 0, 1)
	}, func(*testing.T, *shelf) {}, func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		sim.Fail("relay", hal.Fault{})
		<-time.After(time.Second)
		wantTrace(t, sim, 0, 1, 0)
		if st := stateOf(s, "relay"); st != "ok" {
			t.Errorf("got state %q, want ok", st)
		}
	})
}

func TestAWriteOfBeforeTheAgentWasMissingDoesNotReachTheOutput(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sim, keeper := hal.NewSim(), &shelf{kept: map[string]hal.Kept{}}
		s, err := hal.New(hal.ServerConfig{Resources: board(), Backend: held{sim, keeper}, Keeper: keeper})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Grant("a", everything()); err != nil {
			t.Fatal(err)
		}
		defer run(t, s)()
		fence, err := s.Write(t.Context(), "a", "relay", 1, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		keeper.missed = true
		_, err = s.Write(t.Context(), "a", "relay", 1, 0, fence)
		wantCode(t, err, hal.LeaseLost)
		synctest.Wait()
		wantTrace(t, sim, 0, 1, 0)
		keeper.missed = true
		_, err = s.Batch(t.Context(), "a", []hal.Step{{Name: "relay", Value: new(1.0)}}, 0)
		wantCode(t, err, hal.LeaseLost)
		synctest.Wait()
		wantTrace(t, sim, 0, 1, 0)
	})
}
