package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
	"github.com/sandpiper-edge/sandpiper/sandbox/effective"
)

// inspectCommand tells what a module's sandbox really lets it do.
func (s *shared) inspectCommand() *cobra.Command {
	var inside bool
	c := &cobra.Command{
		Use: "inspect MODULE --effective", Short: "What a running module can really do, tried inside its sandbox, beside what it was granted",
		Long: "Runs this binary's probes in the sandbox of a running module and compares what worked with what its manifest and this device grant it.\nEnds with 1 when they differ.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: s.moduleNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !inside {
				return console.Usagef("inspect needs --effective")
			}
			doc, err := s.client().Effective(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if s.json {
				err = console.JSON(s.out, doc)
			} else {
				err = s.printEffective(doc)
			}
			if err == nil && len(doc.Drift) > 0 {
				err = console.Exit(1)
			}
			return err
		},
	}
	c.Flags().BoolVar(&inside, "effective", false, "probe from inside the sandbox")
	return s.withJSON(c)
}

func (s *shared) printEffective(doc control.Effective) error {
	var rows [][]string
	allowed := 0
	for _, f := range doc.Findings {
		result := "refused"
		if f.Allowed {
			result = "allowed"
			allowed++
		}
		rows = append(rows, []string{result, f.Detail, f.Probe})
	}
	if err := console.Table(s.out, "RESULT DETAIL PROBE", rows); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%d probes in module %s: %d allowed, %d refused\n", len(doc.Findings), doc.Module, allowed, len(doc.Findings)-allowed)
	for _, d := range doc.Drift {
		fmt.Fprintf(s.out, "DRIFT: %s\n", d)
	}
	if len(doc.Drift) == 0 {
		fmt.Fprintln(s.out, "as granted")
	}
	return nil
}

// probeCommand is what runs inside.
func (s *shared) probeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "probe", Short: "Inside a sandbox: try what a module may be refused, and print what came of it", Args: cobra.NoArgs, Hidden: true,
		RunE: func(*cobra.Command, []string) error { return json.NewEncoder(s.out).Encode(effective.Run()) },
	}
}
