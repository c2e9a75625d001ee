package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent/hub"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
)

func (s *shared) importCommand() *cobra.Command {
	var out string
	c := s.withJSON(&cobra.Command{
		Use: "import EXPORT", Short: "Take a device's exported queue and write the receipt for it", Args: cobra.ExactArgs(1),
		Long: "Take what `sandpiper queue export` wrote on a device whose link is down, after verifying that the device signed it. The same export may\n" +
			"come twice: nothing is taken twice. The receipt, brought back to the device, lets `sandpiper queue import` free its queue.",
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			if out == "" {
				out = args[0] + ".receipt"
			}
			return s.with(func(c *hub.Owner) error {
				took, err := c.Import(cmd.Context(), f)
				if err != nil {
					return fmt.Errorf("import %s: %w", args[0], err)
				}
				if err := os.WriteFile(out, took.Receipt, 0o644); err != nil {
					return err
				}
				if s.json {
					return console.JSON(s.out, took)
				}
				fmt.Fprintf(s.out, "%s: %d messages, %d of them new; the receipt is in %s\n", took.Device, took.Messages, took.New, out)
				return nil
			})
		},
	})
	c.Flags().StringVarP(&out, "output", "o", "", "file for the receipt (default EXPORT.receipt)")
	return c
}
