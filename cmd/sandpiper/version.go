package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/cmd/console"
)

// version is set by the linker (-X main.version=…), so that a tarball builds the same bytes as a checkout.
var version = "dev"

// build is what `version --json` prints.
type build struct {
	Version string            `json:"version"`
	Go      string            `json:"go"`
	OS      string            `json:"os"`
	Arch    string            `json:"arch"`
	Modules map[string]string `json:"modules"` // every module linked in, with its version
}

func (s *shared) versionCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "version", Short: "Version of this binary; with --json everything linked into it", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if !s.json {
				_, err := fmt.Fprintf(s.out, "sandpiper %s %s/%s %s\n", version, runtime.GOOS, runtime.GOARCH, runtime.Version())
				return err
			}
			b := build{Version: version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH, Modules: map[string]string{}}
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, m := range info.Deps {
					b.Modules[m.Path] = m.Version
				}
			}
			return console.JSON(s.out, b)
		},
	}
	return s.withJSON(c)
}
