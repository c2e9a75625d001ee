// Command bench measures Sandpiper beside its peers, in turn in one run, and writes the medians and their ratio.
//
// Times on shared machines say little by themselves: read the ratio column. Each row of build/bench.json is one
// comparison; a peer that is not installed is a row with "peer missing", never silence.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/tabwriter"
)

// row is one comparison, as build/bench.json holds it.
type row struct {
	Name      string  `json:"name"`
	Unit      string  `json:"unit"`
	Better    string  `json:"better"` // lower or higher
	Ours      float64 `json:"ours"`
	Peer      string  `json:"peer"`
	PeerValue float64 `json:"peer_value"`
	Ratio     float64 `json:"ratio"` // ours / peer, of the medians
	Rounds    int     `json:"rounds"`
	Note      string  `json:"note"`
}

// contest measures one thing on both sides. Each func makes one round and returns its figure.
type contest struct {
	name, unit, better string
	peer               string
	note               string
	ours, theirs       func() (float64, error)
	missing            string // why the peer cannot take part; empty = it can
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		if err := serve(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench serve:", err)
			os.Exit(1)
		}
		return
	}
	only := flag.String("only", "", "part to run (wire); empty = all")
	out := flag.String("out", "bench.json", "file to write")
	rounds := flag.Int("rounds", 5, "rounds of each side")
	flag.Parse()
	if err := run(*only, *out, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(only, out string, rounds int) error {
	parts := map[string]func() ([]contest, error){"wire": wire}
	var names []string
	for name := range parts {
		if only == "" || strings.HasPrefix(only, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("no part %q; there is: wire", only)
	}
	sort.Strings(names)
	var rows []row
	for _, name := range names {
		contests, err := parts[name]()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, c := range contests {
			r, err := c.measure(rounds)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			rows = append(rows, r)
		}
	}
	if err := write(out, rows); err != nil {
		return err
	}
	return print(rows)
}

// measure takes one warm-up round of each side and then rounds in turn, so that a slow minute of the machine hits both.
func (c contest) measure(rounds int) (row, error) {
	r := row{Name: c.name, Unit: c.unit, Better: c.better, Peer: c.peer, Rounds: rounds, Note: c.note}
	if c.missing != "" {
		r.Note = "peer missing: " + c.missing
	}
	var ours, theirs []float64
	for i := range rounds + 1 {
		a, err := c.ours()
		if err != nil {
			return r, fmt.Errorf("ours: %w", err)
		}
		b := 0.0
		if c.missing == "" {
			if b, err = c.theirs(); err != nil {
				return r, fmt.Errorf("%s: %w", c.peer, err)
			}
		}
		fmt.Fprintf(os.Stderr, "%s round %d: ours %.0f, %s %.0f %s\n", c.name, i, a, c.peer, b, c.unit)
		if i > 0 {
			ours, theirs = append(ours, a), append(theirs, b)
		}
	}
	r.Ours, r.PeerValue = median(ours), median(theirs)
	if r.PeerValue != 0 {
		r.Ratio = r.Ours / r.PeerValue
	}
	return r, nil
}

func median(v []float64) float64 {
	sort.Float64s(v)
	n := len(v)
	if n%2 == 1 {
		return v[n/2]
	}
	return (v[n/2-1] + v[n/2]) / 2
}

func write(path string, rows []row) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o644)
}

func print(rows []row) error {
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tOURS\tPEER\tPEER VALUE\tUNIT\tRATIO\tBETTER\tNOTE")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%.0f\t%s\t%.0f\t%s\t%.2f\t%s\t%s\n", r.Name, r.Ours, r.Peer, r.PeerValue, r.Unit, r.Ratio, r.Better, r.Note)
	}
	return t.Flush()
}
