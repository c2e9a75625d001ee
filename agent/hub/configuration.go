package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/hub/state"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
)

// configuration is what applyConfigurationContent sets on one device: the desired sections of modules, by module id. A zero
// twinChange belongs to a module that must exist and keeps its section.
type configuration map[string]twinChange

// parseConfiguration reads a deployment manifest as far as the hub has to understand it.
func parseConfiguration(body []byte) (configuration, error) {
	manifest, err := deployment.ParseManifest(body)
	if err != nil {
		return nil, err
	}
	c := configuration{}
	for _, part := range []struct {
		sections map[string]json.RawMessage
		replace  bool
	}{{manifest.Twins, true}, {manifest.Layers, false}} {
		for module, section := range part.sections {
			desired, err := parseSection(section, part.replace)
			if err == nil {
				err = validSection(twin.Desired, desired)
			}
			if err != nil {
				return nil, fmt.Errorf("modulesContent.%s: %w", module, err)
			}
			c[module] = twinChange{replace: part.replace, desired: desired}
		}
	}
	// The modules that $edgeAgent is to run need an identity, with or without a section of their own.
	run, _ := c[iothub.EdgeAgent].desired["modules"].(map[string]any)
	for module := range run {
		if _, named := c[module]; !named {
			c[module] = twinChange{}
		}
	}
	for module := range c {
		if _, err := iothub.NewID("device", module); err != nil || module == "" {
			return nil, fmt.Errorf("modulesContent: %q is not a module id", module)
		}
	}
	if len(c) > maxModules {
		return nil, fmt.Errorf("modulesContent has %d modules, %d are allowed", len(c), maxModules)
	}
	return c, nil
}

// applyConfiguration answers POST /devices/{device}/applyConfigurationContent.
func (h *Hub) applyConfiguration(w http.ResponseWriter, r *http.Request, id iothub.ID) error {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	c, err := parseConfiguration(raw)
	if err != nil {
		return h.invalid(err.Error())
	}
	if err := h.apply(r.Context(), id.Device, c); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// apply sets the sections of one device at once and creates the modules that are missing: a device that hears of a module finds its
// identity and its twin, and a deployment is never applied by half.
func (h *Hub) apply(ctx context.Context, device string, c configuration) error {
	modules := slices.Sorted(maps.Keys(c))
	err := retry(ctx, func() error {
		if _, err := h.docs.identity(ctx, iothub.ID{Device: device}); err != nil {
			return err
		}
		var puts []state.Put
		created := 0
		for _, module := range modules {
			more, isNew, err := h.applyModule(ctx, iothub.ID{Device: device, Module: module}, c[module])
			if err != nil {
				return err
			}
			if isNew {
				created++
			}
			puts = append(puts, more...)
		}
		if err := h.registry.room(ctx, device, created); err != nil {
			return err
		}
		if len(puts) == 0 {
			return nil
		}
		_, err := h.state.Docs().Change(ctx, puts...)
		return err
	})
	if err != nil {
		return asInvalid(err, h.docs)
	}
	for _, module := range modules {
		if change := c[module]; change.desired != nil {
			h.events.note(ctx, state.EventTwin, iothub.ID{Device: device, Module: module}, "", "updateTwin", change.event())
		}
	}
	return nil
}

// applyModule is what must be written for one module; isNew says that it is created by it.
func (h *Hub) applyModule(ctx context.Context, id iothub.ID, change twinChange) (puts []state.Put, isNew bool, err error) {
	identity, err := load[identityDoc](ctx, h.docs, id, state.KindIdentity)
	if err != nil {
		return nil, false, err
	}
	if !identity.ok {
		puts, err := h.registry.managedModule(ctx, id, change.desired)
		return puts, true, err
	}
	if change.desired == nil {
		return nil, false, nil
	}
	service, err := load[serviceTwin](ctx, h.docs, id, state.KindService)
	if err != nil {
		return nil, false, err
	}
	if !service.ok {
		return nil, false, h.docs.notFound(id)
	}
	next, err := h.twins.apply(service.doc, change)
	if err != nil {
		return nil, false, err
	}
	p, err := put(id, state.KindService, service.revision, next)
	return []state.Put{p}, false, err
}
