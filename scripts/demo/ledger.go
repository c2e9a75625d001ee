package main

import (
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"sync"
)

// ledger counts what the hub's own event log holds, by the message ids that the modules gave.
type ledger struct {
	mu    sync.Mutex
	seen  map[string]map[int]int    // module → message number → how often
	phase map[string]map[string]int // module → phase property → messages
	last  map[string]int            // module → its highest message number

	all      int // messages, duplicates included
	disorder int // messages that came first behind a later one of their module
}

func newLedger() *ledger {
	return &ledger{seen: map[string]map[int]int{}, phase: map[string]map[string]int{}, last: map[string]int{}}
}

// add takes one event; events of others (no id of ours) are none of its business.
func (l *ledger) add(module, id, phase string) {
	text, ok := strings.CutPrefix(id, module+"-")
	n, err := strconv.Atoi(text)
	if !ok || err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen[module] == nil {
		l.seen[module], l.phase[module] = map[int]int{}, map[string]int{}
	}
	if l.seen[module][n] == 0 && n < l.last[module] {
		l.disorder++
	}
	l.all, l.last[module] = l.all+1, max(n, l.last[module])
	l.seen[module][n]++
	l.phase[module][phase]++
}

// total is how many messages arrived, duplicates included.
func (l *ledger) total() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}

// count tells how many different messages of a module arrived, and in how many it said phase.
func (l *ledger) count(module, phase string) (messages, inPhase int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.seen[module]), l.phase[module][phase]
}

// balance compares what modules say they sent (and the edge acknowledged) with what the hub holds, and prints a row each.
func (l *ledger) balance(w io.Writer, sent map[string]int) (total, received, duplicated, lost int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := make([]string, 0, len(sent))
	for name := range sent {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		var got, twice int
		var missing []string
		for n := 1; n <= sent[name]; n++ {
			times := l.seen[name][n]
			if times == 0 {
				missing = append(missing, strconv.Itoa(n))
				continue
			}
			got++
			twice += times - 1
		}
		fmt.Fprintf(w, "  %-12s sent=%d received=%d duplicated=%d lost=%d\n", name, sent[name], got, twice, len(missing))
		if len(missing) > 0 {
			fmt.Fprintf(w, "  %-12s missing: %s\n", "", strings.Join(missing[:min(len(missing), 20)], " "))
		}
		total, received, duplicated, lost = total+sent[name], received+got, duplicated+twice, lost+len(missing)
	}
	return total, received, duplicated, lost
}
