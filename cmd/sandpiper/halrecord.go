package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
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
	Records int      `json:"records"`
	Gaps    int      `json:"gaps"` // where records are missing: they came too fast
	Bytes   int      `json:"bytes"`
	Ended   string   `json:"ended"` // by: time, size, interrupt, agent (which ended)
}

func (s *shared) halRecordCommand() *cobra.Command {
	long, file := 10*time.Second, ""
	c := &cobra.Command{
		Use: "record NAME...", Short: "Write down what goes over pins, buses and sensors, for a simulated board or a test to play again",
		Long: `Write down what goes over pins, buses and sensors: what modules read, write and transfer, and the edges and frames that come. Nothing is
read or driven for it. The recording is a document of JSON a line; it ends at its time, at 16 MiB, with the agent, or with ^C, and is good as far as it goes.
A simulated board plays it again: replay = "FILE" in [hal], with backend = "sim".`,
		Args: halName(cobra.MinimumNArgs(1)), ValidArgsFunction: s.halNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if long <= 0 || long > 24*time.Hour {
				return console.Usagef("--for: want a time up to 24h, such as 10s")
			}
			began := time.Now()
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
			err = s.tape(out, body, &sum)
			if errors.Is(err, io.ErrUnexpectedEOF) || err == nil && sum.Ended == "time" && time.Since(began) < long {
				sum.Ended, err = "agent", nil
			}
			if cmd.Context().Err() != nil {
				sum.Ended, err = "interrupt", nil
			}
			if err != nil {
				return fmt.Errorf("recording: %w", err)
			}
			text := fmt.Sprintf("%d records, %s, ended by %s", sum.Records, console.Size(int64(sum.Bytes)), sum.Ended)
			if sum.Gaps > 0 {
				text += fmt.Sprintf("; in %d places more came than could be written", sum.Gaps)
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
	defer console.Working(s.err, "recording "+strings.Join(sum.Names, ", "))()
	from := bufio.NewReaderSize(lines, 128<<10)
	for sum.Records = -1; ; sum.Records++ { // the first line says what it is
		line, err := from.ReadSlice('\n')
		sum.Bytes += len(line)
		switch {
		case errors.Is(err, io.EOF):
			sum.Ended = "time"
			return nil
		case err != nil:
			return err
		case sum.Bytes > maxTapeBytes || sum.Records == maxTapeRecords:
			sum.Bytes -= len(line)
			sum.Ended = "size"
			return nil
		}
		if bytes.Contains(line, []byte(`,"lost":`)) {
			sum.Gaps++
		}
		if _, err := out.Write(line); err != nil {
			return err
		}
	}
}
