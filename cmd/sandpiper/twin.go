package main

import (
	"bytes"
	"encoding/json"

	"github.com/spf13/cobra"
)

func (s *shared) twinCommand() *cobra.Command {
	var socket, report string
	var desired bool
	c := &cobra.Command{
		Use: "twin", Short: "On the device: read module twins (get); inside a module: its own twin", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return s.ownTwin(cmd.Context(), socket, report, desired) },
	}
	c.Flags().StringVar(&report, "report", "", "JSON merge patch of the module's reported properties")
	c.Flags().BoolVar(&desired, "desired", false, "print only the desired properties")
	withSocket(c, &socket)
	get := &cobra.Command{
		Use: "get MODULE", Short: "Desired and reported properties as the module sees them", Args: cobra.ExactArgs(1), ValidArgsFunction: func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
			names, directive := s.moduleNames(cmd, args, part)
			if len(args) == 0 {
				names = append(names, "$edgeAgent", "$edgeHub")
			}
			return names, directive
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			twin, err := s.client().Twin(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return s.printDocument(twin)
		},
	}
	c.AddCommand(s.withJSON(get))
	return c
}

// printDocument prints JSON indented, and on one line with --json so that scripts can take a line as a document.
func (s *shared) printDocument(doc json.RawMessage) error {
	var out bytes.Buffer
	var err error
	if s.json {
		err = json.Compact(&out, doc)
	} else {
		err = json.Indent(&out, doc, "", "  ")
	}
	if err != nil {
		return err
	}
	out.WriteByte('\n')
	_, err = out.WriteTo(s.out)
	return err
}
