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
// Exit codes: 0 done, 1 failed, 2 usage.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker (-X main.version=…).
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// usageError is a mistake in how the command was typed.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run is the whole command; it exists apart from main so that tests can call it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "sandpiper-bundle",
		Short:         "Build, sign and check Sandpiper bundles",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(args)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(keygenCommand(), buildCommand(), signCommand(), verifyCommand(), inspectCommand(), deltaCommand(), extractCommand(), versionCommand())
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage), isCobraUsage(err):
		fmt.Fprintf(stderr, "sandpiper-bundle: %s; see `sandpiper-bundle help`\n", oneLine(err))
		return 2
	}
	fmt.Fprintf(stderr, "sandpiper-bundle: %s\n", oneLine(err))
	return 1
}

// isCobraUsage tells the mistakes that the command finder reports without a type.
func isCobraUsage(err error) bool {
	return strings.HasPrefix(err.Error(), "unknown command") || strings.HasPrefix(err.Error(), "required flag")
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// files wants n arguments and names them in the error.
func files(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usagef("%d arguments, want %s", len(args), what)
		}
		return nil
	}
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Version of this tool", Args: files(0, "none"),
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(c.OutOrStdout(), "sandpiper-bundle %s %s/%s %s\n", version, runtime.GOOS, runtime.GOARCH, runtime.Version())
			return err
		},
	}
}
