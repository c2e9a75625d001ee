package twin

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// world is a device with one twin, the hub it belongs to and the module behind it, all as plain documents.
type world struct {
	t    *testing.T
	r    *rand.Rand
	docs *memory
	k    *Keeper

	hub      map[string]any // desired on the hub
	version  int64
	received map[string]any // reported on the hub

	reported map[string]any // what the module believes
	patches  int64          // accepted reported patches

	client  map[string]any // desired, as the module has it
	saw     int64
	online  bool
	linked  bool // the twin was fetched since the agent started, as every connection does first
	history []string
}

func (w *world) note(format string, args ...any) {
	w.history = append(w.history, fmt.Sprintf(format, args...))
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	for _, line := range w.history[max(0, len(w.history)-30):] {
		w.t.Log(line)
	}
	w.t.Fatalf(format, args...)
}

func (w *world) open() {
	w.linked = false
	w.k = open(w.t, w.docs)
	w.k.OnDesired(func(c Change) {
		if !w.online {
			return
		}
		w.take(c)
	})
}

func (w *world) take(c Change) {
	if c.Version <= w.saw {
		w.fatalf("told of version %d after %d", c.Version, w.saw)
	}
	w.client = Merge(w.client, object(w.t, string(c.Patch)))
	w.saw = c.Version
}

// catchUp is what the broker does when the module is back.
func (w *world) catchUp() {
	w.online = true
	if c, ok := w.k.DesiredSince(filter, w.saw); ok {
		w.take(c)
	}
}

// ok tells whether an operation took effect; with the disk failing it may have or not, and then the agent starts anew.
func (w *world) ok(err error) bool {
	if err == nil {
		return true
	}
	if !errors.Is(err, errDisk) {
		w.fatalf("%v", err)
	}
	w.docs.fail = nil
	w.open()
	w.online = false
	return false
}

func (w *world) step() {
	ctx := w.t.Context()
	switch n := w.r.IntN(20); {
	case n < 6: // the module reports
		patch := randomDoc(w.r, 3, true)
		w.note("report %s", encode(patch))
		_, err := w.k.PatchReported(ctx, filter, encode(patch))
		w.patches++
		w.reported = Merge(w.reported, patch)
		for !w.ok(err) { // the module has no answer and repeats
			_, err = w.k.PatchReported(ctx, filter, encode(patch))
		}
	case n < 9: // pending goes up; the hub's answer may be lost
		if !w.linked {
			w.fetch()
		}
		patch, mark, ok := w.k.Pending(filter)
		if !ok || !w.linked {
			return
		}
		arrives, answered := w.r.IntN(4) > 0, w.r.IntN(3) > 0
		w.note("send %s arrives %v answered %v", patch, arrives, answered)
		if !arrives {
			return
		}
		if w.r.IntN(3) == 0 { // reported meanwhile
			more := randomDoc(w.r, 2, true)
			w.note("meanwhile %s", encode(more))
			_, err := w.k.PatchReported(ctx, filter, encode(more))
			w.reported = Merge(w.reported, more)
			for !w.ok(err) {
				_, err = w.k.PatchReported(ctx, filter, encode(more))
			}
		}
		w.received = Merge(w.received, object(w.t, string(patch)))
		if answered {
			w.ok(w.k.Sent(ctx, filter, mark))
		}
	case n < 13: // desired changes on the hub; the notice may be lost
		patch := randomDoc(w.r, 3, true)
		w.hub = Merge(w.hub, patch)
		w.version++
		if w.r.IntN(4) == 0 {
			w.note("desired %d lost", w.version)
			return
		}
		w.note("desired %d %s", w.version, encode(patch))
		gap, err := w.k.ApplyDesired(ctx, filter, withVersion(encode(patch), w.version))
		if w.ok(err) && gap {
			w.fetch()
		}
	case n < 15:
		w.fetch()
	case n < 16: // the agent dies and starts again
		w.note("reopen")
		w.online = false
		w.open()
	case n < 17:
		w.online = false
	case n < 19:
		w.catchUp()
	default: // the next or the one after it will not reach the disk, or will without saying so
		at, after := w.docs.puts+1+w.r.IntN(2), w.r.IntN(2) == 0
		w.note("put %d fails, after it took effect: %v", at, after)
		w.docs.fail = func(put int) (bool, bool) { return put >= at && !after, put >= at && after }
	}
	w.check()
}

func (w *world) fetch() {
	w.note("fetch")
	whole := fmt.Sprintf(`{"desired":%s,"reported":%s}`, withVersion(encode(w.hub), w.version), withVersion(encode(w.received), 1))
	w.linked = w.ok(w.k.Replace(w.t.Context(), filter, json.RawMessage(whole)))
}

func (w *world) check() {
	snapshot := w.k.Snapshot(filter)
	if got := object(w.t, string(snapshot.Reported)); !reflect.DeepEqual(got, w.reported) {
		w.fatalf("reported: got %s, want %s", encode(got), encode(w.reported))
	}
	if snapshot.DesiredVersion == w.version {
		if got := object(w.t, string(snapshot.Desired)); !reflect.DeepEqual(got, w.hub) {
			w.fatalf("desired %d: got %s, want %s", w.version, encode(got), encode(w.hub))
		}
	}
	if w.online && w.saw == snapshot.DesiredVersion && string(encode(w.client)) != string(snapshot.Desired) {
		w.fatalf("module at %d: has %s, want %s", w.saw, encode(w.client), snapshot.Desired)
	}
}

// settle brings everybody together: nothing reported may be missing and nothing desired differ.
func (w *world) settle() {
	w.note("settle")
	w.docs.fail = nil
	w.fetch()
	w.catchUp()
	for {
		patch, mark, ok := w.k.Pending(filter)
		if !ok {
			break
		}
		w.received = Merge(w.received, object(w.t, string(patch)))
		must(w.t, w.k.Sent(w.t.Context(), filter, mark))
	}
	w.check()
	if !reflect.DeepEqual(w.received, w.reported) {
		w.fatalf("hub has %s, the module reported %s", encode(w.received), encode(w.reported))
	}
	if w.saw != w.version || !reflect.DeepEqual(w.client, w.hub) {
		w.fatalf("module has %d %s, hub %d %s", w.saw, encode(w.client), w.version, encode(w.hub))
	}
}

// TestAgainstModel runs random lives of a twin: reports, lost answers, lost notices, restarts and failing disks.
func TestAgainstModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		w := &world{
			t: t, r: rand.New(rand.NewPCG(seed, 4)), docs: newMemory(), version: 1,
			hub: map[string]any{}, received: map[string]any{}, reported: map[string]any{}, client: map[string]any{},
		}
		w.note("seed %d", seed)
		w.open()
		for range 12 {
			for range 15 {
				w.step()
			}
			w.settle()
		}
	}
}

// BenchmarkPatchReported is a module that reports ten values again and again, without a disk.
func BenchmarkPatchReported(b *testing.B) {
	k := open(b, newMemory())
	id := iothub.ID{Device: "edge1", Module: "bench"}
	for i := range b.N {
		patch := fmt.Sprintf(`{"m":{"a":%d,"b":1,"c":2,"d":3,"e":4,"f":5,"g":6,"h":7,"i":8,"j":9}}`, i)
		if _, err := k.PatchReported(b.Context(), id, []byte(patch)); err != nil {
			b.Fatal(err)
		}
	}
}
