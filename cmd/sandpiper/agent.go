package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
	"github.com/sandpiper-edge/sandpiper/hal/linux"
	"github.com/sandpiper-edge/sandpiper/sandbox/container"
)

// agentCommand is the warden, and with --child the agent it starts.
//
// The warden reads the configuration once, for the runtime directory and so that a wrong one is one line and an end instead
// of a restart loop, and keeps nothing of it.
func (s *shared) agentCommand() *cobra.Command {
	var config string
	var child bool
	c := &cobra.Command{
		Use:   "agent",
		Short: "Run the agent under its warden until SIGTERM, which stops the modules too",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.loadConfig(cmd, config)
			if err != nil {
				return console.Usage(err)
			}
			logger := agent.NewLogger(os.Stderr, cfg.Log)
			if child {
				return s.runAgent(cmd.Context(), cfg, config, logger, func() error {
					_, err := s.loadConfig(cmd, config)
					return err
				})
			}
			return s.runWarden(cmd, cfg, config, logger)
		},
	}
	c.Flags().StringVar(&config, "config", "", "configuration file (default "+agent.DefaultConfigPath+" if it is there)")
	c.Flags().BoolVar(&child, "child", false, "be the agent itself; the warden says this")
	_ = c.Flags().MarkHidden("child") // the flag is there: it was made on the line before
	return c
}

// loadConfig reads the configuration; --run-dir on the command line wins over the file.
func (s *shared) loadConfig(cmd *cobra.Command, path string) (agent.Config, error) {
	cfg, err := agent.Load(path)
	if err == nil && cmd.Flags().Changed("run-dir") {
		if !filepath.IsAbs(s.runDir) {
			return cfg, errors.New("--run-dir: want an absolute path")
		}
		cfg.RunDir = s.runDir
	}
	return cfg, err
}

func (s *shared) runWarden(cmd *cobra.Command, cfg agent.Config, config string, logger *slog.Logger) error {
	args := []string{os.Args[0], "agent", "--child", "--run-dir", cfg.RunDir}
	if config != "" {
		args = append(args, "--config", config)
	}
	go shrink(cmd.Context())
	vault := linux.NewVault(logger)
	err := container.Warden(context.WithoutCancel(cmd.Context()), container.WardenConfig{
		RunDir: cfg.RunDir, Args: args, Inherit: vault.Pass, InheritVariable: linux.KeeperVar, Logger: logger,
	})
	var ended *container.AgentExit
	if errors.As(err, &ended) {
		return console.Exit(ended.Code)
	}
	return err
}

func (s *shared) runAgent(ctx context.Context, cfg agent.Config, config string, logger *slog.Logger, check func() error) error {
	config, err := filepath.Abs(cmp.Or(config, agent.DefaultConfigPath)) // others ask for it, from where they are
	if err != nil {
		return err
	}
	lock, err := container.LockAgent(ctx, cfg.RunDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	go shrink(ctx)
	return agent.Serve(ctx, cfg, agent.Options{Version: version, Logger: logger, Config: config, CheckConfig: check})
}
