package agent

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// Bounds of a column that a simulated input plays.
const (
	maxColumnBytes = 4 << 20 // of the file
	maxColumnRows  = 1 << 16
)

// loadColumns reads the columns of files that simulated inputs play, as steps that begin now. The error is a [hal.ConfigError].
func loadColumns(c *hal.Config, now time.Time) error {
	for i := range c.Line {
		if err := loadColumn("line."+strconv.Itoa(i), c.Line[i].Sim, now); err != nil {
			return err
		}
	}
	for i := range c.Sensor {
		if err := loadColumn("sensor."+strconv.Itoa(i), c.Sensor[i].Sim, now); err != nil {
			return err
		}
	}
	return nil
}

func loadColumn(at string, w *hal.Wave, now time.Time) error {
	if w == nil || w.CSV == "" && w.Column == "" {
		return nil
	}
	fault := func(why string) error { return &hal.ConfigError{Key: at + ".sim", Why: why} }
	switch {
	case w.CSV == "":
		return fault("column is of a file; add csv")
	case w.Period <= 0:
		return fault(`csv needs the time of one row, as in period = "1s"`)
	case w.Wave != "" || w.Wire != "" || w.Steps != nil:
		return fault("csv is instead of wave, wire and steps; remove those")
	}
	f, err := os.Open(w.CSV)
	if err != nil {
		return fault(err.Error())
	}
	defer f.Close()
	column, err := readColumn(f, w.Column)
	if err != nil {
		return fault(w.CSV + ":" + err.Error())
	}
	w.Steps = make([]float64, len(column))
	first := now.UnixNano() / int64(w.Period) // steps count from 1970
	for i, v := range column {
		w.Steps[(first+int64(i))%int64(len(column))] = v
	}
	w.CSV, w.Column = "", "" // they are steps from here on
	return nil
}

// readColumn reads one column of numbers: rows of cells between commas, semicolons or tabs, with a first row of names unless it is a
// number; empty rows and those that begin with # say nothing. Where commas are not between cells, one may be in a number. Errors begin
// with the line.
func readColumn(r io.Reader, name string) ([]float64, error) {
	lines := bufio.NewScanner(io.LimitReader(r, maxColumnBytes+1))
	var column []float64
	between, nth, size := "", 0, 0
	for n := 1; lines.Scan(); n++ {
		text := lines.Text()
		if size += len(text) + 1; size > maxColumnBytes || len(column) == maxColumnRows {
			return nil, fmt.Errorf("%d: at most %d MiB and %d rows are played", n, maxColumnBytes>>20, maxColumnRows)
		}
		text = strings.TrimSpace(strings.TrimPrefix(text, "\ufeff"))
		if text == "" || text[0] == '#' {
			continue
		}
		first := between == ""
		if first {
			between = ","
			for _, other := range []string{";", "\t"} {
				if strings.Contains(text, other) {
					between = other
				}
			}
		}
		cells := strings.Split(text, between)
		for i := range cells {
			cells[i] = strings.Trim(strings.TrimSpace(cells[i]), `"`)
		}
		if first {
			names := " the first row has " + strings.Join(cells, ", ")
			for i, cell := range cells {
				if cell == name && name != "" {
					nth, first = i, false
				}
			}
			switch _, err := number(cells[0], between); {
			case !first: // the row of names
				continue
			case name != "":
				return nil, fmt.Errorf("%d: no column %.40q;%.200s", n, name, names)
			case len(cells) > 1:
				return nil, fmt.Errorf("%d: several columns; add column = the name of one to sim;%.200s", n, names)
			case err != nil:
				continue
			}
		}
		if nth >= len(cells) {
			return nil, fmt.Errorf("%d: %d cells; the column is the %d. one", n, len(cells), nth+1)
		}
		v, err := number(cells[nth], between)
		if err != nil {
			return nil, fmt.Errorf("%d: %.40q is no number", n, cells[nth])
		}
		column = append(column, v)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%d: %w", len(column)+1, err)
	}
	if len(column) == 0 {
		return nil, errors.New("1: no number in the file")
	}
	return column, nil
}

func number(cell, between string) (float64, error) {
	if between != "," {
		cell = strings.Replace(cell, ",", ".", 1)
	}
	v, err := strconv.ParseFloat(cell, 64)
	if err == nil && v-v != 0 {
		err = strconv.ErrRange
	}
	return v, err
}
