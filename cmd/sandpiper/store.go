package main

import (
	"fmt"
	"io"

	"github.com/sandpiper-edge/sandpiper/agent/control"
)

// printStore prints the store's health and what it writes to the flash each day.
func printStore(w io.Writer, st control.Store) error {
	fmt.Fprintf(w, "store: %s, %s of %s held, %s free on the disk\n", st.Health, byteCount(st.HeldBytes), byteCount(st.LimitBytes), byteCount(st.FreeBytes))
	wear := st.Wear
	budget := "no budget"
	if wear.Budget > 0 {
		budget = fmt.Sprintf("budget %s, then %s", byteCount(wear.Budget), wear.AtLimit)
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
