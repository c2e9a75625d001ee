package deployment

import (
	"slices"
	"sort"
)

// State is what [Plan] has to know of a module that is here.
type State uint8

// The states of a module that is here.
const (
	Idle State = iota // installed, its program does not run
	Live              // its program runs, or is about to be started again
)

// Running is a module that is here.
type Running struct {
	Name  string
	Hash  string // [Module.Hash] of what was installed
	Order uint32
	State State
}

// Verb is what a step does.
type Verb uint8

// The verbs, in the order in which a plan uses them.
const (
	Fetch  Verb = iota // have the image here, verified
	Stop               // end the program
	Remove             // forget the module or, when it is created again, what was installed of it
	Create             // install: identity, image, directories
	Start              // run the program
)

// String is the verb in lower case.
func (v Verb) String() string {
	return [...]string{"fetch", "stop", "remove", "create", "start"}[v]
}

// Step is one thing to do.
type Step struct {
	Verb   Verb
	Module string
	Why    string // for people: "new", "changed", "no longer wanted", …
}

// String is the step on one line.
func (s Step) String() string { return s.Verb.String() + " " + s.Module + " (" + s.Why + ")" }

// reasons of steps.
const (
	isNew       = "new"
	isChanged   = "changed"
	isGone      = "no longer wanted"
	isStopped   = "wanted stopped"
	isNotThere  = "not running"
	isInstalled = "installed"
)

// Plan lists the steps from what is here to what is wanted: everything is fetched before anything is stopped; stops go against the
// startup order, starts follow it. A module whose hash is the same is left alone but for its status. Equal input gives an equal plan.
func Plan(running []Running, wanted []Module) []Step {
	here := make(map[string]Running, len(running))
	for _, r := range running {
		here[r.Name] = r
	}
	want := make(map[string]Module, len(wanted))
	for _, m := range wanted {
		want[m.Name] = m
	}
	var steps []Step
	ordered := slices.Clone(wanted)
	sort.Slice(ordered, func(i, j int) bool {
		a, b := &ordered[i], &ordered[j]
		return a.Order < b.Order || a.Order == b.Order && a.Name < b.Name
	})
	for _, m := range ordered {
		if why := fresh(here, m); why != "" {
			steps = append(steps, Step{Fetch, m.Name, why})
		}
	}
	leaving := slices.Clone(running)
	sort.Slice(leaving, func(i, j int) bool {
		a, b := &leaving[i], &leaving[j]
		return a.Order > b.Order || a.Order == b.Order && a.Name < b.Name
	})
	var removals []Step
	for _, r := range leaving {
		m, keep := want[r.Name]
		why := ""
		switch {
		case !keep:
			why = isGone
		case m.Hash() != r.Hash:
			why = isChanged
		case m.Status == StatusStopped:
			if r.State == Live {
				steps = append(steps, Step{Stop, r.Name, isStopped})
			}
			continue
		default:
			continue
		}
		if r.State == Live {
			steps = append(steps, Step{Stop, r.Name, why})
		}
		removals = append(removals, Step{Remove, r.Name, why})
	}
	steps = append(steps, removals...)
	for _, m := range ordered {
		why := fresh(here, m)
		if why != "" {
			steps = append(steps, Step{Create, m.Name, why})
		}
		if m.Status != StatusRunning {
			continue
		}
		if why != "" {
			steps = append(steps, Step{Start, m.Name, isInstalled})
		} else if here[m.Name].State != Live {
			steps = append(steps, Step{Start, m.Name, isNotThere})
		}
	}
	return steps
}

// fresh says why m has to be installed, "" if what is here will do.
func fresh(here map[string]Running, m Module) string {
	r, ok := here[m.Name]
	switch {
	case !ok:
		return isNew
	case r.Hash != m.Hash():
		return isChanged
	}
	return ""
}
