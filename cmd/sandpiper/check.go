package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent"
	"github.com/sandpiper-edge/sandpiper/agent/checkup"
	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
	"github.com/sandpiper-edge/sandpiper/sandbox/network"
)

// checkCommand is the technician's tool.
func (s *shared) checkCommand() *cobra.Command {
	var config string
	c := &cobra.Command{
		Use: "check", Short: "Test this device part by part and say what to do", Args: cobra.NoArgs,
		Long: "Look at configuration, kernel, clock, disk, keys, watchdog, the way to the hub, the agent and its store, each with what was seen and, where\n" +
			"it is not well, what to do. Nothing is changed and a running agent is not disturbed. The exit code is 1 when something the configuration\n" +
			"asks for does not work; warnings alone give 0.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			bad, list := false, []checkup.Finding{}
			found := func(f checkup.Finding) {
				bad = bad || f.Level == checkup.Bad
				if list = append(list, f); !s.json {
					s.printFinding(f)
				}
			}
			cfg, source, err := s.checkedConfig(cmd, config)
			found(source)
			if errors.Is(err, agent.ErrConfig) {
				found(checkup.Finding{Area: "configuration", Level: checkup.Bad, What: console.OneLine(err), Do: "correct it; agent/CONFIG.md lists every key"})
			} else if err != nil {
				return console.Usage(err)
			} else {
				agent.Checkup(cmd.Context(), cfg, []checkup.Area{{Name: "agent", Look: s.checkAgent}, {Name: "network", Look: checkNetwork}}, found)
			}
			if s.json {
				if err := console.JSON(s.out, list); err != nil {
					return err
				}
			}
			if bad {
				return console.Exit(1)
			}
			return cmd.Context().Err()
		},
	}
	c.Flags().StringVar(&config, "config", "", "configuration file (default: that of the agent that answers, else "+agent.DefaultConfigPath+")")
	c.AddCommand(s.checkStoreCommand(), s.checkNetworkCommand())
	return s.withJSON(c)
}

// checkedConfig reads the configuration that a check is held against: the file that is named, whose run_dir says then where its agent
// answers; else the one that the agent at the run_dir reads; else the default one. The finding says which.
func (s *shared) checkedConfig(cmd *cobra.Command, named string) (cfg agent.Config, source checkup.Finding, err error) {
	source = checkup.Finding{Area: "configuration", Level: checkup.Well, What: "read from " + named}
	if named != "" {
		if cfg, err = s.loadConfig(cmd, named); err == nil {
			s.runDir = cfg.RunDir
		}
	}
	status, silent := s.client().Status(cmd.Context())
	if named != "" {
		if silent == nil && status.Config != "" && !sameFile(named, status.Config) {
			source.Level, source.Do = checkup.Warning, "leave out --config to check that one"
			source.What += ", but the agent at " + s.runDir + " reads " + status.Config
		}
		return cfg, source, err
	}
	path, why := cmp.Or(status.Config, agent.DefaultConfigPath), "as the running agent does"
	if silent != nil {
		why = "no agent answers that could read another"
	}
	source.What = fmt.Sprintf("read from %s, %s", path, why)
	if path == agent.DefaultConfigPath { // alone may be absent
		if _, gone := os.Stat(path); errors.Is(gone, os.ErrNotExist) {
			path, source.What = "", fmt.Sprintf("defaults: there is no %s; %s", path, why)
		}
	}
	if cfg, err = agent.Load(path); silent == nil {
		cfg.RunDir = s.runDir // where it answers, whatever the file says
	}
	return cfg, source, err
}

// sameFile tells whether two paths name one file, or are the same where there is none.
func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	y, err2 := os.Stat(b)
	return a == b || err == nil && err2 == nil && os.SameFile(x, y)
}

func (s *shared) printFinding(f checkup.Finding) {
	fmt.Fprintf(s.out, "%-8s %-14s %s\n", f.Level, f.Area, f.What)
	if f.Do != "" {
		fmt.Fprintf(s.out, "%-8s %-14s -> %s\n", "", "", f.Do)
	}
}

// checkAgent asks the running agent, which alone knows its store and its links.
func (s *shared) checkAgent(ctx context.Context, say func(checkup.Level, string, string)) {
	status, err := s.client().Status(ctx)
	if err != nil {
		what, do, _ := strings.Cut(console.OneLine(err), "; ")
		say(checkup.Bad, what, do)
		return
	}
	agentWell(status, say)
}

func agentWell(status control.Status, say func(checkup.Level, string, string)) {
	running := 0
	for _, m := range status.Modules {
		if m.Status == "running" {
			running++
		}
	}
	say(checkup.Well, fmt.Sprintf("pid %d, version %s, %d of %d modules running", status.Pid, status.Version, running, len(status.Modules)), "")
	for _, l := range status.Links {
		if !l.Connected {
			say(checkup.Warning, l.Identity+" is not connected: "+l.Error, "its messages are kept; the line of the link above says what is wrong on the way")
		}
	}
	kernel := map[string]bool{}
	for _, line := range agent.KernelLacks() {
		kernel[line] = true // an area of its own says these
	}
	for _, p := range status.Problems {
		if !kernel[p] {
			say(checkup.Warning, p, "")
		}
	}
}

// checkNetwork tries what the bridge network needs, in a network namespace that is thrown away.
func checkNetwork(_ context.Context, say func(checkup.Level, string, string)) {
	if os.Geteuid() != 0 {
		say(checkup.Unknown, "only root can try what the bridge network needs", "run this as root")
		return
	}
	lacks := network.Missing()
	for _, line := range lacks {
		say(checkup.Warning, "no module can be on the bridge network: "+line, "")
	}
	if len(lacks) == 0 {
		say(checkup.Well, "modules can be on the bridge network", "")
	}
}
