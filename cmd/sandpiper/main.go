// Command sandpiper is the one binary of the device: the warden, the agent, every verb an operator or a module types, and the
// first step inside each sandbox (it re-executes itself there; see [container.Init]).
//
// Exit codes: 0 done, 1 failed, 2 usage, 130 and 143 ended by SIGINT and SIGTERM.
package main

import (
	"context"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
	"github.com/sandpiper-edge/sandpiper/sandbox/container"
)

// version is set by the linker (-X main.version=…), so that a tarball builds the same bytes as a checkout.
var version = "dev"

// init is the sandbox's hook: it must run before any other work of a re-executed process, and never returns there.
func init() { container.Init() }

func main() {
	os.Exit(console.Main(func(ctx context.Context) int { return run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr) }))
}

// run is the whole command; it exists apart from main so that tests can call it.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return console.Execute(ctx, command(stdin, stdout, stderr), args, stderr)
}

// shared holds what several verbs need.
type shared struct {
	runDir string
	json   bool
	stdin  io.Reader
	out    io.Writer
	err    io.Writer
}

func (s *shared) client() *control.Client {
	return control.Dial(filepath.Join(s.runDir, "control.sock"))
}

func command(stdin io.Reader, stdout, stderr io.Writer) *cobra.Command {
	s := &shared{stdin: stdin, out: stdout, err: stderr}
	root := &cobra.Command{Use: "sandpiper", Short: "Runs Azure IoT Edge modules on embedded Linux without Docker"}
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.PersistentFlags().StringVar(&s.runDir, "run-dir", "/run/sandpiper", "runtime directory of the agent to talk to")
	root.AddCommand(
		s.agentCommand(), s.statusCommand(), s.moduleCommand(), s.twinCommand(), s.deployCommand(), s.queueCommand(), s.imageCommand(), s.checkCommand(), s.halCommand(), s.metricsCommand(), console.Version(s.out, "sandpiper", version),
	)
	root.AddCommand(s.insideCommands()...)
	return root
}

// withJSON adds --json to a listing.
func (s *shared) withJSON(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVar(&s.json, "json", false, "print JSON")
	return c
}

// moduleNames completes a module name from the running agent.
func (s *shared) moduleNames(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	status, err := s.client().Status(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, m := range status.Modules {
		names = append(names, m.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
