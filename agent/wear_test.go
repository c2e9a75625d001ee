package agent

import (
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/store"
)

func TestADayIsTheLastHoursSwitchedOnAndSurvivesARestart(t *testing.T) {
	t.Parallel()
	a := queueRig(t)
	clock := time.Now()
	written := uint64(0)
	start := func() *wear {
		w := &wear{usage: func() store.Usage { return store.Usage{Written: written} }, docs: a.store.Docs(), logger: a.log, now: func() time.Time { return clock }}
		w.begin()
		return w
	}
	w := start()
	busy, calm := iothub.ID{Device: "edge1", Module: "busy"}, iothub.ID{Device: "edge1", Module: "calm"}
	hour := func() {
		w.add(busy, 3000)
		w.add(calm, 1000)
		written += 40_000
		clock = clock.Add(time.Hour)
		raw, err := w.tick()
		if err == nil {
			err = a.store.Docs().Put(t.Context(), wearKey, raw)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 30 {
		hour()
	}
	for name, w := range map[string]*wear{"running": w, "started again": start()} {
		day := w.day()
		if day.Hours < 22.9 || day.Hours > 24.1 || len(day.Modules) != 2 {
			t.Fatalf("%s: got %+v, want a day of two modules", name, day)
		}
		if m := day.Modules[0]; m.Identity != "edge1/busy" || m.StoredPerDay != 72_000 || m.WrittenPerDay != 720_000 || day.WrittenPerDay != 960_000 {
			t.Errorf("%s: got %+v, want edge1/busy with 72000 stored and 720000 of 960000 written", name, day)
		}
	}
}
