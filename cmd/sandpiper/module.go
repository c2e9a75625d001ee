package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
)

func (s *shared) moduleCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "The modules of the deployment and their instances", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := s.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if s.json {
				return console.JSON(s.out, status.Modules)
			}
			return printModules(s.out, status.Modules, time.Now())
		},
	}
	return console.Group("module", "List, start, stop, pause and look into modules, and read their logs", s.withJSON(list), s.verb("start", "Start a module that was stopped"),
		s.verb("stop", "Stop a module; it stays stopped until started or deployed anew"),
		s.verb("restart", "Stop a module and start it again"),
		s.verb("pause", "Hold every process of a module where it is"),
		s.verb("resume", "Let a paused module go on"),
		s.logsCommand(), s.execCommand(), s.moduleStatsCommand(), s.whyCommand(), s.inspectCommand())
}

func (s *shared) verb(verb, short string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " MODULE", Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: s.moduleNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			done := console.Working(s.err, verb+" "+args[0])
			defer done()
			return s.client().Verb(cmd.Context(), verb, args[0])
		},
	}
}

func (s *shared) logsCommand() *cobra.Command {
	var want control.LogRequest
	var since time.Duration
	c := &cobra.Command{
		Use: "logs MODULE", Short: "What a module wrote to standard output and error", Args: cobra.ExactArgs(1), ValidArgsFunction: s.moduleNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if since < 0 || cmd.Flags().Changed("tail") && want.Tail < 0 {
				return console.Usagef("--tail and --since take what is not below zero")
			}
			if want.Stream != "" && want.Stream != "stdout" && want.Stream != "stderr" {
				return console.Usagef("--stream %s: want stdout or stderr", want.Stream)
			}
			if since > 0 {
				want.Since = time.Now().Add(-since)
			}
			out := s.out
			if f, ok := out.(*os.File); ok && !want.JSON {
				if _, err := terminalSize(f); err == nil {
					out = &visible{to: f}
				}
			}
			if !want.Follow {
				return s.client().Logs(cmd.Context(), args[0], want, out)
			}
			place := ""
			want.Place = &place
			for f := (console.Follower{Say: s.err}); ; {
				err := s.client().Logs(cmd.Context(), args[0], want, out)
				if err == nil && place == "" {
					return nil // an agent of before, which cannot go on where it was
				}
				if err := f.Again(cmd.Context(), err); err != nil {
					return err
				}
			}
		},
	}
	c.Flags().IntVarP(&want.Tail, "tail", "n", -1, "only the last N lines")
	c.Flags().BoolVarP(&want.Follow, "follow", "f", false, "go on with new lines until interrupted")
	c.Flags().DurationVar(&since, "since", 0, "only lines younger than this, such as 10m")
	c.Flags().StringVar(&want.Stream, "stream", "", "only lines of stdout, or of stderr")
	_ = c.RegisterFlagCompletionFunc("stream", cobra.FixedCompletions([]string{"stdout", "stderr"}, cobra.ShellCompDirectiveNoFileComp)) // the flag was made on the line before
	c.Flags().BoolVar(&want.JSON, "json", false, "print a JSON object for each line")
	return c
}

func printModules(w io.Writer, modules []control.Module, now time.Time) error {
	if len(modules) == 0 {
		_, err := fmt.Fprintln(w, "no modules")
		return err
	}
	var rows [][]string
	for _, m := range modules {
		status := m.Status
		if m.Why != "" && m.Status != "running" {
			status += " (" + m.Why + ")"
		}
		if !m.Next.IsZero() {
			status += ", again in " + max(m.Next.Sub(now), 0).Round(time.Second).String()
		}
		pid, up, memory := "-", "-", "-"
		if m.Pid != 0 {
			pid, up, memory = fmt.Sprint(m.Pid), ago(m.Started, now), console.Size(m.Memory)
		}
		rows = append(rows, []string{m.Name, m.Type, status, up, fmt.Sprint(m.Restarts), pid, memory, m.Image})
	}
	return console.Table(w, "MODULE TYPE STATUS UP RESTARTS PID MEMORY IMAGE", rows)
}
