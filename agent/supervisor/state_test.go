package supervisor

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestTableOfStates(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	reached := map[state]bool{stopped: true}
	for from := range state(len(stateNames)) {
		for e := range event(len(eventNames)) {
			if to, ok := next[from][e]; ok {
				fmt.Fprintf(&out, "%-9s --%s--> %s\n", from, e, to)
				reached[to] = true
			}
		}
		if len(next[from]) == 0 {
			t.Errorf("nothing leads out of %s", from)
		}
	}
	if len(reached) != len(stateNames) {
		t.Errorf("only %v are reached", reached)
	}
	path := filepath.Join("testdata", "states.golden")
	if *update {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || out.String() != string(want) {
		t.Errorf("%s differs, %v: got\n%s", path, err, out.String())
	}
}
