package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent/hub"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
)

// maxInput bounds what is read from a file or standard input, in bytes.
const maxInput = 4 << 20

func (s *shared) twinCommand() *cobra.Command {
	get := s.withJSON(&cobra.Command{
		Use: "get DEVICE [MODULE]", Short: "Print a twin with its metadata", Args: cobra.RangeArgs(1, 2), ValidArgsFunction: s.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseID(args...)
			if err != nil {
				return err
			}
			return s.with(func(c *hub.Owner) error {
				raw, err := c.Twin(cmd.Context(), id)
				if err != nil {
					return err
				}
				return console.JSON(s.out, raw)
			})
		},
	})
	var tags bool
	set := s.withJSON(&cobra.Command{
		Use: "set DEVICE [MODULE] PATCH", Short: "Merge a JSON patch into the desired properties",
		Long:    "Merge a JSON patch into the desired properties. PATCH is JSON, `-` for standard input, or @FILE; null removes a member.",
		Example: "  sandpiper-hub twin set edge1 filter '{\"threshold\":70}'\n  sandpiper-hub twin set edge1 --tags '{\"building\":\"43\"}'",
		Args:    cobra.RangeArgs(2, 3), ValidArgsFunction: s.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseID(args[:len(args)-1]...)
			if err != nil {
				return err
			}
			text, err := s.input(args[len(args)-1])
			if err != nil {
				return err
			}
			body := map[string]any{"properties": map[string]json.RawMessage{"desired": text}}
			if tags {
				body = map[string]any{"tags": text}
			}
			patch, err := json.Marshal(body)
			if err != nil {
				return console.Usagef("the patch is not JSON: %w", err)
			}
			return s.with(func(c *hub.Owner) error {
				raw, err := c.PatchTwin(cmd.Context(), id, patch)
				if err != nil || !s.json {
					return err
				}
				return console.JSON(s.out, raw)
			})
		},
	})
	set.Flags().BoolVar(&tags, "tags", false, "change the tags instead")
	return console.Group("twin", "Read and change twins", get, set)
}

// input is JSON as given: itself, "-" for standard input, or @FILE.
func (s *shared) input(arg string) (json.RawMessage, error) {
	text, err := []byte(arg), error(nil)
	if path, ok := strings.CutPrefix(arg, "@"); ok {
		text, err = readFile(path)
	} else if arg == "-" {
		text, err = readAll(s.stdin, "standard input")
	}
	if err != nil {
		return nil, err
	}
	if !json.Valid(text) {
		return nil, console.Usagef("what was given is not JSON")
	}
	return text, nil
}

func readAll(r io.Reader, name string) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err == nil && len(text) > maxInput {
		err = fmt.Errorf("%s: larger than %d MiB", name, maxInput>>20)
	}
	return text, err
}

func (s *shared) methodCommand() *cobra.Command {
	var payload string
	var timeout, connect time.Duration
	call := s.withJSON(&cobra.Command{
		Use: "call DEVICE [MODULE] NAME", Short: "Call a direct method and print its status and payload",
		Long: "Call a direct method and print its status and payload. The exit code is 1 when nobody answered, or with a status of 400 and more.",
		Args: cobra.RangeArgs(2, 3), ValidArgsFunction: s.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseID(args[:len(args)-1]...)
			if err != nil {
				return err
			}
			req := iothub.MethodRequest{Name: args[len(args)-1], ResponseTimeout: timeout, ConnectTimeout: connect}
			if req.Payload, err = s.input(payload); err != nil {
				return err
			}
			if err := req.Validate(); err != nil {
				return console.Usage(err)
			}
			return s.with(func(c *hub.Owner) error {
				done := console.Working(s.err, "waiting for "+id.String())
				result, err := c.Invoke(cmd.Context(), id, req)
				done()
				if err != nil {
					return err
				}
				if err := console.JSON(s.out, result); err != nil {
					return err
				}
				if result.Status >= 400 {
					return fmt.Errorf("method %s of %s answered with status %d", req.Name, id, result.Status)
				}
				return nil
			})
		},
	})
	call.Flags().StringVar(&payload, "payload", "null", "JSON, - for standard input, or @FILE")
	call.Flags().DurationVar(&timeout, "timeout", iothub.DefaultResponseTimeout, "for the answer, 5s to 300s")
	call.Flags().DurationVar(&connect, "connect-timeout", 0, "for the target to come online, up to 300s")
	return console.Group("method", "Call direct methods", call)
}

func (s *shared) deployCommand() *cobra.Command {
	apply := &cobra.Command{
		Use: "apply DEVICE FILE", Short: "Set the modules of one device from a deployment manifest (FILE - is standard input)",
		Args: cobra.ExactArgs(2), ValidArgsFunction: s.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseID(args[0])
			if err != nil {
				return err
			}
			arg := args[1]
			if arg != "-" {
				arg = "@" + arg
			}
			manifest, err := s.input(arg)
			if err != nil {
				return fmt.Errorf("%s: %w", args[1], err)
			}
			return s.with(func(c *hub.Owner) error { return c.Apply(cmd.Context(), id.Device, manifest) })
		},
	}
	return console.Group("deploy", "Deploy manifests", apply)
}
