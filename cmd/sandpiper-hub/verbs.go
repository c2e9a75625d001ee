package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// identity is what the verbs read of a device or a module.
type identity struct {
	DeviceID       string `json:"deviceId"`
	ModuleID       string `json:"moduleId"`
	Status         string `json:"status"`
	Connection     string `json:"connectionState"`
	Authentication struct {
		SymmetricKey struct {
			PrimaryKey string `json:"primaryKey"`
		} `json:"symmetricKey"`
	} `json:"authentication"`
}

// connectionString is what a device or module is configured with.
func (i identity) connectionString(host string) string {
	text := "HostName=" + host + ";DeviceId=" + i.DeviceID
	if i.ModuleID != "" {
		text += ";ModuleId=" + i.ModuleID
	}
	return text + ";SharedAccessKey=" + i.Authentication.SymmetricKey.PrimaryKey
}

// with runs act with a client of the hub.
func (s *shared) with(act func(ctx context.Context, c *client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := s.client()
		if err != nil {
			return err
		}
		return act(cmd.Context(), c, args)
	}
}

// print writes a document, on one line with --json.
func (s *shared) print(doc json.RawMessage) error {
	var out bytes.Buffer
	var err error
	if s.json {
		err = json.Compact(&out, doc)
	} else {
		err = json.Indent(&out, doc, "", "  ")
	}
	if err != nil {
		return err
	}
	out.WriteByte('\n')
	_, err = out.WriteTo(s.out)
	return err
}

// list prints identities.
func (s *shared) list(ctx context.Context, c *client, path string) error {
	var raw json.RawMessage
	if err := c.ask(ctx, http.MethodGet, path, nil, &raw); err != nil {
		return err
	}
	if s.json {
		return s.print(raw)
	}
	var list []identity
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	t := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "DEVICE\tMODULE\tSTATUS\tCONNECTION")
	for _, i := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", i.DeviceID, i.ModuleID, i.Status, i.Connection)
	}
	return t.Flush()
}

func (s *shared) show(path func(args []string) string) func(*cobra.Command, []string) error {
	return s.with(func(ctx context.Context, c *client, args []string) error {
		var raw json.RawMessage
		if err := c.ask(ctx, http.MethodGet, path(args), nil, &raw); err != nil {
			return err
		}
		return s.print(raw)
	})
}

func (s *shared) deviceCommand() *cobra.Command {
	c := &cobra.Command{Use: "device", Short: "Create, list, show and delete devices"}
	devicePath := func(args []string) string { return path("devices", args[0]) }
	var leaf bool
	create := &cobra.Command{
		Use: "create DEVICE", Short: "Create an edge device and print its connection string", Args: cobra.ExactArgs(1),
		RunE: s.with(func(ctx context.Context, c *client, args []string) error {
			var made json.RawMessage
			body := map[string]any{"deviceId": args[0], "capabilities": map[string]bool{"iotEdge": !leaf}}
			if err := c.ask(ctx, http.MethodPut, devicePath(args), body, &made); err != nil {
				return err
			}
			return s.credential(c, made)
		}),
	}
	create.Flags().BoolVar(&leaf, "leaf", false, "an ordinary device instead of an edge device")
	c.AddCommand(s.withJSON(create),
		s.withJSON(&cobra.Command{Use: "list", Short: "All devices", Args: cobra.NoArgs, RunE: s.with(func(ctx context.Context, c *client, _ []string) error { return s.list(ctx, c, "/devices") })}),
		s.withJSON(&cobra.Command{Use: "show DEVICE", Short: "One device, its keys too", Args: cobra.ExactArgs(1), RunE: s.show(devicePath)}),
		&cobra.Command{Use: "delete DEVICE", Short: "Delete a device and its modules", Args: cobra.ExactArgs(1), RunE: s.with(func(ctx context.Context, c *client, args []string) error {
			return c.ask(ctx, http.MethodDelete, devicePath(args), nil, nil)
		})},
		&cobra.Command{Use: "connection-string DEVICE", Short: "What the device is configured with", Args: cobra.ExactArgs(1), RunE: s.with(func(ctx context.Context, c *client, args []string) error {
			var found json.RawMessage
			if err := c.ask(ctx, http.MethodGet, devicePath(args), nil, &found); err != nil {
				return err
			}
			return s.credential(c, found)
		})})
	return c
}

// credential prints the connection string of an identity, or with --json the whole identity.
func (s *shared) credential(c *client, raw json.RawMessage) error {
	if s.json {
		return s.print(raw)
	}
	var i identity
	if err := json.Unmarshal(raw, &i); err != nil {
		return err
	}
	_, err := fmt.Fprintln(s.out, i.connectionString(c.host))
	return err
}

func (s *shared) moduleCommand() *cobra.Command {
	c := &cobra.Command{Use: "module", Short: "List, show and delete module identities"}
	modulePath := func(args []string) string { return path("devices", args[0], "modules", args[1]) }
	c.AddCommand(
		s.withJSON(&cobra.Command{Use: "list DEVICE", Short: "The modules of a device", Args: cobra.ExactArgs(1), RunE: s.with(func(ctx context.Context, c *client, args []string) error {
			return s.list(ctx, c, path("devices", args[0], "modules"))
		})}),
		s.withJSON(&cobra.Command{Use: "create DEVICE MODULE", Short: "Create a module identity and print its connection string", Args: cobra.ExactArgs(2), RunE: s.with(func(ctx context.Context, c *client, args []string) error {
			var made json.RawMessage
			if err := c.ask(ctx, http.MethodPut, modulePath(args), map[string]string{"deviceId": args[0], "moduleId": args[1]}, &made); err != nil {
				return err
			}
			return s.credential(c, made)
		})}),
		s.withJSON(&cobra.Command{Use: "show DEVICE MODULE", Short: "One module", Args: cobra.ExactArgs(2), RunE: s.show(modulePath)}),
		&cobra.Command{Use: "delete DEVICE MODULE", Short: "Delete a module identity", Args: cobra.ExactArgs(2), RunE: s.with(func(ctx context.Context, c *client, args []string) error {
			return c.ask(ctx, http.MethodDelete, modulePath(args), nil, nil)
		})})
	return c
}

func (s *shared) twinCommand() *cobra.Command {
	c := &cobra.Command{Use: "twin", Short: "Read and change twins"}
	second := func(args []string) string {
		if len(args) > 1 {
			return args[1]
		}
		return ""
	}
	var tags bool
	set := &cobra.Command{
		Use: "set DEVICE [MODULE] PATCH", Short: "Merge a JSON patch into the desired properties (- is standard input)", Args: cobra.RangeArgs(2, 3),
		RunE: s.with(func(ctx context.Context, c *client, args []string) error {
			module, text := "", []byte(args[len(args)-1])
			if len(args) == 3 {
				module = args[1]
			}
			if string(text) == "-" {
				var err error
				if text, err = io.ReadAll(io.LimitReader(s.stdin, 1<<20)); err != nil {
					return err
				}
			}
			if !json.Valid(text) {
				return usageError{errors.New("the patch is not JSON")}
			}
			body := map[string]any{"properties": map[string]json.RawMessage{"desired": text}}
			if tags {
				body = map[string]any{"tags": json.RawMessage(text)}
			}
			var raw json.RawMessage
			if err := c.ask(ctx, http.MethodPatch, twinPath(args[0], module), body, &raw); err != nil {
				return err
			}
			if s.json {
				return s.print(raw)
			}
			return nil
		}),
	}
	set.Flags().BoolVar(&tags, "tags", false, "change the tags instead")
	c.AddCommand(
		s.withJSON(&cobra.Command{Use: "get DEVICE [MODULE]", Short: "A twin with its metadata", Args: cobra.RangeArgs(1, 2), RunE: s.show(func(args []string) string { return twinPath(args[0], second(args)) })}),
		s.withJSON(set))
	return c
}

func (s *shared) methodCommand() *cobra.Command {
	c := &cobra.Command{Use: "method", Short: "Call direct methods"}
	var payload string
	var timeout, connect time.Duration
	call := &cobra.Command{
		Use: "call DEVICE [MODULE] NAME", Short: "Call a direct method and print its status and payload", Args: cobra.RangeArgs(2, 3),
		RunE: s.with(func(ctx context.Context, c *client, args []string) error {
			module := ""
			if len(args) == 3 {
				module = args[1]
			}
			if !json.Valid([]byte(payload)) {
				return usageError{errors.New("--payload is not JSON")}
			}
			body := map[string]any{
				"methodName": args[len(args)-1], "payload": json.RawMessage(payload),
				"responseTimeoutInSeconds": int(timeout.Seconds()), "connectTimeoutInSeconds": int(connect.Seconds()),
			}
			var raw json.RawMessage
			if err := c.ask(ctx, http.MethodPost, twinPath(args[0], module)+"/methods", body, &raw); err != nil {
				return err
			}
			return s.print(raw)
		}),
	}
	call.Flags().StringVar(&payload, "payload", "null", "JSON")
	call.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "for the answer, 5s to 300s")
	call.Flags().DurationVar(&connect, "connect-timeout", 0, "for the target to come online, up to 300s")
	c.AddCommand(s.withJSON(call))
	return c
}

func (s *shared) deployCommand() *cobra.Command {
	c := &cobra.Command{Use: "deploy", Short: "Deploy manifests"}
	c.AddCommand(&cobra.Command{
		Use: "apply DEVICE FILE", Short: "Set the modules of one device (FILE - is standard input)", Args: cobra.ExactArgs(2),
		RunE: s.with(func(ctx context.Context, c *client, args []string) error {
			in := s.stdin
			if args[1] != "-" {
				f, err := os.Open(args[1])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			raw, err := io.ReadAll(io.LimitReader(in, 4<<20))
			if err != nil {
				return err
			}
			return c.ask(ctx, http.MethodPost, path("devices", args[0], "applyConfigurationContent"), raw, nil)
		}),
	})
	return c
}

func (s *shared) eventsCommand() *cobra.Command {
	var device, module string
	var follow, all bool
	var since time.Duration
	var from uint64
	c := &cobra.Command{
		Use: "events", Short: "The telemetry log, oldest first", Args: cobra.NoArgs,
		RunE: s.with(func(ctx context.Context, c *client, _ []string) error {
			q := url.Values{"device": {device}, "module": {module}, "follow": {strconv.FormatBool(follow)}}
			if since > 0 {
				q.Set("since", time.Now().Add(-since).UTC().Format(time.RFC3339Nano))
			}
			if from > 0 {
				q.Set("from", strconv.FormatUint(from, 10))
			}
			if all {
				q.Set("kind", "all")
			}
			body, err := c.open(ctx, http.MethodGet, "/events?"+q.Encode(), nil)
			if err != nil {
				return err
			}
			defer body.Close()
			if s.json {
				_, err = io.Copy(s.out, body)
			} else {
				err = s.printEvents(body)
			}
			if ctx.Err() != nil {
				return nil
			}
			return err
		}),
	}
	c.Flags().StringVar(&device, "device", "", "only this device")
	c.Flags().StringVar(&module, "module", "", "only this module")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new events until interrupted")
	c.Flags().BoolVar(&all, "all", false, "the hub's own events too: connections, twin changes, life cycle")
	c.Flags().DurationVar(&since, "since", 0, "only events younger than this, such as 1h")
	c.Flags().Uint64Var(&from, "from", 0, "first offset within the shard")
	return s.withJSON(c)
}

// printEvents prints a line per event for people.
func (s *shared) printEvents(r io.Reader) error {
	dec := json.NewDecoder(r)
	for {
		var e struct {
			Enqueued   time.Time         `json:"enqueuedTime"`
			Device     string            `json:"deviceId"`
			Module     string            `json:"moduleId"`
			Kind       string            `json:"kind"`
			Properties map[string]string `json:"properties"`
			Body       json.RawMessage   `json:"body"`
			BodyBase64 string            `json:"bodyBase64"`
		}
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		body := string(e.Body)
		if body == "" {
			body = e.BodyBase64
		}
		who := strings.TrimSuffix(e.Device+"/"+e.Module, "/")
		if _, err := fmt.Fprintf(s.out, "%s %s %s %s\n", e.Enqueued.Local().Format("15:04:05.000"), who, e.Kind, body); err != nil {
			return err
		}
	}
}
