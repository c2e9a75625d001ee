package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/cmd/console"
	"github.com/sandpiper-edge/sandpiper/sandbox/network"
)

// checkNetworkCommand tries what modules on the bridge network need, in a network namespace that is thrown away.
func (s *shared) checkNetworkCommand() *cobra.Command {
	return s.withJSON(&cobra.Command{
		Use: "network", Short: "Can modules be on the bridge network: interfaces, rules, published ports", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			report := struct {
				Have  bool     `json:"have"`
				Lacks []string `json:"lacks"`
			}{Lacks: append([]string{}, network.Missing()...)}
			report.Have = len(report.Lacks) == 0
			if s.json {
				if err := console.JSON(s.out, report); err != nil {
					return err
				}
			} else if report.Have {
				fmt.Fprintln(s.out, "modules can be on the bridge network")
			}
			if report.Have {
				return nil
			}
			if !s.json {
				for _, line := range report.Lacks {
					fmt.Fprintln(s.out, "problem:", line)
				}
			}
			return console.Exit(1)
		},
	})
}
