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

// contest measures one thing on every side. Each func makes one round and returns its figure.
type contest struct {
	name, unit, better string
	ours               func() (float64, error)
	peers              []peer
}

// peer is one that ours is held against.
type peer struct {
	name, note string
	run        func() (float64, error)
	missing    string // why it cannot take part; empty = it can
}

// goal is the peer of a row that has none: the figure that the row is meant to reach.
const goal = "goal"

// against makes a row of a figure that has a goal instead of a peer.
func against(name, unit, better string, ours, want float64, note string) row {
	return row{Name: name, Unit: unit, Better: better, Ours: ours, Peer: goal, PeerValue: want, Ratio: ours / want, Rounds: 1, Note: note}
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		if err := serve(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench serve:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 3 && os.Args[1] == "flood" { // a module that asks too much
		if err := flood(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "bench flood:", err)
			os.Exit(1)
		}
		return
	}
	only := flag.String("only", "", "part to run (hal, image, image.delta, image.oci, sandbox, store, wire); empty = all")
	out := flag.String("out", "bench.json", "file to write")
	rounds := flag.Int("rounds", 5, "rounds of each side")
	scale := flag.Float64("scale", 1, "size of a run: 0.01 is a quick look, 1 what the figures are stated for")
	name := flag.String("row", "", "only rows whose name begins so, of the parts hal and sandbox; empty = all")
	flag.Parse()
	if err := run(*only, *out, size{rounds: *rounds, scale: *scale, row: *name}); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// size is how much of everything a run does.
type size struct {
	rounds int
	scale  float64
	row    string // beginning of the names of the rows that are wanted
}

// wants tells whether a row is to be measured.
func (s size) wants(name string) bool { return strings.HasPrefix(name, s.row) }

// of scales a count, but not below least.
func (s size) of(n, least int) int { return max(least, int(float64(n)*s.scale)) }

func run(only, out string, s size) error {
	if s.scale <= 0 || s.rounds < 1 {
		return fmt.Errorf("scale %g and %d rounds: want more than nothing", s.scale, s.rounds)
	}
	parts := map[string]func(size) ([]row, error){"wire": wire, "store": storeRows, "sandbox": sandboxRows, "hal": halRows, "image.delta": deltaRows, "image.oci": ociRows}
	var names []string
	for name := range parts {
		if strings.HasPrefix(only, name) || strings.HasPrefix(name, only) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("no part %q; there is: hal, image, image.delta, image.oci, sandbox, store, wire", only)
	}
	sort.Strings(names)
	var rows []row
	for _, name := range names {
		more, err := parts[name](s)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		rows = append(rows, more...)
	}
	if s.scale < 1 {
		for i := range rows {
			rows[i].Note = strings.TrimPrefix(rows[i].Note+fmt.Sprintf("; a run of %g of the full size", s.scale), "; ")
		}
	}
	if err := write(out, rows); err != nil {
		return err
	}
	return print(rows)
}

// measureAll measures contests one after another.
func measureAll(contests []contest, rounds int) ([]row, error) {
	var rows []row
	for _, c := range contests {
		more, err := c.measure(rounds)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// measure takes one warm-up round of each side and then rounds in turn, so that a slow minute of the machine hits all.
func (c contest) measure(rounds int) ([]row, error) {
	var ours []float64
	theirs := make([][]float64, len(c.peers))
	for i := range rounds + 1 {
		a, err := c.ours()
		if err != nil {
			return nil, fmt.Errorf("ours: %w", err)
		}
		fmt.Fprintf(os.Stderr, "%s round %d: ours %s", c.name, i, figure(a))
		if i > 0 {
			ours = append(ours, a)
		}
		for j, p := range c.peers {
			if p.missing != "" {
				continue
			}
			b, err := p.run()
			if err != nil {
				fmt.Fprintln(os.Stderr)
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
			fmt.Fprintf(os.Stderr, ", %s %s", p.name, figure(b))
			if i > 0 {
				theirs[j] = append(theirs[j], b)
			}
		}
		fmt.Fprintln(os.Stderr, "", c.unit)
	}
	var rows []row
	for j, p := range c.peers {
		r := row{Name: c.name, Unit: c.unit, Better: c.better, Ours: median(ours), Peer: p.name, Rounds: rounds, Note: p.note}
		if p.missing != "" {
			r.Note = "peer missing"
			fmt.Fprintf(os.Stderr, "%s: %s is missing: %s\n", c.name, p.name, p.missing)
		} else if r.PeerValue = median(theirs[j]); r.PeerValue != 0 {
			r.Ratio = r.Ours / r.PeerValue
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// figure prints a number with the digits that say something.
func figure(v float64) string {
	switch {
	case v >= 1000 || v == 0:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
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
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%.2f\t%s\t%s\n", r.Name, figure(r.Ours), r.Peer, figure(r.PeerValue), r.Unit, r.Ratio, r.Better, r.Note)
	}
	return t.Flush()
}
