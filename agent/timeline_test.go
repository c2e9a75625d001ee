package agent

import (
	"log/slog"
	"testing"
	"time"
)

// device without a battery: a timeline over boots of which each may or may not learn the time.
func TestTheTimeOfAMessageIsFoundWhenTheDeviceKnowsIt(t *testing.T) {
	t.Parallel()
	a := queueRig(t)
	wall := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC) // what is true, whether the device knows it or not
	var up time.Duration
	known := false
	start := func(boot string) *timeline {
		up, known = 0, false
		return newTimeline(&timeline{
			boot: boot, uptime: func() time.Duration { return up }, now: func() time.Time { return wall }, known: func() bool { return known },
			docs: a.store.Docs(), logger: slog.New(slog.DiscardHandler),
		})
	}
	pass := func(d time.Duration) { wall, up = wall.Add(d), up+d }
	save := func(l *timeline) { // what Run does each minute
		l.mu.Lock()
		defer l.mu.Unlock()
		l.noteLocked()
		raw, err := encodeBoots(l)
		if err == nil {
			err = a.store.Docs().Put(t.Context(), bootsKey, raw)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	type moment struct {
		boot   string
		uptime time.Duration
		was    time.Time
	}
	take := func(l *timeline) moment {
		boot, uptime, untimed := l.untimed()
		if !untimed {
			t.Fatal("got a time, want none known")
		}
		return moment{boot, uptime, wall}
	}

	l := start("one") // learns the time
	pass(time.Hour)
	first := take(l)
	if _, _, ok := l.made(first.boot, first.uptime); ok {
		t.Error("a time before it is known: got one")
	}
	pass(time.Hour)
	known = true
	if at, within, ok := l.made(first.boot, first.uptime); !ok || within != 0 || !at.Equal(first.was) {
		t.Errorf("same boot: got %v within %v, %t, want %v exactly", at, within, ok, first.was)
	}
	save(l)
	wall = wall.Add(10 * time.Minute) // switched off

	l = start("two") // never learns it
	pass(30 * time.Minute)
	second := take(l)
	pass(30 * time.Minute)
	save(l)
	wall = wall.Add(5 * time.Minute)

	l = start("three")
	pass(time.Minute)
	known = true
	at, within, ok := l.made(second.boot, second.uptime)
	if !ok || at.Before(second.was) || at.Add(-within).After(second.was) || within > 16*time.Minute {
		t.Errorf("a boot between: got %v within %v, %t, want %v in it, within the quarter hour switched off", at, within, ok, second.was)
	}
	if at, within, ok := l.made(first.boot, first.uptime); !ok || within != 0 || !at.Equal(first.was) {
		t.Errorf("an earlier boot that knew: got %v within %v, %t, want %v exactly", at, within, ok, first.was)
	}
	if _, _, untimed := l.untimed(); untimed {
		t.Error("the time is known: got a message without one")
	}
}
