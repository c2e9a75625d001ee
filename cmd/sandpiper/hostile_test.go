package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/control"
)

// hostilities are modules that mean harm, and what an operator is told about each.
var hostilities = map[string]struct{ does, told string }{
	"forks":  {`f() { f | f & }; f; while :; do sleep 1; done`, "limit of processes"},
	"memory": {`exec "$SANDPIPER" hostile memory`, "limit of memory"},
	"files":  {`exec "$SANDPIPER" hostile files`, "as many files open as it may"},
	"flood":  {`exec "$SANDPIPER" hostile flood`, "prints more than its log takes"},
	"disk":   {`exec "$SANDPIPER" hostile disk`, "filled what it may write to"},
	"deaf":   {`trap '' TERM INT HUP QUIT USR1; while :; do sleep 0.1; done`, "does not end when it is asked to"},
	"links":  {`exec "$SANDPIPER" hostile links`, "tries to mount"},
	"crowd":  {`exec "$SANDPIPER" hostile crowd`, "as many connections"},
	"body":   {`exec "$SANDPIPER" hostile body`, "a body larger than is taken"},
}

// What must hold while they run.
const (
	mostGrowth = 8 << 20 // bytes of PSS, warden and agent together
	steadyRate = 20      // messages a second of the module beside them
)

// TestHostileModulesAreContained has all of them at once for a moment; `make soak SOAK=hostile` gives each its time alone and
// measures the module beside it.
func TestHostileModulesAreContained(t *testing.T) {
	t.Parallel()
	alone := os.Getenv("SANDPIPER_HOSTILE") // "each", or the name of one
	d := startDevice(t)
	images := map[string]string{"steady": d.bundle("steady", `exec "$SANDPIPER" hostile steady`)}
	routes := map[string]string{"kept": `FROM /messages/modules/steady/outputs/out INTO BrokeredEndpoint("/modules/later/inputs/in")`}
	apply := func(names ...string) {
		t.Helper()
		now := map[string]string{"steady": images["steady"]}
		for _, name := range names {
			if images[name] == "" {
				images[name] = d.bundle(name, hostilities[name].does)
			}
			now[name] = images[name]
		}
		want := manifest(routes, now)
		for _, name := range names {
			want = withSettings(t, want, name, "always", map[string]any{"stopTimeout": "1s", "data": "8MiB", "limits": map[string]any{"memory": "64MiB", "cpu": 0.5, "pids": 64}})
		}
		if _, err := d.client().Apply(t.Context(), []byte(want)); err != nil {
			t.Fatal(err)
		}
		d.untilRunning("steady")
	}
	apply()
	d.until("the steady module sends", func() (bool, string) { log := d.logs("steady"); return strings.Contains(log, "sent 20\n"), log })
	before := d.births()
	if alone == "" {
		var names []string
		for name := range hostilities {
			names = append(names, name)
		}
		d.attack(apply, 2*time.Second, 0.5, names...)
	}
	for name := range hostilities {
		if alone == "each" || alone == name {
			d.attack(apply, 15*time.Second, 0.9, name)
		}
	}
	if after := d.births(); after != before {
		t.Errorf("the module beside them: got %s, want %s", after, before)
	}
}

// attack lets hostile modules run for a while and checks that they are contained. The module beside them is held against itself in quiet:
// windows before them and after them, as the machine has other work too, and the median of all.
func (d *device) attack(apply func(...string), window time.Duration, least float64, names ...string) {
	d.t.Helper()
	measured := least > 0.5
	quiet, calm := d.pss(), []float64{1}
	if measured {
		quiet, calm = d.watch(window)
	}
	apply(names...)
	loud, rates := d.watch(window)
	for _, name := range names {
		if told := hostilities[name].told; told != hostilities["deaf"].told {
			d.named(name, told)
		}
	}
	for name, said := range d.said(names) {
		if strings.Contains(said, "ESCAPED") {
			d.t.Errorf("%s: %s", name, said)
		}
	}
	apply()
	d.until("they are gone", func() (bool, string) {
		st, err := d.client().Status(d.t.Context())
		return err == nil && len(st.Modules) == 1, fmt.Sprint(st.Modules, err)
	})
	if measured {
		_, after := d.watch(window)
		calm = append(calm, after...)
	}
	if grown := int64(loud) - int64(quiet); grown > mostGrowth && !raced { // which has memory of its own for all of the agent's
		d.t.Errorf("%s: warden and agent grew by %d kB, want at most %d", strings.Join(names, ", "), grown>>10, mostGrowth>>10)
	} else {
		d.t.Logf("%s: warden and agent %+d kB (%d)", strings.Join(names, ", "), grown>>10, loud>>10)
	}
	kept := middle(rates) / middle(calm)
	d.t.Logf("%s: the module beside kept %.0f %% of its rate (%.1f a second of %.1f, medians of %d and %d windows)",
		strings.Join(names, ", "), 100*kept, steadyRate*middle(rates), steadyRate*middle(calm), len(rates), len(calm))
	if kept < least {
		d.t.Errorf("%s: the module beside kept %.0f %% of its rate, want %.0f %%; windows %.2f beside it, %.2f in quiet", strings.Join(names, ", "), 100*kept, 100*least, rates, calm)
	}
	if strings.Contains(strings.Join(names, " "), "deaf") && !strings.Contains(d.log.String(), "module=deaf bound=\""+hostilities["deaf"].told) {
		d.t.Error("deaf: the log does not name it")
	}
}

// middle is the median.
func middle(v []float64) float64 {
	sorted := slices.Sorted(slices.Values(v))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// named waits until an offender is named in the log and in the status.
func (d *device) named(name, told string) {
	d.t.Helper()
	d.until(name+" is named", func() (bool, string) {
		st, err := d.client().Status(d.t.Context())
		problems := strings.Join(st.Problems, "\n")
		inLog := strings.Contains(d.log.String(), "module="+name+" bound=") || strings.Contains(d.log.String(), "lines are dropped\" module="+name+" ")
		return err == nil && inLog && strings.Contains(problems, "module "+name+" ") && strings.Contains(problems, told), fmt.Sprintf("log: %v; problems: %s, %v", inLog, problems, err)
	})
}

func (d *device) said(names []string) map[string]string {
	all := map[string]string{}
	for _, name := range names {
		if name != "flood" {
			all[name] = d.logs(name)
		}
	}
	return all
}

// part is one of the windows that the time of a watch is cut into.
const part = time.Second

// watch returns the most memory of warden and agent in a while, and for each second of it the share of its messages that the steady
// module sent.
func (d *device) watch(window time.Duration) (pss uint64, rates []float64) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), window)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	begin := time.Now()
	for {
		select {
		case <-tick.C:
			pss = max(pss, d.pss())
			continue
		case <-ctx.Done():
		}
		break
	}
	type sent struct {
		at time.Time
		n  int
	}
	var all []sent
	var out strings.Builder
	if err := d.client().Logs(d.t.Context(), "steady", control.LogRequest{Tail: -1, JSON: true, Since: begin}, &out); err != nil {
		d.t.Fatal(err)
	}
	for text := range strings.Lines(out.String()) {
		var line struct {
			Time time.Time
			Line string
		}
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			d.t.Fatal(err)
		}
		if number, ok := strings.CutPrefix(line.Line, "sent "); ok {
			n, err := strconv.Atoi(number)
			if err != nil {
				d.t.Fatal(err)
			}
			all = append(all, sent{line.Time, n})
		}
	}
	for from := begin; from.Before(begin.Add(window - part/2)); from = from.Add(part) {
		// What was sent until a moment, between the two lines around it.
		until := func(at time.Time) float64 {
			for n := 1; n < len(all); n++ {
				if last, next := all[n-1], all[n]; !at.After(next.at) {
					share := min(1, max(0, at.Sub(last.at).Seconds()/max(next.at.Sub(last.at).Seconds(), 1e-3)))
					return float64(last.n) + share*float64(next.n-last.n)
				}
			}
			if len(all) == 0 {
				return 0
			}
			return float64(all[len(all)-1].n)
		}
		first, last := from, from.Add(part)
		if len(all) > 1 { // the first line and the last one are not quite at the ends
			if first.Before(all[0].at) {
				first = all[0].at
			}
			if last.After(all[len(all)-1].at) && last.Sub(all[len(all)-1].at) < part/2 {
				last = all[len(all)-1].at
			}
		}
		if took := last.Sub(first).Seconds(); took > part.Seconds()/4 {
			rates = append(rates, (until(last)-until(first))/took/steadyRate)
		}
	}
	if len(all) < 2 || len(rates) == 0 {
		d.t.Errorf("the module beside sent nothing in %s", window)
		return pss, []float64{0}
	}
	return pss, rates
}

// pss is the memory of warden and agent, shared pages by their share, in bytes.
func (d *device) pss() (sum uint64) {
	d.t.Helper()
	st, err := d.client().Status(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	for _, pid := range []int{st.Pid, d.warden.Process.Pid} {
		raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
		if err != nil {
			d.t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(raw), "\nPss:")
		kilo, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
		if err != nil {
			d.t.Fatal(err)
		}
		sum += kilo << 10
	}
	return sum
}
