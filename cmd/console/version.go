package console

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// build is what `version --json` prints.
type build struct {
	Version string            `json:"version"`
	Go      string            `json:"go"`
	OS      string            `json:"os"`
	Arch    string            `json:"arch"`
	Modules map[string]string `json:"modules"` // every module linked in, with its version
}

// Version is the verb that prints the version of a command, and with --json everything linked into it.
func Version(out io.Writer, name, version string) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "version", Short: "Version of this binary; with --json everything linked into it", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if !asJSON {
				_, err := fmt.Fprintf(out, "%s %s %s/%s %s\n", name, version, runtime.GOOS, runtime.GOARCH, runtime.Version())
				return err
			}
			b := build{Version: version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH, Modules: map[string]string{}}
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, m := range info.Deps {
					b.Modules[m.Path] = m.Version
				}
			}
			return JSON(out, b)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
