package supervisor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// walker lets anything happen to a device: deployments, operators, crashes, images that are not there, a full disk, the end of the agent at
// any step, and of the device.
type walker struct {
	*device
	rng    *rand.Rand
	wanted map[string]string // module: the last word of its program, or "" for one that is to be stopped
	held   map[string]bool   // by an operator; a module that is not in it may be either
	story  []string
}

// TestWhateverHappensWhatIsDeployedRunsInTheEnd compares the device with the last deployment and the last word of the operator.
func TestWhateverHappensWhatIsDeployedRunsInTheEnd(t *testing.T) {
	t.Parallel()
	for seed := range uint64(25) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			live(t, func(_ *testing.T, d *device) {
				w := &walker{device: d, rng: rand.New(rand.NewPCG(seed, 3)), wanted: map[string]string{}, held: map[string]bool{}}
				for step := range 60 {
					w.step(step)
					w.single()
				}
				w.settle()
			})
		})
	}
}

func (w *walker) tell(format string, args ...any) {
	w.story = append(w.story, fmt.Sprintf(format, args...))
}

func (w *walker) name() string { return []string{"a", "b", "c"}[w.rng.IntN(3)] }

func (w *walker) step(n int) {
	switch w.rng.IntN(14) {
	case 0, 1:
		w.redeploy(n)
	case 2, 3, 4:
		w.operate(w.name())
	case 5:
		for _, i := range w.fake.Instances() {
			if i.ID() == w.name() {
				w.tell("%s is killed", i.ID())
				_ = i.Kill()
			}
		}
	case 6:
		w.trouble(w.name())
	case 7:
		w.heal()
	case 8:
		at := []string{"put " + recordPrefix + w.name(), "spec " + w.name(), "open " + w.name(), "signal " + w.name() + " terminated", "fetch x"}[w.rng.IntN(5)]
		w.tell("the agent will end at %q", at)
		w.cutAt(at)
	case 9:
		w.tell("the agent ends and another begins")
		w.restart()
	case 10:
		if w.rng.IntN(3) == 0 {
			w.tell("the power fails")
			w.reboot()
		}
	default:
		d := time.Duration(w.rng.Int64N(int64(90 * time.Second)))
		w.tell("%v pass", d)
		pass(d)
	}
	synctest.Wait()
}

func (w *walker) redeploy(n int) {
	modules := map[string]string{}
	clear(w.wanted)
	clear(w.held)
	for _, name := range []string{"a", "b", "c"} {
		if w.rng.IntN(4) == 0 {
			continue
		}
		word := fmt.Sprint("#", n/20, w.rng.IntN(2)) // the same as before, now and then
		args := [][]string{{"run", word}, {"slow", "3s", word}, {"deaf", word}}[w.rng.IntN(3)]
		more := ""
		w.wanted[name] = word
		if w.rng.IntN(5) == 0 {
			w.wanted[name], more = "", `,"status":"stopped"`
		}
		modules[name] = wanted([]string{"x", "y"}[w.rng.IntN(2)], []string{"always", "on-failure"}[w.rng.IntN(2)], more, "", args...)
	}
	w.tell("deploy %v", modules)
	w.deploy(modules)
}

// operate has an operator do something, whose connection may break.
func (w *walker) operate(name string) {
	ctx, stop := context.WithTimeout(context.Background(), time.Duration(w.rng.Int64N(int64(20*time.Second))))
	defer stop()
	verb := w.rng.IntN(5)
	err := []func() error{
		func() error { return w.s.Start(ctx, name) }, func() error { return w.s.Stop(ctx, name) }, func() error { return w.s.Restart(ctx, name) },
		func() error { return w.s.Pause(name) }, func() error { return w.s.Resume(name) },
	}[verb]()
	w.tell("operator: %s %s: %v", []string{"start", "stop", "restart", "pause", "resume"}[verb], name, err)
	if verb < 3 {
		if delete(w.held, name); err == nil {
			w.held[name] = verb == 1
		}
	}
}

func (w *walker) trouble(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch w.rng.IntN(3) {
	case 0:
		w.tell("image x cannot be fetched")
		w.absent["x"] = errors.New("no route to host")
	case 1:
		w.tell("the door of %s does not open", name)
		w.broken[name] = errors.New("address in use")
	case 2:
		w.tell("records cannot be written")
		w.docs.failing(recordPrefix)
	}
}

func (w *walker) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tell("everything is well again")
	clear(w.absent)
	clear(w.broken)
	w.docs.failing("")
}

// single fails when something runs that no deployment named.
func (w *walker) single() {
	for _, i := range w.fake.Instances() {
		if !slices.Contains([]string{"a", "b", "c"}, i.ID()) {
			w.t.Errorf("%s: instance %s", strings.Join(w.story, "\n"), i.ID())
		}
	}
}

// settle lets everything be well for an hour, and then compares.
func (w *walker) settle() {
	w.heal()
	w.cutAt("")
	w.restart()
	for _, i := range w.fake.Instances() {
		_ = i.Resume()
	}
	pass(time.Hour)
	complain := func(format string, args ...any) {
		w.t.Errorf("%s\n\t%s", strings.Join(w.story, "\n"), fmt.Sprintf(format, args...))
	}
	runs := map[string]*sandbox.Spec{}
	for _, i := range w.fake.Instances() {
		if i.Pid() != 0 {
			spec := i.Spec()
			runs[i.ID()] = &spec
		}
	}
	for _, m := range w.s.Modules() {
		name, spec := m.Wanted.Name, runs[m.Wanted.Name]
		delete(runs, name)
		word, deployed := w.wanted[name]
		held, known := w.held[name]
		switch {
		case !deployed:
			complain("module %s is not deployed and known", name)
		case known && held != m.Held && word != "":
			complain("module %s: held is %v, want %v", name, m.Held, held)
		case word == "" || m.Held:
			if spec != nil || m.Status == deployment.RuntimeRunning {
				complain("module %s: got status %s, running %v; want it down", name, m.Status, spec != nil)
			}
		case spec == nil || m.Status != deployment.RuntimeRunning:
			complain("module %s: got status %s (%s), running %v; want it up", name, m.Status, m.Why, spec != nil)
		case spec.Args[len(spec.Args)-1] != word:
			complain("module %s: got the program of %s, want that of %s", name, spec.Args[len(spec.Args)-1], word)
		}
	}
	for name := range runs {
		complain("module %s runs and nobody knows it", name)
	}
	for name := range w.wanted {
		if !slices.ContainsFunc(w.s.Modules(), func(m Module) bool { return m.Wanted.Name == name }) {
			complain("module %s is deployed and not known", name)
		}
	}
}
