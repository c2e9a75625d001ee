package hal_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// turn is what a turn on the slow board takes.
const turn = 10 * time.Millisecond

// slow is a simulated board whose chip and sensor take a turn's time.
type slow struct{ *hal.Sim }

type slowBus struct{ hal.Bus }

func (b slowBus) Do(ctx context.Context, ops []hal.Op) error {
	<-time.After(turn)
	return b.Bus.Do(ctx, ops)
}

type slowSensor struct{ hal.Sensor }

func (r slowSensor) Read(ctx context.Context) (hal.Value, error) {
	<-time.After(turn)
	return r.Sensor.Read(ctx)
}

func (b slow) Open(ctx context.Context, r hal.Resource) (hal.Device, error) {
	dev, err := b.Sim.Open(ctx, r)
	switch dev := dev.(type) {
	case hal.Bus:
		return slowBus{dev}, err
	case hal.Sensor:
		return slowSensor{dev}, err
	}
	return dev, err
}

// crowd runs test on the slow board, beside what it has modules do again and again: ask is one request of one of them.
func crowd(t *testing.T, test func(t *testing.T, s *hal.Server, work func(who string, wide int, ask func(ctx context.Context) error) *atomic.Int64)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := hal.New(hal.ServerConfig{Resources: board(), Backend: slow{hal.NewSim()}})
		if err != nil {
			t.Fatal(err)
		}
		for _, who := range []string{"a", "b", "c"} {
			if err := s.Grant(who, everything()); err != nil {
				t.Fatal(err)
			}
		}
		end := run(t, s)
		defer end()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		test(t, s, func(who string, wide int, ask func(ctx context.Context) error) *atomic.Int64 {
			var done atomic.Int64
			for range wide {
				go func() {
					for ctx.Err() == nil {
						if err := ask(ctx); err == nil {
							done.Add(1)
						}
					}
				}()
			}
			return &done
		})
	})
}

func TestAModuleThatBeginsLateGetsItsShareAndNoMore(t *testing.T) {
	t.Parallel()
	crowd(t, func(t *testing.T, s *hal.Server, work func(string, int, func(context.Context) error) *atomic.Int64) {
		transfers := func(who string) *atomic.Int64 {
			return work(who, 4, func(ctx context.Context) error {
				_, err := s.Transfer(ctx, who, "imu", []hal.Op{{Write: []byte{0x10}, Read: 1}}, 0)
				return err
			})
		}
		there := transfers("a")
		<-time.After(20 * time.Second)
		before := there.Load()
		late := transfers("b")
		<-time.After(4 * time.Second)
		if old, late := there.Load()-before, late.Load(); old < 150 || late < 150 {
			t.Errorf("of 400 turns: got %d for the one that was there, %d for the one that came, want about half each", old, late)
		}
	})
}

func TestAPollThatWaitedLongGoesBesideReads(t *testing.T) {
	t.Parallel()
	crowd(t, func(t *testing.T, s *hal.Server, work func(string, int, func(context.Context) error) *atomic.Int64) {
		for _, who := range []string{"a", "b"} {
			work(who, 8, func(ctx context.Context) error {
				_, err := s.Read(ctx, who, "level", hal.ClassRead, 0)
				return err
			})
		}
		<-time.After(time.Second)
		for range 5 {
			if _, err := s.Read(t.Context(), "c", "level", hal.ClassPoll, 0); err != nil {
				t.Fatalf("a poll beside a bus full of reads: got %v", err)
			}
		}
	})
}
