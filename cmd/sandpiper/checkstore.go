package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent"
	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/store"
)

// checkStoreCommand looks at the store alone, with and without a running agent.
func (s *shared) checkStoreCommand() *cobra.Command {
	var config string
	c := &cobra.Command{
		Use: "store", Short: "Is the durable store well: space, damage, wear", Args: cobra.NoArgs,
		Long: "Ask the running agent how its store is. With no agent running the store is opened here: every file is verified, damaged ones are put\n" +
			"aside as the agent would at its start. The exit code is 0 when the store is well.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			done := working(s.err, "verifying")
			report, how, err := s.checkStore(cmd.Context(), config)
			done()
			if err != nil {
				return err
			}
			if s.json {
				err = printJSON(s.out, report)
			} else {
				fmt.Fprintln(s.out, how)
				for _, why := range report.Why {
					fmt.Fprintln(s.out, "problem:", why)
				}
				err = printStore(s.out, report)
			}
			if err == nil && report.Health != "ok" {
				err = exitError{1}
			}
			return err
		},
	}
	c.Flags().StringVar(&config, "config", "", "configuration file, for a device whose agent does not run (default "+agent.DefaultConfigPath+" if it is there)")
	return s.withJSON(c)
}

func (s *shared) checkStore(ctx context.Context, config string) (report control.Store, how string, err error) {
	if status, err := s.client().Status(ctx); err == nil {
		return status.Store, "asked the agent of " + status.Device, nil
	}
	cfg, err := agent.Load(config)
	if err != nil {
		return report, "", usageError{err}
	}
	dir := filepath.Join(cfg.StateDir, "store")
	st, err := store.Open(store.Config{Dir: dir, MaxBytes: int64(cfg.Store.MaxBytes)})
	switch {
	case errors.Is(err, store.ErrLocked):
		return report, "", fmt.Errorf("%s is in use by an agent that does not answer at %s; name its run_dir with --run-dir", dir, s.runDir)
	case err != nil:
		return report, "", fmt.Errorf("store %s: %w", dir, err)
	}
	report = agent.StoreReport(st.Usage())
	return report, "no agent runs; opened and verified " + dir, st.Close()
}
