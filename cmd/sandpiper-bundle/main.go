// Command sandpiper-bundle makes and checks Sandpiper bundles on a build host. It never runs on a device.
//
//	sandpiper-bundle keygen -o acme.key
//	sandpiper-bundle build -o filter.spb --name filter --version 1.2.0 --sequence 12 --arg /bin/filter --key acme.key rootfs/
//	sandpiper-bundle verify --pub acme.pub filter.spb
//	sandpiper-bundle inspect --json filter.spb
//	sandpiper-bundle delta filter-1.1.spb filter.spb
//	sandpiper-bundle extract filter.spb files/
//
// Building and signing may be apart: build without --key, and sign where the key is. The same inputs give the same bytes.
//
// Exit codes: 0 done, 1 failed, 2 usage, 130 and 143 ended by SIGINT and SIGTERM.
package main

import (
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/cmd/console"
)

// version is set by the linker (-X main.version=…).
var version = "dev"

func main() {
	os.Exit(console.Main(func(ctx context.Context) int { return run(ctx, os.Args[1:], os.Stdout, os.Stderr) }))
}

// run is the whole command; it exists apart from main so that tests can call it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "sandpiper-bundle",
		Short: "Build, sign and check Sandpiper bundles",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return console.Usagef("unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetOut(stdout)
	root.AddCommand(keygenCommand(), buildCommand(), signCommand(), verifyCommand(), inspectCommand(), deltaCommand(), extractCommand(), console.Version(stdout, "sandpiper-bundle", version))
	return console.Execute(ctx, root, args, stderr)
}

// files wants n arguments and names them in the error.
func files(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return console.Usagef("%d arguments, want %s", len(args), what)
		}
		return nil
	}
}
