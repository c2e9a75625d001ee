package main

import (
	"fmt"
	"io"

	"github.com/sandpiper-edge/sandpiper/agent/control"
)

// soonest is how many hours of writing tell something of a day: what a start writes would be taken for the device's habit.
const soonest = 0.5

// printStore prints the store's health and what it writes to the flash each day.
func printStore(w io.Writer, st control.Store) error {
	fmt.Fprintf(w, "store: %s, %s of %s held, %s free on the disk\n", st.Health, byteCount(st.HeldBytes), byteCount(st.LimitBytes), byteCount(st.FreeBytes))
	wear := st.Wear
	budget := "no budget"
	if wear.Budget > 0 {
		budget = fmt.Sprintf("budget %s, then %s", byteCount(wear.Budget), wear.AtLimit)
	}
	if wear.Hours < soonest {
		fmt.Fprintf(w, "flash: %s written in %.0f minutes, too few to say how much a day; %s\n", byteCount(int64(float64(wear.WrittenPerDay)*wear.Hours/24)), wear.Hours*60, budget)
		return nil
	}
	fmt.Fprintf(w, "flash: %s a day (by the last %.1f hours), %s\n", byteCount(wear.WrittenPerDay), wear.Hours, budget)
	if len(wear.Modules) == 0 {
		return nil
	}
	var rows [][]string
	for _, m := range wear.Modules {
		rows = append(rows, []string{m.Identity, byteCount(m.StoredPerDay), byteCount(m.WrittenPerDay)})
	}
	return table(w, "IDENTITY STORED/DAY WRITTEN/DAY", rows)
}
