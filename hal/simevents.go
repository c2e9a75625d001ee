package hal

import (
	"context"
	"time"
)

func (d simDevice) events() EdgeReader {
	if d.pin.played != nil {
		return &playedEvents{d: d, began: time.Now()}
	}
	d.sim.mu.Lock()
	defer d.sim.mu.Unlock()
	d.pin.value, _ = d.pin.nowLocked() // what it is already is no edge
	return simEdges{d}
}

// Frames are those of a recording: nobody else sends on a simulated interface.
func (d simBus) Frames(context.Context) (EdgeReader, error) {
	if d.r.Kind != KindCAN {
		return nil, refusal(Unsupported, d.r.Name, "frames are of CAN")
	}
	return d.events(), nil
}

type simEdges struct{ simDevice }

func (d simEdges) Close() error { return nil }

func (d simEdges) Read(ctx context.Context, into []Event) (int, error) {
	for {
		d.sim.mu.Lock()
		var step <-chan time.Time
		if v, stays := d.pin.nowLocked(); stays > 0 {
			if v != d.pin.value {
				d.sim.driveLocked(d.r.Name, v)
			}
			step = time.After(stays)
		}
		n := copy(into, d.pin.events)
		d.pin.events = append(d.pin.events[:0], d.pin.events[n:]...)
		if n > 0 {
			into[0].Lost, d.pin.lost = d.pin.lost, 0
		}
		d.sim.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		select {
		case <-d.pin.wake:
		case <-step:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}
