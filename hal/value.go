package hal

import "time"

// Quality of a value.
type Quality string

// The qualities.
const (
	Good  Quality = "good"
	Bad   Quality = "bad"   // read, but not a reading: in the list of invalid values, or beyond the range
	Stale Quality = "stale" // from the last sample
)

// Edge is the direction of a change.
type Edge string

// The edges.
const (
	Rising  Edge = "rising"
	Falling Edge = "falling"
)

// Value is one sample.
type Value struct {
	_       noCompare
	Num     float64
	Unit    string    // UCUM
	Time    time.Time // wall clock of the sample
	Mono    int64     // CLOCK_MONOTONIC of the sample in ns; of the kernel where it gives one
	Quality Quality   // "" = good
}

// Event is one edge of a line, or one frame of a CAN interface.
type Event struct {
	Seq    uint64    // of this line, from 1, without gaps but for those that Lost counts
	Lost   uint64    // events lost since the one before
	Merged uint64    // 1 = of the direction of the one before: an edge between was missed, or the level read too late; no count of either
	Edge   Edge      // "" = a frame
	Mono   int64     // the kernel's CLOCK_MONOTONIC in ns
	Time   time.Time // the same moment on the wall clock
	ID     uint32    // of a frame
	Data   []byte    // of a frame
}

// noCompare in a struct says that its values are not compared with each other as wholes. The compiler then writes no function for it, which it
// does for every other struct that is ever made on the heap: two hundred bytes and their tables for each.
type noCompare [0]func()
