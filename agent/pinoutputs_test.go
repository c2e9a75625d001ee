package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/twin"
	"github.com/sandpiper-edge/sandpiper/hal"
)

// pinBench is a module that drives a simulated relay, which is on for a minute at most, by its twin.
type pinBench struct {
	t       *testing.T
	sim     *hal.Sim
	server  *hal.Server
	changed chan struct{}

	mu      sync.Mutex // guards what follows
	now     twin.Snapshot
	full    bool // the store takes no report
	reports []map[string]pinAck
}

func benchPins(t *testing.T, test func(b *pinBench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		zero := 0.0
		relay := hal.Resource{Name: "relay", Kind: hal.KindLine, Bus: "chip", Safe: &zero, Allow: []string{"*"}, Limits: hal.Limits{MaxOn: time.Minute},
			Line: &hal.LinePart{Chip: "sim", Direction: hal.Out}}
		b := &pinBench{t: t, sim: hal.NewSim(), changed: make(chan struct{}, 1)}
		var err error
		if b.server, err = hal.New(hal.ServerConfig{Resources: []hal.Resource{relay}, Backend: b.sim}); err != nil {
			t.Fatal(err)
		}
		if err := b.server.Grant("plant", []hal.Grant{{Name: "relay", Write: true}}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		go func() { ended <- b.server.Run(ctx) }()
		d := &pinDriver{module: "plant", hal: b.server, log: slog.New(slog.DiscardHandler), desired: b.desired, report: b.report}
		go func() { d.run(ctx, b.changed); ended <- nil }()
		synctest.Wait()
		test(b)
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
}

func (b *pinBench) desired() twin.Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *pinBench) fill(full bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.full = full
}

// count is how many reports were stored.
func (b *pinBench) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.reports)
}

func (b *pinBench) report(_ context.Context, patch json.RawMessage) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.full {
		return errors.New("the store is full")
	}
	var doc struct {
		Outputs map[string]pinAck `json:"outputs"`
	}
	err := json.Unmarshal(patch, &doc)
	b.reports = append(b.reports, doc.Outputs)
	return err
}

// pass lets time go by, and all that it brings.
func (b *pinBench) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// want is what the twin desires from now on.
func (b *pinBench) want(desired string) {
	b.mu.Lock()
	b.now = twin.Snapshot{Known: true, Desired: json.RawMessage(desired), DesiredVersion: b.now.DesiredVersion + 1}
	b.mu.Unlock()
	b.changed <- struct{}{}
	synctest.Wait()
}

func (b *pinBench) level(want float64, when string) {
	b.t.Helper()
	if got := b.sim.Trace("relay"); got[len(got)-1] != want {
		b.t.Errorf("%s: got level %v, want %v", when, got[len(got)-1], want)
	}
}

// told is the newest acknowledgement of the relay.
func (b *pinBench) told(status int, value float64, reason, when string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.reports) == 0 {
		b.t.Fatalf("%s: nothing was reported", when)
	}
	got := b.reports[len(b.reports)-1]["relay"]
	if got.Status != status || got.Value != value || !strings.Contains(got.Reason, reason) || reason == "" && got.Reason != "" || got.Version != b.now.DesiredVersion {
		b.t.Errorf("%s: got %+v, want status %d, value %v, reason %q of version %d", when, got, status, value, reason, b.now.DesiredVersion)
	}
}

const (
	pinOn  = `{"outputs":{"relay":1}}`
	pinOff = `{"outputs":{"relay":0}}`
)

func TestAnOutputThatItsOwnersRuleMadeSafeIsReportedAsItIsAndStaysSo(t *testing.T) {
	t.Parallel()
	benchPins(t, func(b *pinBench) {
		b.want(pinOn)
		b.level(1, "desired")
		b.told(200, 1, "", "desired")
		b.pass(70 * time.Second)
		b.level(0, "after max_on")
		b.told(409, 0, "on for too long", "after max_on")
		n := b.count()
		b.pass(time.Hour)
		b.level(0, "an hour later")
		if b.count() != n {
			b.t.Errorf("got %d more reports of the same", b.count()-n)
		}
		b.want(pinOff)
		b.want(pinOn)
		b.level(1, "desired anew")
		b.told(200, 1, "", "desired anew")
	})
}

func TestAnOutputThatWasUnpluggedIsDrivenAgainWhenItIsBack(t *testing.T) {
	t.Parallel()
	benchPins(t, func(b *pinBench) {
		b.want(pinOn)
		b.sim.Fail("relay", hal.Fault{Gone: true})
		b.pass(20 * time.Second)
		b.told(410, 1, "gone", "unplugged")
		if n := b.count(); n != 2 {
			b.t.Errorf("got %d reports, want one that it is on and one that it is gone", n)
		}
		b.sim.Fail("relay", hal.Fault{})
		b.pass(20 * time.Second)
		b.level(1, "back")
		b.told(200, 1, "", "back")
	})
}

func TestAnAcknowledgementThatTheStoreRefusedIsReportedLater(t *testing.T) {
	t.Parallel()
	benchPins(t, func(b *pinBench) {
		b.fill(true)
		b.want(pinOn)
		b.level(1, "with a full store")
		b.pass(20 * time.Second)
		b.fill(false)
		b.pass(20 * time.Second)
		b.told(200, 1, "", "when there is room")
		if n := b.count(); n != 1 {
			b.t.Errorf("got %d reports, want one", n)
		}
	})
}

func TestAnOutputThatIsDesiredNoMoreStaysAndIsAcknowledgedWhenItIsDesiredAgain(t *testing.T) {
	t.Parallel()
	benchPins(t, func(b *pinBench) {
		b.want(pinOn)
		b.want(`{"outputs":{}}`)
		b.level(1, "desired no more")
		b.want(pinOn)
		b.told(200, 1, "", "desired again")
	})
}

func TestAClockThatIsSetBackDelaysNoPoll(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, every := range []time.Duration{10 * time.Millisecond, time.Second, 24 * time.Hour} {
		for _, names := range []string{"a", "b", "plant climate [level]"} {
			next := firstPoll(now, every, names)
			if d := next.Sub(now); d < 0 || d >= every {
				t.Errorf("every %v: the first poll is after %v, want it within the period", every, d)
			}
			if !strings.Contains(next.String(), "m=") {
				t.Errorf("every %v: got %v, which is of the wall clock alone", every, next)
			}
			if again := firstPoll(now.Add(every), every, names); !again.Equal(next.Add(every)) {
				t.Errorf("every %v: got %v a period later, want the same phase as %v", every, again, next)
			}
		}
	}
}
