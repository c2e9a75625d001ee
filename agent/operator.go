package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/supervisor"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
)

// logs is `sandpiper module logs`.
func (a *Agent) logs(ctx context.Context, module string, want control.LogRequest, w io.Writer) error {
	q := supervisor.LogQuery{Tail: want.Tail, Since: want.Since, Follow: want.Follow, JSON: want.JSON}
	if want.Stream != "" {
		stream, err := supervisor.ParseStream(want.Stream)
		if err != nil {
			return fmt.Errorf("%w: %w", err, control.ErrRefused)
		}
		q.Stream = &stream
	}
	if q.Marks = want.Place != nil; q.Marks && *want.Place != "" {
		place, err := supervisor.ParsePlace(*want.Place)
		if err != nil {
			return fmt.Errorf("%w: %w", err, control.ErrRefused)
		}
		q.After = &place
	}
	return notFound(module, a.supervisor.Logs(ctx, module, q, w))
}

// twin is `sandpiper twin get`.
func (a *Agent) twin(_ context.Context, module string) (control.Twin, error) {
	id, err := iothub.NewID(a.dev.id, module)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(a.twins.IDs(), id) {
		return nil, fmt.Errorf("module %q has no twin: %w", module, control.ErrNotFound)
	}
	return a.twins.Snapshot(id).Client(), nil
}

// deployment is `sandpiper deploy show`: the manifest in force, put together from the twins.
func (a *Agent) deployment(context.Context) (json.RawMessage, error) {
	content := map[string]map[string]json.RawMessage{}
	add := func(module string) {
		id := iothub.ID{Device: a.dev.id, Module: module}
		if now := a.twins.Snapshot(id); now.Known {
			content[module] = map[string]json.RawMessage{"properties.desired": now.Desired}
		}
	}
	add(deployment.EdgeAgent)
	if len(content) == 0 {
		return nil, fmt.Errorf("there is no deployment yet; apply one with `sandpiper deploy apply FILE`, or at the hub: %w", control.ErrNotFound)
	}
	add(deployment.EdgeHub)
	for _, m := range a.supervisor.Modules() {
		add(m.Wanted.Name)
	}
	return json.Marshal(map[string]any{"modulesContent": content})
}

// wanted is a manifest that was understood in all its parts.
type wanted struct {
	twins map[string]json.RawMessage // whole desired sections
	agent deployment.Agent
	notes []string
}

// understand reads a manifest completely, so that a fault anywhere in it changes nothing.
func (a *Agent) understand(manifest []byte) (wanted, error) {
	m, err := deployment.ParseManifest(manifest)
	if err != nil {
		return wanted{}, err
	}
	w := wanted{twins: maps.Clone(m.Twins), notes: m.Notes}
	if w.twins == nil {
		w.twins = map[string]json.RawMessage{}
	}
	for module, layer := range m.Layers {
		if w.twins[module], err = a.merge(module, w.twins[module], layer); err != nil {
			return wanted{}, fmt.Errorf("modulesContent.%s: %w", module, err)
		}
	}
	for module, section := range w.twins {
		body, err := twin.ParsePatch(section)
		if err == nil {
			err = twin.Validate(twin.Desired, body)
		}
		if err == nil {
			_, err = iothub.NewID(a.dev.id, module)
		}
		if err != nil {
			return wanted{}, fmt.Errorf("modulesContent.%s: %w", module, err)
		}
	}
	if raw := w.twins[deployment.EdgeAgent]; raw != nil {
		if w.agent, err = deployment.ParseAgent(raw); err != nil {
			return wanted{}, fmt.Errorf("modulesContent.%s: %w", deployment.EdgeAgent, err)
		}
		for _, m := range w.agent.Modules {
			if err := a.honourable(m); err != nil {
				return wanted{}, fmt.Errorf("modulesContent.%s: %w", deployment.EdgeAgent, err)
			}
		}
		w.notes = append(w.notes, w.agent.Notes...)
	}
	if raw := w.twins[deployment.EdgeHub]; raw != nil {
		hub, err := deployment.ParseHub(raw)
		if err != nil {
			return wanted{}, fmt.Errorf("modulesContent.%s: %w", deployment.EdgeHub, err)
		}
		w.notes = append(w.notes, hub.Notes...)
		w.notes = append(w.notes, withoutEffect(hub.Rules)...)
	}
	return w, nil
}

// merge lays a patch over a section of the manifest, or over what is in force when the manifest has none.
func (a *Agent) merge(module string, section, layer json.RawMessage) (json.RawMessage, error) {
	if section == nil {
		section = a.twins.Snapshot(iothub.ID{Device: a.dev.id, Module: module}).Desired
	}
	base := map[string]any{}
	var err error
	if len(section) > 0 {
		if base, err = twin.ParsePatch(section); err != nil {
			return nil, err
		}
	}
	patch, err := twin.ParsePatch(layer)
	if err != nil {
		return nil, err
	}
	return json.Marshal(twin.Merge(base, patch))
}

// plan is `sandpiper deploy plan`.
func (a *Agent) plan(_ context.Context, manifest []byte) (control.Plan, error) {
	w, err := a.understand(manifest)
	if err != nil {
		return control.Plan{}, err
	}
	return a.planOf(w), nil
}

func (a *Agent) planOf(w wanted) control.Plan {
	p := control.Plan{Steps: []control.Step{}, Notes: w.notes}
	if w.twins[deployment.EdgeAgent] == nil {
		return p
	}
	for _, s := range a.supervisor.Plan(w.agent) {
		p.Steps = append(p.Steps, control.Step{Verb: s.Verb.String(), Module: s.Module, Why: s.Why})
	}
	return p
}

// apply is `sandpiper deploy apply`, for a device without a hub. Routes and modules' own properties first, so that a module finds
// both when it starts.
func (a *Agent) apply(ctx context.Context, manifest []byte) (control.Plan, error) {
	if a.dev.hub != "" {
		return control.Plan{}, fmt.Errorf("this device gets its deployment from %s; apply it there: %w", a.dev.hub, control.ErrRefused)
	}
	w, err := a.understand(manifest)
	if err != nil {
		return control.Plan{}, err
	}
	p := a.planOf(w)
	before := a.twins.Snapshot(a.edgeAgent()).DesiredVersion
	names := slices.Sorted(maps.Keys(w.twins))
	sort.SliceStable(names, func(i, j int) bool { return lateness(names[i]) < lateness(names[j]) })
	for _, module := range names {
		if _, err := a.twins.SetDesired(ctx, iothub.ID{Device: a.dev.id, Module: module}, w.twins[module]); err != nil {
			return control.Plan{}, fmt.Errorf("store desired properties of %s: %w", module, err)
		}
	}
	p.Version = a.twins.Snapshot(a.edgeAgent()).DesiredVersion
	if p.Version == before {
		a.supervisor.Again() // what kept it from being applied may have been put right
	}
	return p, nil
}

func lateness(module string) int {
	if module == deployment.EdgeAgent {
		return 1
	}
	return 0
}
