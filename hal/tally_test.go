package hal_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// countOf is what a module did with a name.
func countOf(s *hal.Server, who, name string) hal.Count {
	list := s.Counts()
	i := slices.IndexFunc(list, func(c hal.Count) bool { return c.Who == who && c.Name == name })
	if i < 0 {
		return hal.Count{}
	}
	return list[i]
}

func TestWhatIsRefusedAndWhatIsMadeSafeIsCountedByModuleAndResource(t *testing.T) {
	t.Parallel()
	bench(t, everything(), func(t *testing.T, s *hal.Server, _ *hal.Sim) {
		for range 3 {
			if _, err := s.Write(t.Context(), "a", "relay", 1, 0, 0); err != nil {
				t.Fatal(err)
			}
		}
		_, err := s.Write(t.Context(), "a", "door", 1, 0, 0)
		wantCode(t, err, hal.Denied)
		_, err = s.Transfer(t.Context(), "a", "imu", []hal.Op{{Write: []byte{0x7f, 1}}}, 0)
		wantCode(t, err, hal.Denied)
		_, err = s.Acquire("a", []string{"door"}, 0)
		wantCode(t, err, hal.Denied)
		_, err = s.Read(t.Context(), "a", "nothing\xff", hal.ClassRead, 0)
		wantCode(t, err, hal.Unknown)
		_, err = s.Acquire("a", []string{"relay", "b-only"}, 0)
		wantCode(t, err, hal.Unknown)
		s.Gone("a", "module ended")
		if c := countOf(s, "a", "relay"); c.Writes != 3 || c.Safe != 1 || c.Denied != 0 || c.Last != "module ended: safe" {
			t.Errorf("relay: got %+v, want 3 writes and one safe action", c)
		}
		for name, want := range map[string]uint64{"door": 2, "imu": 1, "": 2} {
			if c := countOf(s, "a", name); c.Denied != want || !strings.HasPrefix(c.Last, "denied: ") || c.At.IsZero() {
				t.Errorf("%q: got %+v, want %d denials", name, c, want)
			}
		}
		if c := countOf(s, "b", "relay"); c != (hal.Count{}) {
			t.Errorf("b did nothing: got %+v", c)
		}
		if err := s.Grant("a", everything()); err != nil {
			t.Fatal(err)
		}
		if c := countOf(s, "a", "door"); c.Denied != 2 {
			t.Errorf("after the grant was replaced: got %+v, want the count to go on", c)
		}
	})
}

func TestALeaseThatItsModuleReleasesIsNoSafeActionAndNorIsTheEndOfAPulse(t *testing.T) {
	t.Parallel()
	bench(t, everything(), func(t *testing.T, s *hal.Server, _ *hal.Sim) {
		l, err := s.Acquire("a", []string{"relay"}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Release("a", l.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(t.Context(), "a", "relay", 1, time.Second, 0); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * time.Second)
		if c := countOf(s, "a", "relay"); c.Safe != 0 {
			t.Errorf("a release and the end of a pulse: got %+v, want no safe action", c)
		}
	})
}

func TestAFloodOfRefusalsLeavesTheRecordToOthers(t *testing.T) {
	t.Parallel()
	bench(t, everything(), func(t *testing.T, s *hal.Server, _ *hal.Sim) {
		if _, err := s.Write(t.Context(), "b", "relay", 1, 0, 0); err != nil {
			t.Fatal(err)
		}
		const flood = 3000
		for range flood {
			_, err := s.Write(t.Context(), "a", "door", 1, 0, 0)
			wantCode(t, err, hal.Denied)
			_, err = s.Read(t.Context(), "a", strings.Repeat("x", 4096), hal.ClassRead, 0)
			wantCode(t, err, hal.Unknown)
		}
		log := s.Log()
		if len(log) > 10 || !slices.ContainsFunc(log, func(e hal.Entry) bool { return e.Who == "b" && e.What == "write 1" }) {
			t.Errorf("got %d entries, want what b did and one of each refusal", len(log))
		}
		for _, e := range log {
			if len(e.Name) > 40 {
				t.Errorf("a name of %d bytes is in the record", len(e.Name))
			}
		}
		if c := countOf(s, "a", ""); c.Denied != flood {
			t.Errorf("got %+v, want %d", c, flood)
		}
	})
}
