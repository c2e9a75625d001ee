package main

import "github.com/spf13/cobra"

func (s *shared) metricsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "metrics", Short: "What is counted, in the text format of Prometheus", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return s.client().Metrics(cmd.Context(), s.out) },
	}
}
