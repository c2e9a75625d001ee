package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent/control"
)

func (s *shared) queueCommand() *cobra.Command {
	c := &cobra.Command{Use: "queue", Short: "What is stored and waits to be delivered"}
	list := &cobra.Command{
		Use: "list", Short: "The lanes of the durable queue", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := s.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if s.json {
				return printJSON(s.out, status.Queues)
			}
			return printQueues(s.out, status.Queues, time.Now())
		},
	}
	c.AddCommand(s.withJSON(list))
	return c
}

func printQueues(w io.Writer, queues []control.Queue, now time.Time) error {
	if len(queues) == 0 {
		_, err := fmt.Fprintln(w, "no queues")
		return err
	}
	var rows [][]string
	for _, q := range queues {
		rows = append(rows, []string{
			q.Sink, fmt.Sprint(q.Priority), fmt.Sprint(q.Messages), byteCount(q.Bytes), ago(q.Oldest, now), fmt.Sprint(q.Expired), fmt.Sprint(q.Dropped),
		})
	}
	return table(w, "SINK PRIORITY MESSAGES BYTES OLDEST EXPIRED DROPPED", rows)
}
