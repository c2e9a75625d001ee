package workload

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestModuleThatFloodsThePinsIsSlowedOnlyWhileAnotherAsks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Server{}
		flood, other := &socket{Server: s}, &socket{Server: s}
		const many = 10_000
		began := time.Now()
		for range many {
			flood.turn(t.Context())
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("alone: %d requests waited %v, want none to wait", many, took)
		}
		other.turn(t.Context()) // before the flood begins, all of which could come within this one moment
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range many {
				flood.turn(t.Context())
			}
		}()
		for n := 0; ; n++ {
			asked := time.Now()
			other.turn(t.Context())
			if took := time.Since(asked); took != 0 {
				t.Fatalf("the other's request %d waited %v, want none to wait", n, took)
			}
			time.Sleep(time.Millisecond)
			select {
			case <-done:
			default:
				continue
			}
			break
		}
		if took, want := time.Since(began), many*time.Second/fairRate; took < want-2*fairBurst || took > want+2*fairBurst {
			t.Errorf("beside another: %d requests took %v, want %v", many, took, want)
		}
	})
}
