package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/cmd/console"
	"github.com/sandpiper-edge/sandpiper/hal"
)

func (s *shared) halCommand() *cobra.Command {
	return console.Group("hal", "Pins, buses and sensors of this device; inside a module those that it is granted",
		s.halListCommand(), s.halReadCommand(), s.halWriteCommand(), s.halWatchCommand(), s.halScanCommand(), s.halLogCommand(), s.halLeasesCommand(), s.halSimCommand(), s.halRecordCommand())
}

func halPath(name string, rest ...string) string {
	return "/v1/hal/" + url.PathEscape(name) + strings.Join(rest, "")
}

// halName takes arguments of which the first can be a name.
func halName(also cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := also(cmd, args); err != nil {
			return err
		}
		if n := len(args[0]); n == 0 || n > 32 {
			return console.Usagef("%.32q of %d characters is no name: one has 1 to 32, and `sandpiper hal list` shows them all", args[0], n)
		}
		return nil
	}
}

// halNumber reads a value.
func halNumber(text string) (float64, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || v-v != 0 {
		return 0, console.Usagef("value %.40q: want a number, such as 1 or 0.5", text)
	}
	return v, nil
}

// halNames completes a name from the running agent.
func (s *shared) halNames(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var list []hal.Status
	if len(args) > 0 && cmd.Name() != "record" || s.hal().ask(cmd.Context(), http.MethodGet, "/v1/hal", nil, &list) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, st := range list {
		if !slices.Contains(args, st.Name) {
			names = append(names, st.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (s *shared) halListCommand() *cobra.Command {
	return s.withJSON(&cobra.Command{
		Use: "list", Short: "What there is: kind, rights, unit, state (ok, unsafe, stuck, gone, busy, leased)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []hal.Status
			if err := s.hal().ask(cmd.Context(), http.MethodGet, "/v1/hal", nil, &list); err != nil {
				return err
			}
			if s.json {
				return console.JSON(s.out, list)
			}
			var rows [][]string
			for _, st := range list {
				rights := map[bool]string{true: "r"}[st.Read] + map[bool]string{true: "w"}[st.Write]
				rows = append(rows, []string{st.Name, string(st.Kind), rights, orDash(st.Unit), st.State})
			}
			return console.Table(s.out, "NAME KIND RIGHTS UNIT STATE", rows)
		},
	})
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// halValue is an answer to a read.
type halValue struct {
	Value   float64   `json:"value"`
	Unit    string    `json:"unit,omitempty"`
	Time    time.Time `json:"time"`
	Quality string    `json:"quality"`
}

func (s *shared) halReadCommand() *cobra.Command {
	return s.withJSON(&cobra.Command{
		Use: "read NAME", Short: "Read a line, an output or a sensor", Args: halName(cobra.ExactArgs(1)), ValidArgsFunction: s.halNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			var v halValue
			if err := s.hal().ask(cmd.Context(), http.MethodGet, halPath(args[0]), nil, &v); err != nil {
				return err
			}
			if s.json {
				return console.JSON(s.out, v)
			}
			text := strings.TrimSpace(strconv.FormatFloat(v.Value, 'g', 8, 64) + " " + v.Unit)
			if v.Quality != string(hal.Good) {
				text += " (" + v.Quality + ")"
			}
			_, err := fmt.Fprintln(s.out, text)
			return err
		},
	})
}

func (s *shared) halWriteCommand() *cobra.Command {
	pulse := 10 * time.Second
	c := &cobra.Command{
		Use: "write NAME VALUE", Short: "Drive an output for a time; then it is safe again, whatever becomes of this command", Args: halName(cobra.ExactArgs(2)), ValidArgsFunction: s.halNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := halNumber(args[1])
			if err != nil {
				return err
			}
			if pulse <= 0 {
				return console.Usagef("--for: want a time above 0, such as 5s")
			}
			if err := s.hal().ask(cmd.Context(), http.MethodPut, halPath(args[0]), map[string]any{"value": v, "for": hal.Duration(pulse)}, nil); err != nil {
				return err
			}
			if s.json {
				return console.JSON(s.out, map[string]any{"name": args[0], "value": v, "for": pulse.String()})
			}
			_, err = fmt.Fprintf(s.out, "%s is %g for %s\n", args[0], v, pulse)
			return err
		},
	}
	c.Flags().DurationVar(&pulse, "for", pulse, "how long, at most 1h")
	return s.withJSON(c)
}

func (s *shared) halWatchCommand() *cobra.Command {
	var count int
	c := &cobra.Command{
		Use: "watch NAME", Short: "Print each edge of a line, or each frame of a CAN interface, until interrupted", Args: halName(cobra.ExactArgs(1)), ValidArgsFunction: s.halNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if count < 0 {
				return console.Usagef("--count %d: want 0 or more", count)
			}
			left := count
			for f := (console.Follower{Say: s.err}); ; {
				body, err := s.hal().open(cmd.Context(), http.MethodGet, halPath(args[0], "/events"), nil)
				if err == nil {
					err = s.halEvents(body, &left)
					body.Close()
				}
				if err == nil && count > 0 && left <= 0 {
					return nil
				}
				if err := f.Again(cmd.Context(), err); err != nil {
					return err
				}
			}
		},
	}
	c.Flags().IntVarP(&count, "count", "n", 0, "end after so many; 0 = never")
	return s.withJSON(c)
}

// halEvents prints a stream of events, as it comes with --json, until it ends or none are left of so many.
func (s *shared) halEvents(body io.Reader, left *int) error {
	dec := json.NewDecoder(body)
	for {
		var raw json.RawMessage
		err := dec.Decode(&raw)
		if errors.Is(err, io.EOF) { // the agent ended
			return nil
		} else if err != nil {
			return err
		}
		var e struct {
			Seq, Lost, Merged uint64
			Edge, Data        string
			ID                uint32
			Time              time.Time
			Error             *struct{ Code, Name string }
		}
		if err := json.Unmarshal(raw, &e); err != nil {
			return err
		}
		switch {
		case e.Error != nil:
			return fmt.Errorf("%s: %s", e.Error.Name, e.Error.Code)
		case e.Seq == 0: // a beat
			continue
		case s.json:
			_, err = fmt.Fprintln(s.out, string(raw))
		case e.Edge != "":
			_, err = fmt.Fprintf(s.out, "%s  %-7s  seq %d  lost %d  merged %d\n", e.Time.Format(time.StampMicro), e.Edge, e.Seq, e.Lost, e.Merged)
		default:
			_, err = fmt.Fprintf(s.out, "%s  %03x  %s  lost %d\n", e.Time.Format(time.StampMicro), e.ID, e.Data, e.Lost)
		}
		if err != nil {
			return err
		}
		if *left--; *left == 0 {
			return nil
		}
	}
}

func (s *shared) halLogCommand() *cobra.Command {
	return s.withJSON(&cobra.Command{
		Use: "log", Short: "What was done lately: writes, leases, denials, safe actions", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []hal.Entry
			if err := s.hal().ask(cmd.Context(), http.MethodGet, "/hal/log", nil, &list); err != nil {
				return err
			}
			if s.json {
				return console.JSON(s.out, list)
			}
			var rows [][]string
			for _, e := range list {
				rows = append(rows, []string{e.Time.Format(time.DateTime), orDash(e.Who), e.Name, e.What})
			}
			return console.Table(s.out, "TIME WHO NAME WHAT", rows)
		},
	})
}

func (s *shared) halLeasesCommand() *cobra.Command {
	return s.withJSON(&cobra.Command{
		Use: "leases", Short: "Who drives which output", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []hal.Holding
			if err := s.hal().ask(cmd.Context(), http.MethodGet, "/hal/leases", nil, &list); err != nil {
				return err
			}
			if s.json {
				return console.JSON(s.out, list)
			}
			var rows [][]string
			for _, l := range list {
				until := "with the instance"
				if l.Who == hal.Operator {
					until = "with its time"
				}
				if !l.Expires.IsZero() {
					until = l.Expires.Format(time.TimeOnly)
				}
				rows = append(rows, []string{l.Name, l.Who, fmt.Sprint(l.Fence), until})
			}
			return console.Table(s.out, "NAME WHO FENCE EXPIRES", rows)
		},
	})
}

func (s *shared) halSimCommand() *cobra.Command {
	happen := func(cmd *cobra.Command, name string, what map[string]any) error {
		err := s.hal().ask(cmd.Context(), http.MethodPost, "/hal/sim/"+url.PathEscape(name), what, nil)
		if err != nil || !s.json {
			return err
		}
		what["name"] = name
		return console.JSON(s.out, what)
	}
	return console.Group("sim", `The world around a simulated board (backend = "sim")`, s.withJSON(&cobra.Command{
		Use: "set NAME VALUE", Short: "Drive an input or a sensor from outside", Args: halName(cobra.ExactArgs(2)), ValidArgsFunction: s.halNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := halNumber(args[1])
			if err != nil {
				return err
			}
			return happen(cmd, args[0], map[string]any{"value": v})
		},
	}), s.withJSON(&cobra.Command{
		Use: "fail NAME nack=N|stuck=TIME|gone|none", Short: "Break a resource, or mend it", Args: halName(cobra.ExactArgs(2)),
		Long: "Break a resource, or mend it: nack=3 refuses the next three operations, stuck=2s holds the next one up, gone unplugs, none mends.",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return []string{"nack=", "stuck=", "gone", "none"}, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
			}
			return s.halNames(cmd, args, typed)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			fault := map[string]any{}
			kind, value, _ := strings.Cut(args[1], "=")
			n, err := strconv.Atoi(value)
			switch {
			case kind == "nack" && err == nil && n > 0:
				fault["nack"] = n
			case kind == "stuck" && value != "":
				fault["stuck"] = value
			case args[1] == "gone":
				fault["gone"] = true
			case args[1] != "none":
				return console.Usagef("%q: want nack=3, stuck=2s, gone or none", args[1])
			}
			return happen(cmd, args[0], fault)
		},
	}))
}
