package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
)

func (s *shared) statusCommand() *cobra.Command {
	var watch bool
	c := &cobra.Command{
		Use:   "status",
		Short: "The agent at a glance: deployment, links, modules, queues, problems",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				return s.watchStatus(cmd.Context())
			}
			status, err := s.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if s.json {
				return console.JSON(s.out, status)
			}
			return printStatus(s.out, status, time.Now())
		},
	}
	c.Flags().BoolVar(&watch, "watch", false, "print again every second until interrupted")
	return s.withJSON(c)
}

// watchStatus prints the status each second. A terminal shows one at a time.
func (s *shared) watchStatus(ctx context.Context) error {
	before, after := "", "\n"
	if console.IsTerminal(s.out) {
		before, after = "\033[H\033[2J", ""
	}
	for f := (console.Follower{Say: s.err}); ; {
		status, err := s.client().Status(ctx)
		if err != nil {
			if err := f.Again(ctx, err); err != nil {
				return err
			}
			continue
		}
		f.Met()
		if s.json {
			err = console.JSON(s.out, status)
		} else {
			fmt.Fprint(s.out, before)
			err = printStatus(s.out, status, time.Now())
			fmt.Fprint(s.out, after)
		}
		if err != nil {
			return err
		}
		if err := console.Pause(ctx, time.Second); err != nil {
			return err
		}
	}
}

// maxAdvice is how many lines of advice a glance has: they stay until somebody solders.
const maxAdvice = 3

func printStatus(w io.Writer, st control.Status, now time.Time) error {
	who := st.Device
	if st.Hub != "" {
		who += " at " + st.Hub
	}
	fmt.Fprintf(w, "%s, sandpiper %s, up %s\n", who, st.Version, ago(st.Started, now))
	d := st.Deployment
	switch {
	case d.Version == 0:
		fmt.Fprintln(w, "deployment: none yet")
	case d.Code == 417 && len(st.Modules) == 0:
		fmt.Fprintln(w, "deployment: none yet; apply one at the hub")
	case d.Code == 200:
		fmt.Fprintf(w, "deployment: version %d, applied\n", d.Version)
	default:
		fmt.Fprintf(w, "deployment: version %d, %d: %s\n", d.Version, d.Code, d.Description)
	}
	if t := st.Transfer; t != nil {
		fmt.Fprintln(w, "image arrives:", transferLine(*t))
	}
	for _, p := range st.Problems {
		fmt.Fprintln(w, "problem:", p)
	}
	for i, a := range st.Advice {
		if i == maxAdvice {
			fmt.Fprintf(w, "advice: and %d more, which `sandpiper check` lists\n", len(st.Advice)-i)
			break
		}
		fmt.Fprintln(w, "advice:", a)
	}
	if len(st.Links) > 0 {
		fmt.Fprintln(w)
		var rows [][]string
		for _, l := range st.Links {
			state, why := "connected", l.Error
			if !l.Connected {
				state = "away"
			}
			rows = append(rows, []string{l.Identity, state, ago(l.Since, now), fmt.Sprint(l.Sent), why})
		}
		if err := console.Table(w, "IDENTITY LINK FOR SENT WHY", rows); err != nil {
			return err
		}
	}
	fmt.Fprintln(w)
	if err := printModules(w, st.Modules, now); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := printQueues(w, st.Queues, now); err != nil {
		return err
	}
	if len(st.Routes) > 0 {
		var rows [][]string
		for _, r := range st.Routes {
			rows = append(rows, []string{r.Name, r.Durability, r.Eviction, r.Route})
		}
		fmt.Fprintln(w)
		if err := console.Table(w, "ROUTE DURABILITY EVICTION TEXT", rows); err != nil {
			return err
		}
	}
	fmt.Fprintln(w)
	return printStore(w, st.Store)
}
