package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent"
	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
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
			done := console.Working(s.err, "verifying")
			report, how, err := s.checkStore(cmd, config)
			done()
			if err != nil {
				return err
			}
			if s.json {
				err = console.JSON(s.out, report)
			} else {
				fmt.Fprintln(s.out, how)
				for _, why := range report.Why {
					fmt.Fprintln(s.out, "problem:", why)
				}
				err = printStore(s.out, report)
			}
			if err == nil && report.Health != "ok" {
				err = console.Exit(1)
			}
			return err
		},
	}
	c.Flags().StringVar(&config, "config", "", "configuration file, for a device whose agent does not run (default "+agent.DefaultConfigPath+" if it is there)")
	return s.withJSON(c)
}

// checkStore asks the agent that answers at the run_dir, or at that of the configuration that is named.
func (s *shared) checkStore(cmd *cobra.Command, config string) (report control.Store, how string, err error) {
	cfg, err := s.loadConfig(cmd, config)
	if err == nil && config != "" {
		s.runDir = cfg.RunDir
	}
	if status, err := s.client().Status(cmd.Context()); err == nil {
		return status.Store, "asked the agent of " + status.Device, nil
	}
	if err != nil {
		return report, "", console.Usage(err)
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
