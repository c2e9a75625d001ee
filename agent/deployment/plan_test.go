package deployment

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func module(name, version string, order uint32) Module {
	return Module{Name: name, Version: version, Order: order, Settings: Settings{Image: "x"}}
}

func here(state State, m Module) Running { return Running{m.Name, m.Hash(), m.Order, state} }

func stopped(m Module) Module {
	m.Status = StatusStopped
	return m
}

func TestPlan(t *testing.T) {
	t.Parallel()
	a, b, c := module("a", "1", 2), module("b", "1", 1), module("c", "1", LastOrder)
	var out strings.Builder
	for _, row := range []struct {
		name    string
		running []Running
		wanted  []Module
	}{
		{"an empty device", nil, []Module{a, b, c}},
		{"nothing to do", []Running{here(Live, a), here(Live, b)}, []Module{a, b}},
		{"a module changes: fetched first, stopped after", []Running{here(Live, a), here(Live, b)}, []Module{module("a", "2", 2), b}},
		{"all change: stops against the startup order, starts along it", []Running{here(Live, a), here(Live, b), here(Live, c)}, []Module{module("a", "2", 2), module("b", "2", 1), module("c", "2", LastOrder)}},
		{"a module is removed", []Running{here(Live, a), here(Live, b)}, []Module{b}},
		{"a module that does not run is removed", []Running{here(Idle, a)}, nil},
		{"one goes, one comes", []Running{here(Live, a)}, []Module{b}},
		{"a new module is wanted stopped: installed, not started", nil, []Module{stopped(a)}},
		{"a running module is wanted stopped", []Running{here(Live, a), here(Live, b)}, []Module{stopped(a), b}},
		{"a stopped module stays stopped", []Running{here(Idle, a)}, []Module{stopped(a)}},
		{"a stopped module is wanted running", []Running{here(Idle, a)}, []Module{a}},
		{"a changed module is wanted stopped", []Running{here(Live, a)}, []Module{stopped(module("a", "2", 2))}},
	} {
		fmt.Fprintln(&out, "#", row.name)
		for _, s := range Plan(row.running, row.wanted) {
			fmt.Fprintln(&out, s)
		}
		fmt.Fprintln(&out)
	}
	golden(t, "plan.golden", out.String())
}

// TestPlanKeepsItsPromises carries random plans out and looks at the result.
func TestPlanKeepsItsPromises(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		var running []Running
		var wanted []Module
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			m := module(name, fmt.Sprint(r.IntN(2)), uint32(r.IntN(3)))
			if r.IntN(3) > 0 {
				running = append(running, here(State(r.IntN(2)), m))
			}
			m.Version, m.Order, m.Status = fmt.Sprint(r.IntN(2)), uint32(r.IntN(3)), Status(r.IntN(2))
			if r.IntN(3) > 0 {
				wanted = append(wanted, m)
			}
		}
		steps := Plan(running, wanted)
		r.Shuffle(len(wanted), func(i, j int) { wanted[i], wanted[j] = wanted[j], wanted[i] })
		r.Shuffle(len(running), func(i, j int) { running[i], running[j] = running[j], running[i] })
		if again := Plan(running, wanted); fmt.Sprint(again) != fmt.Sprint(steps) {
			t.Fatalf("the order of what is given counts:\n%v\n%v", steps, again)
		}
		now := map[string]Running{}
		for _, m := range running {
			now[m.Name] = m
		}
		want := map[string]Module{}
		for _, m := range wanted {
			want[m.Name] = m
		}
		fetched := map[string]bool{}
		last := Fetch
		for _, s := range steps {
			m, is := now[s.Module]
			if s.Verb == Fetch && last != Fetch {
				t.Fatalf("a fetch after %v: %v", last, steps)
			}
			last = s.Verb
			switch s.Verb {
			case Fetch:
				fetched[s.Module] = true
			case Stop:
				if !is || m.State != Live {
					t.Fatalf("%v of what does not run: %v", s, steps)
				}
				m.State = Idle
				now[s.Module] = m
			case Remove:
				if !is || m.State != Idle {
					t.Fatalf("%v of what runs: %v", s, steps)
				}
				delete(now, s.Module)
			case Create:
				if is || !fetched[s.Module] {
					t.Fatalf("%v twice or without its image: %v", s, steps)
				}
				now[s.Module] = here(Idle, want[s.Module])
			case Start:
				if !is || m.State == Live {
					t.Fatalf("%v of what is not installed: %v", s, steps)
				}
				m.State = Live
				now[s.Module] = m
			}
		}
		if len(now) != len(wanted) {
			t.Fatalf("got %v, want %v", now, wanted)
		}
		for _, m := range wanted {
			if got := now[m.Name]; got.Hash != m.Hash() || (got.State == Live) != (m.Status == StatusRunning) {
				t.Fatalf("%s: got %+v after %v", m.Name, got, steps)
			}
		}
	}
}
