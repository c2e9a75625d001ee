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
			var refused error
			if err != nil && child { // what the agent before this one read is better than none
				if before, none := s.loadConfig(cmd, inForce(s.runDir)); none == nil {
					cfg, refused, err = before, err, nil
				}
			}
			if err != nil {
				return console.Usage(err)
			}
			logger := agent.NewLogger(os.Stderr, cfg.Log)
			if !child {
				return s.runWarden(cmd, cfg, config, logger)
			}
			return s.runAgent(cmd.Context(), cfg, config, logger, agent.Options{Refused: refused, CheckConfig: func() error {
				_, err := s.loadConfig(cmd, config)
				return err
			}})
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

func (s *shared) runAgent(ctx context.Context, cfg agent.Config, config string, logger *slog.Logger, opts agent.Options) error {
	config, err := filepath.Abs(cmp.Or(config, agent.DefaultConfigPath)) // others ask for it, from where they are
	if err != nil {
		return err
	}
	lock, err := container.LockAgent(ctx, cfg.RunDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if opts.Refused != nil {
		logger.Error("configuration refused, that of the agent before stays in force", "err", opts.Refused)
	} else if err := keepInForce(config, cfg.RunDir); err != nil {
		logger.Warn("configuration not kept for the next agent", "err", err)
	}
	go shrink(ctx)
	opts.Version, opts.Logger, opts.Config = version, logger, config
	return agent.Serve(ctx, cfg, opts)
}

// inForce is where a copy of the configuration lies that the running agent began with: whoever breaks the file must not take the device
// away when the agent dies the next time. It is gone after a boot.
func inForce(runDir string) string { return filepath.Join(runDir, "config.toml") }

// keepInForce makes that copy.
func keepInForce(config, runDir string) error {
	raw, err := os.ReadFile(config)
	if errors.Is(err, os.ErrNotExist) {
		return os.RemoveAll(inForce(runDir))
	}
	if err != nil {
		return err
	}
	next := inForce(runDir) + ".new"
	if err := os.WriteFile(next, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(next, inForce(runDir))
}
