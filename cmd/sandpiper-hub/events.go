package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent/hub"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
)

func (s *shared) eventsCommand() *cobra.Command {
	var q hub.EventQuery
	var since string
	c := s.withJSON(&cobra.Command{
		Use:   "events",
		Short: "Print the telemetry log, oldest first",
		Long: "Print the telemetry log, oldest first; the events of one device come in order. With --json each event is one line: shard and\n" +
			"offset name it, systemProperties holds what its sender called it, as `$.mid`.",
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if since != "" {
				at, err := parseSince(since, time.Now())
				if err != nil {
					return console.Usage(err)
				}
				q.Since = at
			}
			q.Next = map[int]uint64{}
			for f := (console.Follower{Say: s.err, Who: "sandpiper-hub: the hub"}); ; {
				err := s.with(func(c *hub.Owner) error { return s.events(cmd.Context(), c, q) })
				if !q.Follow {
					return err
				}
				if err := f.Again(cmd.Context(), err); err != nil { // it has another address when it comes back, perhaps
					return err
				}
			}
		},
	})
	c.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on with new events until interrupted")
	c.Flags().StringVar(&q.Device, "device", "", "only of this device")
	c.Flags().StringVar(&q.Module, "module", "", "only of this module")
	c.Flags().StringVar(&since, "since", "", "only from this time on: how long ago, such as 1h, or RFC 3339")
	c.Flags().Uint64Var(&q.From, "from", 0, "only from this offset of each shard on")
	c.Flags().BoolVar(&q.All, "all", false, "the hub's own events too: connections, twin changes, life cycle")
	return c
}

// parseSince reads a time, or how long ago it was.
func parseSince(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("--since %q: neither how long ago, such as 1h, nor an RFC 3339 time", text)
	}
	return at, nil
}

func (s *shared) events(ctx context.Context, c *hub.Owner, q hub.EventQuery) error {
	enc := json.NewEncoder(s.out)
	enc.SetEscapeHTML(false)
	return c.Events(ctx, q, func(e hub.Event) error {
		var err error
		if s.json {
			err = enc.Encode(e)
		} else {
			_, err = fmt.Fprintln(s.out, eventLine(e))
		}
		q.Next[e.Shard] = e.Offset + 1
		return err
	})
}

// eventLine is an event for people.
func eventLine(e hub.Event) string {
	who := e.Device
	if e.Module != "" {
		who += "/" + e.Module
	}
	body := string(e.Body)
	if e.Body == nil {
		body = strconv.Itoa(len(e.BodyBase64)) + " bytes"
	}
	if e.Kind != "telemetry" {
		body = strings.TrimSpace(e.Kind+"  "+e.Properties["opType"]) + "  " + body
	}
	return e.Enqueued.Local().Format("2006-01-02 15:04:05.000") + "  " + who + "  " + body
}
