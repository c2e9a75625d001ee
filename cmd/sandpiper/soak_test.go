package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/control"
)

// killRounds is how often the agent is killed: a few times in a test, two hundred times by `make soak SOAK=agent`.
func killRounds(t *testing.T) int {
	t.Helper()
	rounds, err := strconv.Atoi(os.Getenv("SANDPIPER_KILLS"))
	if err != nil || rounds < 1 {
		return 5
	}
	return rounds
}

// A counter prints on both streams, and ends with a code of its own when it is told to. A mortal says how it is going to end and does.
const (
	counterScript = `trap 'exit %d' USR1; n=0; while n=$((n+1)); do echo "line $n"; echo "line $n" >&2; sleep 0.05; done`
	mortalScript  = `c=$(awk 'BEGIN{srand('$(date +%s%N | cut -c 10-18)'); print 1+int(rand()*99)}'); echo "code $c"; sleep 0.$c; exit $c`
)

func TestTenModulesOutliveAnAgentThatIsKilledAtRandomTimes(t *testing.T) {
	t.Parallel()
	rounds := killRounds(t)
	d := startDevice(t)
	images := map[string]string{}
	var counters []string
	for i := range 10 {
		name := fmt.Sprintf("counter%d", i)
		counters = append(counters, name)
		images[name] = d.bundle(name, fmt.Sprintf(counterScript, 20+i))
	}
	images["mortal"] = d.bundle("mortal", mortalScript)
	want := strings.Replace(manifest(map[string]string{}, images), `"mortal":{"restartPolicy":"always"`, `"mortal":{"restartPolicy":"never"`, 1)
	if !strings.Contains(want, `"never"`) {
		t.Fatal("the manifest has no module that may end")
	}
	if _, err := d.client().Apply(t.Context(), []byte(want)); err != nil {
		t.Fatal(err)
	}
	d.until("all modules run", func() (bool, string) {
		st, err := d.client().Status(t.Context())
		running := 0
		for _, m := range st.Modules {
			if m.Pid != 0 && m.Name != "mortal" {
				running++
			}
		}
		return running == len(counters), fmt.Sprint(st.Modules, err)
	})
	before := d.lives(counters)
	seen := map[string]int{} // stream of a module → its newest line
	exits, agent := 0, 0
	for round := range rounds {
		agent = d.agentPid(agent)
		wait := time.Duration(rand.Int64N(int64(2 * time.Second)))
		if round%4 == 0 {
			wait /= 20 // while it is still starting
		}
		<-time.After(wait)
		if err := syscall.Kill(agent, syscall.SIGKILL); err != nil {
			t.Fatalf("round %d: kill agent: %v", round, err)
		}
		if round%5 == 4 || round == rounds-1 {
			exits += d.mortalEnded()
			for _, name := range counters {
				d.counts(name, seen)
			}
		}
	}
	if after := d.lives(counters); after != before {
		t.Errorf("after %d kills: got\n%s\nwant the instances of before\n%s", rounds, after, before)
	}
	if exits == 0 {
		t.Error("no module ended meanwhile, so exit codes were not tested")
	}

	st, err := d.client().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(d.agentPid(agent), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, m := range st.Modules {
		if m.Name != "mortal" {
			if err := syscall.Kill(m.Pid, syscall.SIGUSR1); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.until("each end of a counter is known", func() (bool, string) {
		st, err := d.client().Status(t.Context())
		for i, name := range counters {
			if m := find(st.Modules, name); m.Restarts == 0 || m.ExitCode != 20+i {
				return false, fmt.Sprintf("%+v, %v", m, err)
			}
		}
		return true, ""
	})
	t.Logf("%d kills of the agent, %d ends of a module, %d lines counted on each of 20 streams: no module restarted, no exit code wrong, no line lost or doubled",
		rounds, exits+len(counters), seen["counter0 stdout"])
}

// agentPid is the newest agent, ready or not; it waits until it is another one than before.
func (d *device) agentPid(before int) (pid int) {
	d.t.Helper()
	path := fmt.Sprintf("/proc/%d/task/%[1]d/children", d.warden.Process.Pid)
	d.until("the warden starts an agent", func() (bool, string) {
		raw, err := os.ReadFile(path)
		if err != nil {
			return false, err.Error()
		}
		for text := range strings.FieldsSeq(string(raw)) {
			args, _ := os.ReadFile("/proc/" + text + "/cmdline")
			if strings.Contains(string(args), "\x00--child\x00") {
				pid, err = strconv.Atoi(text)
				return err == nil && pid != before, fmt.Sprint(err)
			}
		}
		return false, string(raw)
	})
	return pid
}

// mortalEnded checks the newest exit code of the module that ends, and starts it again. It returns 1 if it had ended.
func (d *device) mortalEnded() int {
	d.t.Helper()
	var m control.Module
	d.until("the module that ends has ended", func() (bool, string) {
		st, err := d.client().Status(d.t.Context())
		m = find(st.Modules, "mortal")
		return err == nil && m.Pid == 0 && !m.Exited.IsZero(), fmt.Sprint(m, err)
	})
	log := d.logs("mortal")
	_, last, ok := strings.Cut(log[strings.LastIndex(strings.TrimSpace(log), "\n")+1:], " code ")
	if code, err := strconv.Atoi(strings.TrimSpace(last)); !ok || err != nil || code != m.ExitCode {
		d.t.Errorf("got exit code %d, want what the module said: %.300q", m.ExitCode, log)
	}
	if err := d.client().Verb(d.t.Context(), "start", "mortal"); err != nil {
		d.t.Errorf("start: %v", err)
	}
	return 1
}

// counts reads on in the log of a counter: each stream has every number once.
func (d *device) counts(name string, seen map[string]int) {
	d.t.Helper()
	var out strings.Builder
	d.until("the log is there", func() (bool, string) {
		out.Reset()
		err := d.client().Logs(d.t.Context(), name, control.LogRequest{Tail: -1, JSON: true}, &out)
		return err == nil && strings.Contains(out.String(), `"line":`), fmt.Sprint(err)
	})
	first := map[string]int{}
	last := map[string]int{}
	for text := range strings.Lines(out.String()) {
		var line struct{ Stream, Line string }
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			d.t.Fatalf("%s: %v in %q", name, err, text)
		}
		n, err := strconv.Atoi(strings.TrimPrefix(line.Line, "line "))
		if err != nil {
			continue // the oldest or the newest may be half of one
		}
		if first[line.Stream] == 0 {
			first[line.Stream], last[line.Stream] = n, n-1
		}
		if n != last[line.Stream]+1 {
			d.t.Errorf("%s %s: got line %d after line %d", name, line.Stream, n, last[line.Stream])
		}
		last[line.Stream] = n
	}
	for _, stream := range []string{"stdout", "stderr"} {
		key := name + " " + stream
		if first[stream] == 0 || first[stream] > seen[key]+1 {
			d.t.Errorf("%s: got line %d as the oldest, want at most %d: what is between was never seen", key, first[stream], seen[key]+1)
		}
		seen[key] = last[stream]
	}
}

// lives tells which instance of each module runs, since when, and how often it was started again.
func (d *device) lives(names []string) string {
	d.t.Helper()
	var out strings.Builder
	d.until("the agent answers", func() (bool, string) {
		out.Reset()
		st, err := d.client().Status(d.t.Context())
		for _, name := range names {
			m := find(st.Modules, name)
			fmt.Fprintf(&out, "%s %d since %s, %d restarts\n", name, m.Pid, m.Started.Format(time.RFC3339Nano), m.Restarts)
			if m.Pid == 0 && err == nil {
				err = fmt.Errorf("%s does not run: %s", name, m.Why)
			}
		}
		return err == nil, fmt.Sprint(err)
	})
	return out.String()
}

func find(list []control.Module, name string) control.Module {
	for _, m := range list {
		if m.Name == name {
			return m
		}
	}
	return control.Module{}
}
