package hal_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// deaf is a simulated board that tells of no change but those of plugs.
type deaf struct {
	*hal.Sim
	plugs chan hal.Change
}

func (d deaf) Changes(ctx context.Context) <-chan hal.Change {
	if d.plugs == nil {
		none := make(chan hal.Change)
		close(none)
		return none
	}
	return d.plugs
}

func serveDeaf(t *testing.T, d deaf, log *strings.Builder) (s *hal.Server, end func()) {
	t.Helper()
	s, err := hal.New(hal.ServerConfig{Resources: board(), Backend: d, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Grant("a", everything()); err != nil {
		t.Fatal(err)
	}
	end = run(t, s)
	synctest.Wait()
	return s, end
}

func TestWhatComesAndGoesUnseenIsFoundByItsUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		d := deaf{Sim: hal.NewSim()}
		s, end := serveDeaf(t, d, &log)
		on(t, s, "a", 0)
		d.Fail("relay", hal.Fault{Gone: true})
		for range 20 {
			_, err := s.Read(t.Context(), "a", "relay", hal.ClassRead, 0)
			wantCode(t, err, hal.Absent)
		}
		if st := stateOf(s, "relay"); st != "gone" {
			t.Errorf("unplugged: got state %q", st)
		}
		d.Fail("relay", hal.Fault{})
		<-time.After(2 * time.Second)
		wantTrace(t, d.Sim, 0, 1, 0) // nobody drives what was away
		on(t, s, "a", 0)
		synctest.Wait() // for those who write to the log
		if n := strings.Count(log.String(), "not open"); n != 1 {
			t.Errorf("got %d lines that it is not open, want one:\n%s", n, log.String())
		}
		end()
	})
}

func TestOtherDevicesThatComeAreNoNewsOfOneThatIsMissing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		d := deaf{Sim: hal.NewSim(), plugs: make(chan hal.Change)}
		d.Fail("relay", hal.Fault{Gone: true})
		s, end := serveDeaf(t, d, &log)
		for range 50 { // a battery tells of its charge
			d.plugs <- hal.Change{Present: true}
		}
		synctest.Wait()
		if n := strings.Count(log.String(), "not open"); n != 1 {
			t.Errorf("got %d lines that it is not open, want one:\n%s", n, log.String())
		}
		d.Fail("relay", hal.Fault{})
		d.plugs <- hal.Change{Present: true}
		synctest.Wait()
		on(t, s, "a", 0)
		end()
	})
}
