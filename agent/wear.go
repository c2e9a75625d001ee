package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/store"
)

const (
	// wearHours is how many hours make the day that is shown: hours switched on, whatever the wall clock says.
	wearHours = 24
	// wearKey is the document with the hours, written each wearPace so that a restart does not forget the day.
	wearKey  = "agent/wear"
	wearPace = 10 * time.Minute
	// wearNames bounds the identities of one hour.
	wearNames = 1000
)

// wear counts what is written to the flash, by the hour, and for whom.
type wear struct {
	usage  func() store.Usage
	docs   *store.Docs
	logger *slog.Logger
	now    func() time.Time // monotonic

	stored sync.Map // iothub.ID → *atomic.Int64: bytes that the identity had stored since the agent started

	mu    sync.Mutex // guards what follows
	hours []wearHour // oldest first; the last one is under way
	mark  wearHour   // the counts at its begin
	since time.Time  // when it began
}

// wearHour is one hour, or a sum of hours.
type wearHour struct {
	Seconds float64          `json:"seconds"`
	Written int64            `json:"written"` // by the store, in bytes
	Stored  map[string]int64 `json:"stored"`  // bytes of messages, by identity
}

// add counts what an identity had stored. It is on the path of every message.
func (w *wear) add(id iothub.ID, bytes int) {
	count, ok := w.stored.Load(id)
	if !ok {
		count, _ = w.stored.LoadOrStore(id, new(atomic.Int64))
	}
	count.(*atomic.Int64).Add(int64(bytes))
}

// totals are the counts since the agent started.
func (w *wear) totals() wearHour {
	t := wearHour{Written: int64(w.usage().Written), Stored: map[string]int64{}}
	w.stored.Range(func(id, count any) bool {
		t.Stored[id.(iothub.ID).String()] = count.(*atomic.Int64).Load()
		return len(t.Stored) < wearNames
	})
	return t
}

// openLocked is the hour under way as it is now.
func (w *wear) openLocked() wearHour {
	now := w.totals()
	h := wearHour{Seconds: w.now().Sub(w.since).Seconds(), Written: now.Written - w.mark.Written, Stored: map[string]int64{}}
	for name, n := range now.Stored {
		if n -= w.mark.Stored[name]; n > 0 {
			h.Stored[name] = n
		}
	}
	return h
}

// begin takes up the hours of an earlier run.
func (w *wear) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	raw, err := w.docs.Get(wearKey)
	if err == nil && raw != nil {
		err = json.Unmarshal(raw, &w.hours)
	}
	if err != nil {
		w.logger.Warn("what was written in the last day is not known any more", "err", err)
		w.hours = nil
	}
	w.since, w.mark = w.now(), w.totals()
}

// tick closes the hour when it is over, and returns what to remember.
func (w *wear) tick() ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	open := w.openLocked()
	hours := append(slices.Clone(w.hours), open)
	if open.Seconds >= time.Hour.Seconds() {
		w.hours, w.mark, w.since = hours, w.totals(), w.now()
	}
	if len(w.hours) > wearHours-1 {
		w.hours = w.hours[len(w.hours)-wearHours+1:]
	}
	return json.Marshal(hours)
}

// Run remembers the hours until ctx ends.
func (w *wear) Run(ctx context.Context) error {
	w.begin()
	pace := time.NewTicker(wearPace)
	defer pace.Stop()
	for {
		select {
		case <-pace.C:
		case <-ctx.Done():
			return nil
		}
		raw, err := w.tick()
		if err == nil {
			err = w.docs.Put(ctx, wearKey, raw)
		}
		if err != nil && ctx.Err() == nil {
			w.logger.Warn("what was written today is not remembered", "err", err)
		}
	}
}

// written is what was written in the hours that are known, a day at most, in bytes.
func (w *wear) written() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	sum := w.openLocked().Written
	for _, h := range w.hours {
		sum += h.Written
	}
	return sum
}

// day sums up the hours that are known, and reckons them up to a day if they are fewer.
func (w *wear) day() control.Wear {
	w.mu.Lock()
	sum := wearHour{Stored: map[string]int64{}}
	for _, h := range append(slices.Clone(w.hours), w.openLocked()) {
		sum.Seconds += h.Seconds
		sum.Written += h.Written
		for name, n := range h.Stored {
			sum.Stored[name] += n
		}
	}
	w.mu.Unlock()
	out := control.Wear{Hours: sum.Seconds / 3600, Modules: []control.ModuleWear{}}
	if sum.Seconds <= 0 {
		return out
	}
	perDay := (wearHours * time.Hour).Seconds() / sum.Seconds
	out.WrittenPerDay = int64(float64(sum.Written) * perDay)
	total := int64(0)
	for _, n := range sum.Stored {
		total += n
	}
	for name, n := range sum.Stored {
		share := float64(n) / float64(max(total, 1))
		out.Modules = append(out.Modules, control.ModuleWear{
			Identity: name, StoredPerDay: int64(float64(n) * perDay), WrittenPerDay: int64(share * float64(out.WrittenPerDay)),
		})
	}
	sort.Slice(out.Modules, func(i, j int) bool {
		a, b := &out.Modules[i], &out.Modules[j]
		return a.StoredPerDay > b.StoredPerDay || a.StoredPerDay == b.StoredPerDay && a.Identity < b.Identity
	})
	return out
}
