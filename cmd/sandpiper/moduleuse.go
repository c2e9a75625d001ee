package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
)

// whyCommand says in one line why a module is or is not running.
func (s *shared) whyCommand() *cobra.Command {
	return s.withJSON(&cobra.Command{
		Use: "why MODULE", Short: "One line: why a module is or is not running", Args: cobra.ExactArgs(1), ValidArgsFunction: s.moduleNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			reason, err := s.client().Why(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if s.json {
				return console.JSON(s.out, reason)
			}
			_, err = fmt.Fprintf(s.out, "%s: %s: %s\n", reason.Module, reason.Status, console.OneLine(fmt.Errorf("%s", reason.Why)))
			return err
		},
	})
}

// moduleStatsCommand prints what modules use.
func (s *shared) moduleStatsCommand() *cobra.Command {
	var watch bool
	c := &cobra.Command{
		Use: "stats [MODULE]", Short: "What running modules use: processor, memory, processes, devices, and what they wait for",
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: s.moduleNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			f := console.Follower{Say: s.err}
			for before := map[string]control.Usage{}; ; {
				list, err := s.client().Stats(cmd.Context(), name)
				if err != nil && watch {
					if err := f.Again(cmd.Context(), err); err != nil {
						return err
					}
					continue
				}
				if err != nil {
					return err
				}
				f.Met()
				if s.json {
					err = console.JSON(s.out, list)
				} else {
					err = s.printStats(list, before)
				}
				if err != nil || !watch {
					return err
				}
				for _, u := range list {
					before[u.Module] = u
				}
				if err := console.Pause(cmd.Context(), time.Second); err != nil {
					return err
				}
			}
		},
	}
	c.Flags().BoolVar(&watch, "watch", false, "print again every second until interrupted")
	return s.withJSON(c)
}

func (s *shared) printStats(list []control.Usage, before map[string]control.Usage) error {
	var rows [][]string
	for _, u := range list {
		processor := fmt.Sprintf("%.1fs", u.CPUSeconds)
		if was, ok := before[u.Module]; ok {
			processor = fmt.Sprintf("%.0f%%", max(u.CPUSeconds-was.CPUSeconds, 0)*100)
		}
		rows = append(rows, []string{
			u.Module, processor, fmt.Sprintf("%.1fs", u.Throttled), console.Size(int64(u.Memory)), console.Size(int64(u.MemoryPeak)), console.Size(int64(u.MemoryLimit)),
			fmt.Sprintf("%d/%d", u.Pids, u.PidsLimit), fmt.Sprint(u.OOMKills), console.Size(int64(u.Read)), console.Size(int64(u.Written)),
			perCent(u.CPUPressure) + " " + perCent(u.MemoryPressure) + " " + perCent(u.IOPressure),
		})
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintln(s.out, "no module runs")
		return err
	}
	return console.Table(s.out, "MODULE CPU THROTTLED MEMORY PEAK LIMIT PIDS OOM READ WRITTEN PRESSURE(cpu,mem,io)", rows)
}

// perCent prints a share the kernel may not tell.
func perCent(share *float64) string {
	if share == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", *share)
}
