package console

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"
)

// JSON writes v indented, as every --json does.
func JSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// Table writes rows in aligned columns under a heading, whose words are those of the columns.
func Table(w io.Writer, heading string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.ReplaceAll(heading, " ", "\t"))
	for _, row := range rows {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

// Size prints bytes for people.
func Size(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// IsTerminal tells whether somebody watches what is written to w.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Working shows that a verb is under way, once it has taken longer than a second and somebody watches the terminal.
// The returned func ends it and wipes the line.
func Working(w io.Writer, what string) (done func()) {
	return Progress(w, func() string { return what })
}

// Progress is [Working] of a verb of which it can be told how far it is; what is asked each second.
func Progress(w io.Writer, what func() string) (done func()) {
	if !IsTerminal(w) {
		return func() {}
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		start := time.Now()
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				text := []rune(fmt.Sprintf("%s … %ds", what(), int(time.Since(start).Seconds())))
				if width, _, err := term.GetSize(int(w.(*os.File).Fd())); err == nil { // it is a terminal: a file
					text = text[:min(len(text), max(width-1, 0))] // what is wrapped cannot be wiped
				}
				fmt.Fprintf(w, "\r%s\033[K", string(text))
			case <-stop:
				fmt.Fprint(w, "\r\033[K")
				return
			}
		}
	}()
	return func() { close(stop); <-ended }
}
