package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent/control"
)

func (s *shared) deployCommand() *cobra.Command {
	c := &cobra.Command{Use: "deploy", Short: "Plan, apply and show the deployment of this device"}
	plan := &cobra.Command{
		Use: "plan FILE", Short: "What applying a manifest would do (FILE - is standard input)", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.manifest(cmd.Context(), args[0], "planning", s.client().Plan)
		},
	}
	apply := &cobra.Command{
		Use: "apply FILE", Short: "Make a manifest the deployment of a standalone device (FILE - is standard input)", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.manifest(cmd.Context(), args[0], "applying", s.client().Apply)
		},
	}
	show := &cobra.Command{
		Use: "show", Short: "The manifest in force", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			doc, err := s.client().Deployment(cmd.Context())
			if err != nil {
				return err
			}
			return s.printDocument(doc)
		},
	}
	c.AddCommand(s.withJSON(plan), s.withJSON(apply), s.withJSON(show))
	return c
}

func (s *shared) manifest(ctx context.Context, file, what string, ask func(context.Context, []byte) (control.Plan, error)) error {
	text, err := s.readFile(file, control.MaxManifest)
	if err != nil {
		return err
	}
	done := working(s.err, what+" "+file)
	plan, err := ask(ctx, text)
	done()
	if err != nil {
		return err
	}
	if s.json {
		return printJSON(s.out, plan)
	}
	for _, note := range plan.Notes {
		fmt.Fprintln(s.err, "note:", note)
	}
	if len(plan.Steps) == 0 {
		_, err := fmt.Fprintln(s.out, "nothing to do")
		return err
	}
	var rows [][]string
	for _, step := range plan.Steps {
		rows = append(rows, []string{step.Verb, step.Module, step.Why})
	}
	return table(s.out, "STEP MODULE WHY", rows)
}

// readFile reads a file named on the command line, or standard input for "-", of at most limit bytes.
func (s *shared) readFile(name string, limit int64) ([]byte, error) {
	in := s.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s: larger than %d bytes", name, limit)
	}
	return text, err
}
