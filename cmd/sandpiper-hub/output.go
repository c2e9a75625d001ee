package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent/hub"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// group is a command that only holds others.
func (s *shared) group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		return usageError{fmt.Errorf("%s: a verb is missing", c.Name())}
	}}
	c.AddCommand(verbs...)
	return c
}

// with opens the client of the hub in --dir.
func (s *shared) with(do func(*hub.Owner) error) error {
	c, err := hub.OpenOwner(s.dir)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c)
}

// parseID reads a device, or a device and a module, as typed.
func parseID(args ...string) (iothub.ID, error) {
	module := ""
	if len(args) > 1 {
		module = args[1]
	}
	id, err := iothub.NewID(args[0], module)
	if err == nil && len(args) > 1 && module == "" {
		err = fmt.Errorf("module of %s is empty", id)
	}
	if err != nil {
		return iothub.ID{}, usageError{err}
	}
	return id, nil
}

// printJSON writes v indented, as every --json does.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// table writes rows in aligned columns under a heading.
func table(w io.Writer, heading string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.ReplaceAll(heading, " ", "\t"))
	for _, row := range rows {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

// working shows that a verb is under way, once it has taken longer than a second and somebody watches the terminal.
func (s *shared) working(what string) (done func()) {
	f, ok := s.err.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return func() {}
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		start, tick := time.Now(), time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				fmt.Fprintf(f, "\r%s … %ds", what, int(time.Since(start).Seconds()))
			case <-stop:
				fmt.Fprint(f, "\r\033[K")
				return
			}
		}
	}()
	return func() { close(stop); <-ended }
}
