package hal_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// ideal is what the relay has to do, in as few words as possible: who drives it, and the moments at which something ends by itself.
type ideal struct {
	who    string // "" = nobody
	ttl    time.Duration
	until  time.Time // of the lease; zero = it has no end
	pulse  time.Time
	onFor  time.Time
	level  float64
	grants map[string]time.Duration // module: deadman
}

const idealMaxOn = 10 * time.Second

func (m *ideal) end() { *m = ideal{grants: m.grants} }

func (m *ideal) safe() {
	m.level, m.pulse, m.onFor = 0, time.Time{}, time.Time{}
	if m.who == hal.Operator {
		m.end()
	}
}

func (m *ideal) renew(now time.Time) {
	if m.ttl > 0 {
		m.until = now.Add(m.ttl)
	}
}

func (m *ideal) write(now time.Time, who string, v float64, pulse time.Duration) (code error) {
	deadman, granted := m.grants[who]
	switch {
	case !granted:
		return hal.Unknown
	case m.who != "" && m.who != who:
		return hal.Busy
	case m.who == "":
		m.who, m.ttl = who, deadman
	}
	m.renew(now)
	m.level, m.pulse = v, time.Time{}
	if pulse > 0 {
		m.pulse = now.Add(pulse)
	}
	if v == 0 {
		m.onFor = time.Time{}
	} else if m.onFor.IsZero() {
		m.onFor = now.Add(idealMaxOn)
	}
	return nil
}

func (m *ideal) acquire(now time.Time, who string, ttl time.Duration) (code error) {
	if _, granted := m.grants[who]; !granted {
		return hal.Unknown
	}
	if m.who != "" && m.who != who {
		return hal.Busy
	}
	m.who, m.ttl, m.until = who, ttl, time.Time{}
	m.renew(now)
	return nil
}

// pass lets time pass until now.
func (m *ideal) pass(now time.Time) {
	for {
		first, what := now, func() {}
		for _, e := range []struct {
			at   time.Time
			what func()
		}{{m.until, m.end}, {m.pulse, m.safe}, {m.onFor, m.safe}} {
			if !e.at.IsZero() && e.at.Before(first) {
				first, what = e.at, e.what
			}
		}
		if first.Equal(now) {
			return
		}
		what()
	}
}

// TestTheRelayIsAlwaysWhereAModelOfItIs has modules and the operator do things in any order, and compares each level and each refusal.
func TestTheRelayIsAlwaysWhereAModelOfItIs(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			benchOn(t, tenSeconds(), nil, func(t *testing.T, s *hal.Server, sim *hal.Sim) {
				walk(t, rand.New(rand.NewPCG(seed, 1)), s, sim)
			})
		})
	}
}

func walk(t *testing.T, rng *rand.Rand, s *hal.Server, sim *hal.Sim) {
	t.Helper()
	m := ideal{grants: map[string]time.Duration{hal.Operator: 0}}
	leases := map[string]string{}
	span := func(most time.Duration) time.Duration { return time.Duration(1 + rng.Int64N(int64(most))) } // to the nanosecond: no two at once
	var story []string
	for range 250 {
		who := []string{"a", "b", hal.Operator}[rng.IntN(3)]
		var err, want error
		now, said := time.Now(), ""
		switch rng.IntN(9) {
		case 0, 1, 2:
			v, pulse := float64(rng.IntN(2)), time.Duration(0)
			if rng.IntN(3) == 0 {
				pulse = span(15 * time.Second)
			}
			said = fmt.Sprintf("%s writes %v for %v", who, v, pulse)
			want = m.write(now, who, v, pulse)
			_, err = s.Write(t.Context(), who, "relay", v, pulse, 0)
		case 3:
			ttl := []time.Duration{0, span(20 * time.Second)}[rng.IntN(2)]
			said = fmt.Sprintf("%s leases it for %v", who, ttl)
			want = m.acquire(now, who, ttl)
			var lease hal.Lease
			if lease, err = s.Acquire(who, []string{"relay"}, ttl); err == nil {
				leases[who] = lease.ID
			}
		case 4:
			said = who + " releases"
			held := slices.ContainsFunc(s.Leases(), func(h hal.Holding) bool { return h.Who == who })
			if err = s.Release(who, leases[who]); err == nil {
				if !held {
					t.Fatalf("%v: a lease that was none was released", append(story, said))
				}
				m.end()
			}
			err = nil
		case 5:
			said = who + " is gone"
			s.Gone(who, "exit")
			if m.who == who {
				m.end()
			}
		case 6:
			if who == hal.Operator {
				continue
			}
			_, granted := m.grants[who]
			said = fmt.Sprintf("%s is granted it: %v", who, !granted)
			if granted {
				err = s.Grant(who, nil)
				delete(m.grants, who)
				if m.who == who {
					m.end()
				}
				break
			}
			deadman := []time.Duration{0, 50*time.Millisecond + span(8*time.Second)}[rng.IntN(2)]
			m.grants[who] = deadman
			err = s.Grant(who, []hal.Grant{{Name: "relay", Read: true, Write: true, Deadman: deadman}})
		default:
			d := span(6 * time.Second)
			said = fmt.Sprintf("%v pass", d)
			<-time.After(d)
			m.pass(time.Now())
		}
		synctest.Wait()
		story = append(story, said)
		if !errors.Is(err, want) {
			t.Fatalf("%v: got %v, want %v", story, err, want)
		}
		if got := last(sim.Trace("relay")); got != m.level {
			t.Fatalf("%v: got level %v, want %v", story, got, m.level)
		}
		if got := s.Leases(); (len(got) == 0) != (m.who == "") || len(got) > 0 && got[0].Who != m.who {
			t.Fatalf("%v: got leases %v, want that of %q", story, got, m.who)
		}
	}
}

// TestWhateverFailedTheRelayIsSafeInTheEnd has the board refuse, hang and come and go at any moment while modules drive.
func TestWhateverFailedTheRelayIsSafeInTheEnd(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			b := tenSeconds()
			b[0].Line.Initial = []string{"safe", "keep"}[seed%2]
			benchOn(t, b, everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
				rng := rand.New(rand.NewPCG(seed, 2))
				for range 80 {
					who := []string{"a", "b", hal.Operator}[rng.IntN(3)]
					switch rng.IntN(6) {
					case 0, 1:
						_, _ = s.Write(t.Context(), who, "relay", float64(rng.IntN(2)), time.Duration(rng.IntN(2))*time.Second, 0) // refused, mostly
					case 2:
						sim.Fail("relay", hal.Fault{Nack: rng.IntN(8), Stuck: time.Duration(rng.IntN(3)) * time.Second, Gone: rng.IntN(3) == 0})
					case 3:
						sim.Fail("relay", hal.Fault{})
					case 4:
						s.Gone(who, "exit")
					case 5:
						<-time.After(time.Duration(rng.Int64N(int64(5 * time.Second))))
					}
					synctest.Wait()
				}
				sim.Fail("relay", hal.Fault{})
				for _, who := range []string{"a", "b", hal.Operator} {
					s.Gone(who, "exit")
				}
				<-time.After(2 * time.Minute)
				if got, st := last(sim.Trace("relay")), stateOf(s, "relay"); got != 0 || st != "ok" {
					t.Errorf("got level %v and state %s, want it safe and ok", got, st)
				}
				on(t, s, "a", 0)
			})
		})
	}
}
