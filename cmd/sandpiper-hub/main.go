// Command sandpiper-hub is a hub that speaks IoT Hub's language, small enough for a laptop: one process, nothing else to start.
//
// `serve` runs it; every other verb talks REST to a running one, with the owner's connection string that `serve` wrote into its
// directory. Exit codes: 0 done, 1 failed, 2 usage, 130 and 143 ended by SIGINT and SIGTERM.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent/hub"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
)

// version is set by the linker.
var version = "dev"

func main() {
	os.Exit(console.Main(func(ctx context.Context) int { return run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr) }))
}

// run is the whole command; it exists apart from main so that tests can call it.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return console.Execute(ctx, command(stdin, stdout, stderr), args, stderr)
}

// shared holds what several verbs need.
type shared struct {
	dir   string
	json  bool
	stdin io.Reader
	out   io.Writer
	err   io.Writer
}

func command(stdin io.Reader, stdout, stderr io.Writer) *cobra.Command {
	s := &shared{stdin: stdin, out: stdout, err: stderr}
	root := &cobra.Command{Use: "sandpiper-hub", Short: "A hub that speaks IoT Hub's language"}
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.PersistentFlags().StringVar(&s.dir, "dir", "hub", "the hub's directory: its state, and how to reach it")
	root.AddCommand(s.serveCommand(), s.deviceCommand(), s.moduleCommand(), s.twinCommand(), s.methodCommand(), s.deployCommand(), s.eventsCommand(), s.importCommand(), console.Version(s.out, "sandpiper-hub", version))
	return root
}

// withJSON adds --json to a listing.
func (s *shared) withJSON(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVar(&s.json, "json", false, "print JSON")
	return c
}

func (s *shared) serveCommand() *cobra.Command {
	var cfg hub.Config
	var verbose bool
	c := &cobra.Command{
		Use: "serve", Short: "Run the hub until SIGTERM", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			level := slog.LevelInfo
			if verbose {
				level = slog.LevelDebug
			}
			cfg.Dir, cfg.Logger = s.dir, slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: level}))
			h, err := hub.New(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			ended := make(chan error, 1)
			go func() { ended <- h.Run(cmd.Context()) }()
			select {
			case err := <-ended:
				return err
			case <-h.Started(): // whoever reads the addresses can use them, and so can every verb
			}
			fmt.Fprintf(s.out, "MQTT on %s, HTTPS on %s\nclients trust %s\nthe owner's connection string is in %s\n",
				h.MQTTAddr(), h.HTTPSAddr(), hub.CAFile(s.dir), hub.ConnectionFile(s.dir))
			return <-ended
		},
	}
	c.Flags().StringVar(&cfg.Host, "host", "hub.localdomain", "host name of the hub, as devices know it")
	c.Flags().StringVar(&cfg.MQTT, "mqtt", ":8883", "address for MQTT over TLS")
	c.Flags().StringVar(&cfg.HTTPS, "https", ":443", "address for REST, WebSocket and bundles")
	c.Flags().StringVar(&cfg.Bundles, "bundles", "", "directory served at /bundles/")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "log more")
	return c
}
