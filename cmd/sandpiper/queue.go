package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
)

func (s *shared) queueCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "The lanes of the durable queue", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := s.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if s.json {
				return console.JSON(s.out, status.Queues)
			}
			return printQueues(s.out, status.Queues, time.Now())
		},
	}
	return console.Group("queue", "What is stored and waits to be delivered", s.withJSON(list), s.queuePeekCommand(), s.queueExportCommand(), s.queueImportCommand(), s.queuePurgeCommand())
}

// queueNames completes the name of a queue from the running agent.
func (s *shared) queueNames(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	status, err := s.client().Status(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, q := range status.Queues {
		if !slices.Contains(names, q.Sink) {
			names = append(names, q.Sink)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (s *shared) queuePeekCommand() *cobra.Command {
	var n int
	c := &cobra.Command{
		Use: "peek QUEUE", Short: "The first messages of a queue; nothing is taken", Args: cobra.ExactArgs(1), ValidArgsFunction: s.queueNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if n < 1 || n > control.MaxPeek {
				return console.Usagef("--count %d: want 1 to %d", n, control.MaxPeek)
			}
			items, err := s.client().Peek(cmd.Context(), args[0], n)
			if err != nil {
				return err
			}
			if s.json {
				return console.JSON(s.out, items)
			}
			var rows [][]string
			for _, it := range items {
				rows = append(rows, []string{fmt.Sprint(it.Seq), fmt.Sprint(it.Priority), ago(it.Stored, time.Now()), it.From, it.Output, fmt.Sprint(it.Bytes), glance(it)})
			}
			return console.Table(s.out, "SEQ PRIORITY STORED FROM OUTPUT BYTES BODY", rows)
		},
	}
	c.Flags().IntVarP(&n, "count", "n", 10, fmt.Sprintf("how many, 1 to %d", control.MaxPeek))
	return s.withJSON(c)
}

// glance is the beginning of a body, as text that a terminal can show.
func glance(it control.QueueItem) string {
	if it.Fault != "" {
		return it.Fault
	}
	const room = 48
	text := strconv.QuoteToASCII(string(it.Body[:min(len(it.Body), room)]))
	if len(it.Body) > room {
		text += "…"
	}
	return text
}

func (s *shared) queueExportCommand() *cobra.Command {
	var sinks []string
	c := &cobra.Command{
		Use: "export FILE", Short: "Write what waits for the hub to a signed file, for a USB stick", Args: cobra.ExactArgs(1),
		Long: "Write what waits for the hub to a file that the device signs. Nothing leaves the queue by that: take the file to the hub, import it there\n" +
			"with `sandpiper-hub import`, and bring the receipt back to `sandpiper queue import`.",
		RunE: func(cmd *cobra.Command, args []string) error {
			done := console.Working(s.err, "writing "+args[0])
			n, err := s.export(cmd.Context(), args[0], sinks)
			done()
			if err != nil {
				return fmt.Errorf("export to %s: %w", args[0], err)
			}
			left, err := s.notIn(cmd.Context(), sinks, n)
			if err != nil {
				return err
			}
			if s.json {
				return console.JSON(s.out, map[string]any{"file": args[0], "messages": n, "left": left})
			}
			fmt.Fprintf(s.out, "%s: %d messages; they stay queued until the hub's receipt is here\n", args[0], n)
			if left > 0 {
				fmt.Fprintf(s.out, "%d more did not fit or came meanwhile: export again once the receipt is here\n", left)
			}
			return nil
		},
	}
	c.Flags().StringArrayVar(&sinks, "queue", nil, "only this queue; may be repeated")
	_ = c.RegisterFlagCompletionFunc("queue", func(cmd *cobra.Command, _ []string, part string) ([]string, cobra.ShellCompDirective) {
		return s.queueNames(cmd, nil, part)
	}) // the flag was made on the line before
	return s.withJSON(c)
}

// notIn is how many messages wait for the hub beside the n of an export.
func (s *shared) notIn(ctx context.Context, sinks []string, n uint64) (int64, error) {
	status, err := s.client().Status(ctx)
	left := -int64(n)
	for _, q := range status.Queues {
		if slices.Contains(sinks, q.Sink) || len(sinks) == 0 && strings.HasPrefix(q.Sink, "upstream/") {
			left += q.Messages
		}
	}
	return max(0, left), err
}

// export writes beside the file and renames, so that a file that is there is a whole one.
func (s *shared) export(ctx context.Context, path string, sinks []string) (n uint64, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".export-")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the error is said already
		}
	}()
	if n, err = s.client().Export(ctx, sinks, f); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return n, err
	}
	return n, os.Rename(f.Name(), path)
}

func (s *shared) queueImportCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "import RECEIPT", Short: "Acknowledge what the hub took from an export, by its receipt", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := readAtMost(args[0], message.MaxReceipt)
			if err != nil {
				return err
			}
			done := console.Working(s.err, "acknowledging")
			freed, err := s.client().Receipt(cmd.Context(), raw)
			done()
			if err != nil {
				return err
			}
			if s.json {
				return console.JSON(s.out, freed)
			}
			_, err = fmt.Fprintf(s.out, "%d messages acknowledged\n", freed.Messages)
			return err
		},
	}
	return s.withJSON(c)
}

// readAtMost reads a file of at most limit bytes.
func readAtMost(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = fmt.Errorf("%s: more than %d bytes is no receipt", path, limit)
	}
	return raw, err
}

func (s *shared) queuePurgeCommand() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "purge QUEUE", Short: "Drop everything that waits in a queue, for good", Args: cobra.ExactArgs(1), ValidArgsFunction: s.queueNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes {
				return console.Usagef("purge drops every message of %s for good; say --yes if that is meant", args[0])
			}
			done := console.Working(s.err, "purging")
			gone, err := s.client().Purge(cmd.Context(), args[0])
			done()
			if err != nil {
				return err
			}
			if s.json {
				return console.JSON(s.out, gone)
			}
			_, err = fmt.Fprintf(s.out, "%d messages dropped\n", gone.Messages)
			return err
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "it is meant")
	return s.withJSON(c)
}

func printQueues(w io.Writer, queues []control.Queue, now time.Time) error {
	if len(queues) == 0 {
		_, err := fmt.Fprintln(w, "no queues")
		return err
	}
	var rows [][]string
	for _, q := range queues {
		rows = append(rows, []string{
			q.Sink, fmt.Sprint(q.Priority), fmt.Sprint(q.Messages), console.Size(q.Bytes), ago(q.Oldest, now), fmt.Sprint(q.Expired), fmt.Sprint(q.Dropped),
		})
	}
	return console.Table(w, "SINK PRIORITY MESSAGES BYTES OLDEST EXPIRED DROPPED", rows)
}
