package main

import (
	"fmt"
	"io"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
)

// soonest is how many hours of writing tell something of a day: what a start writes would be taken for the device's habit.
const soonest = 0.5

// printStore prints the store's health and what it writes to the flash each day.
func printStore(w io.Writer, st control.Store) error {
	fmt.Fprintf(w, "store: %s, %s of %s held, %s free on the disk\n", st.Health, console.Size(st.HeldBytes), console.Size(st.LimitBytes), console.Size(st.FreeBytes))
	wear := st.Wear
	budget := "no budget"
	if wear.Budget > 0 {
		budget = fmt.Sprintf("budget %s, then %s", console.Size(wear.Budget), wear.AtLimit)
	}
	if wear.Hours < soonest {
		fmt.Fprintf(w, "flash: %s written in %.0f minutes, too few to say how much a day; %s\n", console.Size(int64(float64(wear.WrittenPerDay)*wear.Hours/24)), wear.Hours*60, budget)
		return nil
	}
	fmt.Fprintf(w, "flash: %s a day (by the last %.1f hours), %s\n", console.Size(wear.WrittenPerDay), wear.Hours, budget)
	if len(wear.Modules) == 0 {
		return nil
	}
	var rows [][]string
	for _, m := range wear.Modules {
		rows = append(rows, []string{m.Identity, console.Size(m.StoredPerDay), console.Size(m.WrittenPerDay)})
	}
	return console.Table(w, "IDENTITY STORED/DAY WRITTEN/DAY", rows)
}
