package hub

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/hub/state"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
)

// applyConfiguration sets the modules of one device: identities that are missing are made, the desired sections that the content
// names are replaced, $edgeAgent's last, so that a device that hears of a module finds its identity and its twin.
func (h *Hub) applyConfiguration(w http.ResponseWriter, r *http.Request, id iothub.ID) error {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	manifest, err := deployment.ParseManifest(raw)
	if err != nil {
		return h.invalid(err.Error())
	}
	if _, err := h.docs.identity(r.Context(), id); err != nil {
		return err
	}
	changes := map[iothub.ID]twinChange{}
	for _, part := range []struct {
		sections map[string]json.RawMessage
		replace  bool
	}{{manifest.Twins, true}, {manifest.Layers, false}} {
		for module, section := range part.sections {
			target, err := iothub.NewID(id.Device, module)
			if err != nil {
				return h.invalid("modulesContent: " + err.Error())
			}
			change, err := sectionChange(section, part.replace)
			if err != nil {
				return h.invalid("modulesContent." + module + ": " + err.Error())
			}
			changes[target] = change
		}
	}
	targets := slices.Collect(maps.Keys(changes))
	if err := h.makeModules(r.Context(), id.Device, append(targets, h.namedModules(id, manifest)...)); err != nil {
		return err
	}
	slices.SortFunc(targets, func(a, b iothub.ID) int {
		if last := cmp.Compare(lateness(a), lateness(b)); last != 0 {
			return last
		}
		return cmp.Compare(a.Module, b.Module)
	})
	for _, target := range targets {
		if _, err := h.twins.update(r.Context(), target, "", changes[target]); err != nil {
			return err
		}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func lateness(id iothub.ID) int {
	if id.Module == iothub.EdgeAgent {
		return 1
	}
	return 0
}

func sectionChange(section json.RawMessage, replace bool) (twinChange, error) {
	desired, err := parseSection(section, replace)
	if err == nil {
		err = validSection(twin.Desired, desired)
	}
	return twinChange{replace: replace, desired: desired}, err
}

// namedModules are those that $edgeAgent's section asks for. A section this hub does not understand is the device's to judge.
func (h *Hub) namedModules(id iothub.ID, m deployment.Manifest) []iothub.ID {
	var section struct {
		Modules map[string]json.RawMessage `json:"modules"`
	}
	if err := json.Unmarshal(m.Twins[iothub.EdgeAgent], &section); err != nil {
		return nil
	}
	var list []iothub.ID
	for module := range section.Modules {
		if target, err := iothub.NewID(id.Device, module); err == nil {
			list = append(list, target)
		}
	}
	return list
}

// makeModules makes the identities that are missing.
func (h *Hub) makeModules(ctx context.Context, device string, ids []iothub.ID) error {
	seen := map[iothub.ID]bool{}
	for _, id := range ids {
		if seen[id] {
			continue
		}
		seen[id] = true
		err := retry(ctx, func() error {
			have, err := load[identityDoc](ctx, h.docs, id, state.KindIdentity)
			if err != nil || have.ok {
				return err
			}
			if err := h.registry.room(ctx, device, 1); err != nil {
				return err
			}
			puts, err := h.registry.managedModule(ctx, id, nil)
			if err != nil {
				return err
			}
			_, err = h.state.Docs().Change(ctx, puts...)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
