package store

import (
	"sync/atomic"
	"time"
)

// clock counts the milliseconds that the store was open since it was made. It
// goes on where the last one stopped, never backwards, and takes no notice when
// somebody sets the wall clock: time.Now carries a monotonic reading.
type clock struct {
	wall   func() time.Time
	start  time.Time
	base   int64
	newest atomic.Int64
}

func newClock(wall func() time.Time) *clock {
	return &clock{wall: wall, start: wall()}
}

// resume makes the clock go on from at, if that is later.
func (c *clock) resume(at int64) { c.base = max(c.base, at) }

// now returns the powered-on time, and the wall clock for the record.
func (c *clock) now() (powered int64, wall time.Time) {
	wall = c.wall()
	powered = c.base + wall.Sub(c.start).Milliseconds()
	for {
		newest := c.newest.Load()
		if powered <= newest {
			return newest, wall
		}
		if c.newest.CompareAndSwap(newest, powered) {
			return powered, wall
		}
	}
}
