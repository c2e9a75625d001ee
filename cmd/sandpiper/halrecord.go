package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/cmd/console"
)

// What a recording may have for a simulated board to play it.
const (
	maxTapeBytes   = 16 << 20
	maxTapeRecords = 1 << 16
)

// recorded sums a recording up.
type recorded struct {
	File    string   `json:"file,omitempty"`
	Names   []string `json:"names"`
	Records int64    `json:"records"`
	Lost    uint64   `json:"lost"` // for want of time to write them down
	Bytes   int64    `json:"bytes"`
	Ended   string   `json:"ended"` // by: time, size, interrupt
}

func (s *shared) halRecordCommand() *cobra.Command {
	long, file := 10*time.Second, ""
	c := &cobra.Command{
		Use: "record NAME...", Short: "Write down what goes over pins, buses and sensors, for a simulated board or a test to play again",
		Long: `Write down what goes over pins, buses and sensors: what modules read, write and transfer, and the edges and frames that come. Nothing is
read or driven for it. The recording is a document of JSON a line; it ends at its time, at 16 MiB, or with ^C, and is good as far as it goes.
A simulated board plays it again: replay = "FILE" in [hal], with backend = "sim".`,
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: s.halNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if long <= 0 || long > 24*time.Hour {
				return console.Usagef("--for: want a time up to 24h, such as 10s")
			}
			body, err := s.hal().open(cmd.Context(), http.MethodGet, "/hal/record?"+url.Values{"name": args, "for": {long.String()}}.Encode(), nil)
			if err != nil {
				return err
			}
			defer body.Close()
			out := s.out
			if file != "" {
				f, err := os.Create(file)
				if err != nil {
					return err
				}
				defer f.Close()
				out = f
			}
			sum := recorded{File: file, Names: args}
			if err := s.tape(out, body, &sum); err != nil && cmd.Context().Err() == nil {
				return fmt.Errorf("recording: %w", err)
			}
			if cmd.Context().Err() != nil {
				sum.Ended = "interrupt"
			}
			text := fmt.Sprintf("%d records, %s, ended by %s", sum.Records, console.Size(sum.Bytes), sum.Ended)
			if sum.Lost > 0 {
				text += fmt.Sprintf("; %d more came too fast and are lost", sum.Lost)
			}
			switch {
			case file == "": // the recording is what was printed
				_, err = fmt.Fprintln(s.err, text)
			case s.json:
				return console.JSON(s.out, sum)
			default:
				_, err = fmt.Fprintln(s.out, file+": "+text)
			}
			return err
		},
	}
	c.Flags().DurationVar(&long, "for", long, "how long, at most 24h")
	c.Flags().StringVarP(&file, "output", "o", "", "file to write; without it the recording is printed")
	return s.withJSON(c)
}

// tape writes lines down until they end or are enough.
func (s *shared) tape(out io.Writer, lines io.Reader, sum *recorded) error {
	var records, size atomic.Int64
	done := console.Progress(s.err, func() string {
		return fmt.Sprintf("recording %s: %d records, %s", strings.Join(sum.Names, ", "), max(records.Load()-1, 0), console.Size(size.Load()))
	})
	defer done()
	defer func() { sum.Records, sum.Bytes = max(records.Load()-1, 0), size.Load() }() // the first line says what it is
	for from := bufio.NewReaderSize(lines, 128<<10); ; {
		line, err := from.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			sum.Ended = "time"
			return nil
		}
		if err != nil {
			return err
		}
		if size.Load()+int64(len(line)) > maxTapeBytes || records.Load() > maxTapeRecords {
			sum.Ended = "size"
			return nil
		}
		var r struct{ Lost uint64 }
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}
		sum.Lost += r.Lost
		if _, err := out.Write(line); err != nil {
			return err
		}
		records.Add(1)
		size.Add(int64(len(line)))
	}
}
