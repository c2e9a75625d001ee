package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

const (
	producers = 3
	documents = 3
)

// sinks of every record: one is read at once, the other lags.
var sinks = []string{"prompt", "lagging"}

// Ledger is what the store promised. Every producer numbers its records from 1, and is promised them in order.
type Ledger struct {
	Stored    [producers]uint64            // the newest record that is stored
	Delivered map[string][producers]uint64 // sink: the newest record that was delivered, and acknowledged or about to be
	Put       [documents]uint64            // the version of each document that is stored
	Asked     [documents]uint64            // the newest version that was asked to be stored
}

// Line takes in what the workload says:
//
//	A p n        record n of producer p is stored
//	D sink p n   records up to n of producer p are delivered to a sink
//	W d n        version n of document d is about to be stored
//	P d n        it is stored
//	working      it has opened the store
//	E text       something went wrong
func (l *Ledger) Line(line string) error {
	if l.Delivered == nil {
		l.Delivered = map[string][producers]uint64{}
	}
	var who, n uint64
	var sink string
	form, target := "", []any{&who, &n}
	switch line, _, _ := strings.Cut(line, " "); line {
	case "A", "W", "P":
		form = line + " %d %d"
	case "D":
		form, target = "D %s %d %d", []any{&sink, &who, &n}
	case "working":
		return nil
	}
	if form != "" {
		if _, err := fmt.Sscanf(line, form, target...); err == nil && who < producers {
			switch line[0] {
			case 'A':
				l.Stored[who] = max(l.Stored[who], n)
			case 'W':
				l.Asked[who] = max(l.Asked[who], n)
			case 'P':
				l.Put[who] = max(l.Put[who], n)
			case 'D':
				at := l.Delivered[sink]
				at[who] = max(at[who], n)
				l.Delivered[sink] = at
			}
			return nil
		}
	}
	return fmt.Errorf("the workload said %q", line)
}

// Read takes in lines until the reader ends. A last line without its end was cut off.
func (l *Ledger) Read(r io.Reader) error {
	text := bufio.NewReader(r)
	for {
		line, err := text.ReadString('\n')
		if err != nil {
			return nil //nolint:nilerr // the end
		}
		if err := l.Line(strings.TrimSuffix(line, "\n")); err != nil {
			return err
		}
	}
}

// Copy returns a ledger that goes on by itself.
func (l *Ledger) Copy() Ledger {
	c := *l
	c.Delivered = maps.Clone(l.Delivered)
	return c
}

// Print writes the lines that make this ledger.
func (l *Ledger) Print(w io.Writer) {
	for p, n := range l.Stored {
		fmt.Fprintln(w, "A", p, n)
	}
	for _, sink := range slices.Sorted(maps.Keys(l.Delivered)) {
		for p, n := range l.Delivered[sink] {
			fmt.Fprintln(w, "D", sink, p, n)
		}
	}
	for d := range l.Put {
		fmt.Fprintln(w, "W", d, l.Asked[d])
		fmt.Fprintln(w, "P", d, l.Put[d])
	}
}
