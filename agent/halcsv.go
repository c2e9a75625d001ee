package agent

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
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
	in := bufio.NewReader(io.LimitReader(r, maxColumnBytes+1))
	head, _ := in.Peek(in.Size()) // less than that is all there is, or an error that is met again
	if bytes.HasPrefix(head, []byte("\ufeff")) {
		_, _ = in.Discard(len("\ufeff")) // it was seen
	}
	rows := csv.NewReader(in)
	rows.Comma, rows.Comment, rows.FieldsPerRecord, rows.LazyQuotes, rows.ReuseRecord = separator(head), '#', -1, true, true
	var column []float64
	nth, line := -1, 1 // no row was seen
	for {
		cells, err := rows.Read()
		ended := errors.Is(err, io.EOF)
		if err != nil && !ended {
			return nil, fmt.Errorf("%d: %w", line, err)
		}
		if !ended {
			line, _ = rows.FieldPos(0)
		}
		if rows.InputOffset() > maxColumnBytes || !ended && len(column) == maxColumnRows {
			return nil, fmt.Errorf("%d: at most %d MiB and %d rows are played", line, maxColumnBytes>>20, maxColumnRows)
		}
		if ended {
			break
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if len(cells) == 1 && cells[0] == "" {
			continue
		}
		if nth < 0 {
			named := false
			if nth, named, err = choose(cells, name, rows.Comma); err != nil {
				return nil, fmt.Errorf("%d: %w", line, err)
			}
			if named {
				continue
			}
		}
		if nth >= len(cells) {
			return nil, fmt.Errorf("%d: %d cells; the column is the %d. one", line, len(cells), nth+1)
		}
		v, err := number(cells[nth], rows.Comma)
		if err != nil {
			return nil, fmt.Errorf("%d: %.40q is no number", line, cells[nth])
		}
		column = append(column, v)
	}
	if len(column) == 0 {
		return nil, errors.New("1: no number in the file")
	}
	return column, nil
}

// separator is what stands between the cells of the first row that says something.
func separator(head []byte) rune {
	for line := range bytes.Lines(head) {
		switch {
		case len(bytes.TrimSpace(line)) == 0 || line[0] == '#':
		case bytes.ContainsRune(line, '\t'):
			return '\t'
		case bytes.ContainsRune(line, ';'):
			return ';'
		default:
			return ','
		}
	}
	return ','
}

// choose finds the column in the first row, and says whether that is of names.
func choose(first []string, name string, between rune) (nth int, named bool, err error) {
	if name != "" {
		if nth = slices.Index(first, name); nth >= 0 {
			return nth, true, nil
		}
		return 0, false, fmt.Errorf("no column %.40q; the first row has %.200s", name, strings.Join(first, ", "))
	}
	if len(first) > 1 {
		return 0, false, fmt.Errorf("several columns; add column = the name of one to sim; the first row has %.200s", strings.Join(first, ", "))
	}
	_, err = number(first[0], between)
	return 0, err != nil, nil
}

func number(cell string, between rune) (float64, error) {
	if between != ',' {
		cell = strings.Replace(cell, ",", ".", 1)
	}
	v, err := strconv.ParseFloat(cell, 64)
	if err == nil && v-v != 0 {
		err = strconv.ErrRange
	}
	return v, err
}
