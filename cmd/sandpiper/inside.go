package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/workload"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
)

// insideCommands are the verbs for a module without an SDK: they speak through the module's own socket.
func (s *shared) insideCommands() []*cobra.Command {
	return []*cobra.Command{s.sendCommand(), s.receiveCommand(), s.methodCommand(), s.probeCommand()}
}

// withSocket adds --socket to a verb of the inside.
func withSocket(c *cobra.Command, socket *string) *cobra.Command {
	c.Flags().StringVar(socket, "socket", workload.SocketPath, "the module's socket")
	return c
}

func (s *shared) sendCommand() *cobra.Command {
	var socket, output, id, contentType string
	var properties []string
	c := &cobra.Command{
		Use: "send [BODY]", Short: "Inside a module: send a message (standard input without BODY); done when it is on disk", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var bag iothub.Bag
			if id != "" {
				bag = bag.Set("$.mid", id)
			}
			for _, p := range properties {
				key, value, ok := strings.Cut(p, "=")
				if !ok || key == "" {
					return console.Usagef("--property %q: want key=value", p)
				}
				bag = bag.Set(key, value)
			}
			var body []byte
			if len(args) == 1 {
				body = []byte(args[0])
			} else {
				var err error
				if body, err = io.ReadAll(io.LimitReader(s.stdin, iothub.MaxMessage+1)); err != nil {
					return err
				}
			}
			return workload.Dial(socket).Send(cmd.Context(), output, bag, contentType, body)
		},
	}
	c.Flags().StringVar(&output, "output", "", "name of the output (required)")
	c.Flags().StringVar(&id, "id", "", "message id")
	c.Flags().StringVar(&contentType, "content-type", "", "such as application/json")
	c.Flags().StringArrayVar(&properties, "property", nil, "application property key=value; may be repeated")
	_ = c.MarkFlagRequired("output") // the flag was made three lines above
	return withSocket(c, &socket)
}

func (s *shared) receiveCommand() *cobra.Command {
	var socket string
	var count int
	c := &cobra.Command{
		Use: "receive", Short: "Inside a module: print each message to an input as a line of JSON and acknowledge it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if count < 0 {
				return console.Usagef("--count %d: want 0 or more", count)
			}
			enc := json.NewEncoder(s.out)
			left := count
			for f := (console.Follower{Say: s.err}); ; {
				err := workload.Dial(socket).Receive(cmd.Context(), 0, func(in workload.Input) error {
					f.Met()
					if count > 0 && left == 0 {
						return errEnough
					}
					left--
					return enc.Encode(in)
				})
				if errors.Is(err, errEnough) {
					return nil
				}
				if err := f.Again(cmd.Context(), err); err != nil {
					return err
				}
			}
		},
	}
	c.Flags().IntVarP(&count, "count", "n", 0, "end after this many messages")
	return withSocket(c, &socket)
}

// errEnough ends a stream that has given what was asked for.
var errEnough = errors.New("enough")

// ownTwin is `sandpiper twin` inside a module.
func (s *shared) ownTwin(ctx context.Context, socket, report string, desired bool) error {
	client := workload.Dial(socket)
	if report != "" && !json.Valid([]byte(report)) {
		return console.Usagef("--report: what was given is not JSON")
	}
	if report != "" {
		_, err := client.Report(ctx, json.RawMessage(report))
		return err
	}
	doc, err := client.Twin(ctx)
	if err != nil {
		return err
	}
	if desired {
		var twin struct{ Desired json.RawMessage }
		if err := json.Unmarshal(doc, &twin); err != nil {
			return err
		}
		doc = twin.Desired
	}
	return s.printDocument(doc)
}

func (s *shared) methodCommand() *cobra.Command {
	var socket, module, payload string
	var timeout time.Duration
	call := &cobra.Command{
		Use: "call NAME", Short: "Call a direct method of another module", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request, err := json.Marshal(map[string]any{
				"methodName": args[0], "payload": json.RawMessage(payload), "responseTimeoutInSeconds": int(timeout.Seconds()),
			})
			if err != nil {
				return console.Usagef("--payload: %w", err)
			}
			req, err := iothub.ParseMethodRequest(request)
			if err != nil {
				return console.Usage(err)
			}
			result, err := workload.Dial(socket).Call(cmd.Context(), iothub.ID{Module: module}, req)
			if err != nil {
				return err
			}
			return console.JSON(s.out, result)
		},
	}
	call.Flags().StringVar(&module, "module", "", "the module to call (required)")
	call.Flags().StringVar(&payload, "payload", "null", "JSON")
	call.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "5s to 300s")
	_ = call.MarkFlagRequired("module") // the flag was made three lines above
	return console.Group("method", "Inside a module: call direct methods", withSocket(call, &socket))
}
