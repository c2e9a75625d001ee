package identity

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// state is where an identity is in its life. It only goes forward: live → retired → gone → no document. A module that is
// wanted again starts anew, with another key and generation, from wherever the old one was.
type state string

const (
	live    state = "live"    // may authenticate here
	retired state = "retired" // removed; may still drain upstream
	gone    state = "gone"    // no key left; to be deleted on the hub
)

// moduleDoc is the durable form of a module's identity. Version 1.
type moduleDoc struct {
	V             int    `json:"v"`
	Hub           string `json:"hub"`
	Device        string `json:"device"`
	Generation    string `json:"generation"`
	Key           string `json:"key,omitempty"` // base64
	State         state  `json:"state"`
	OnHub         bool   `json:"onHub"`
	HubGeneration string `json:"hubGeneration,omitempty"` // what the hub calls it; for support only
}

// loadAll reads every identity. One that was made for another hub or device is not on this hub yet, and one that is gone there
// needs no deletion here.
func (r *Registry) loadAll() (map[string]entry, error) {
	keys, err := r.cfg.Docs.Keys(modulePrefix)
	if err != nil {
		return nil, fmt.Errorf("list identities: %w", err)
	}
	out := make(map[string]entry, len(keys))
	for _, key := range keys {
		var doc moduleDoc
		if _, err := load(r.cfg.Docs, key, &doc); err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(key, modulePrefix)
		e, err := doc.entry(iothub.ID{Device: r.cfg.Device, Module: name})
		if err != nil {
			return nil, fmt.Errorf("identity %s in the store: %w", name, err)
		}
		if elsewhere := doc.Hub != r.cfg.Hub || doc.Device != r.cfg.Device; elsewhere {
			e.OnHub, e.hubGeneration = false, ""
			if e.state == gone {
				continue
			}
		}
		out[name] = e
	}
	return out, nil
}

func (d moduleDoc) entry(id iothub.ID) (entry, error) {
	if d.V != 1 {
		return entry{}, fmt.Errorf("version %d is not known here; was it written by a newer agent?", d.V)
	}
	switch d.State {
	case live, retired, gone:
	default:
		return entry{}, fmt.Errorf("state %q is not known here", d.State)
	}
	e := entry{Module: Module{ID: id, Generation: d.Generation, OnHub: d.OnHub}, state: d.State, hubGeneration: d.HubGeneration}
	if d.State == gone {
		return e, nil
	}
	key, err := iothub.ParseKey(d.Key)
	if err != nil {
		return entry{}, err
	}
	e.Key = key
	return e, nil
}

// putLocked makes e durable and then visible. The caller holds change.
func (r *Registry) putLocked(ctx context.Context, name string, e entry) error {
	doc := moduleDoc{
		V: 1, Hub: r.cfg.Hub, Device: r.cfg.Device, Generation: e.Generation,
		State: e.state, OnHub: e.OnHub, HubGeneration: e.hubGeneration,
	}
	if len(e.Key) > 0 {
		doc.Key = e.Key.Text()
	}
	if err := save(ctx, r.cfg.Docs, modulePrefix+name, doc); err != nil {
		return err
	}
	next := maps.Clone(*r.entries.Load())
	next[name] = e
	r.entries.Store(&next)
	return nil
}

// deleteLocked forgets name. The caller holds change.
func (r *Registry) deleteLocked(ctx context.Context, name string) error {
	if err := r.cfg.Docs.Put(ctx, modulePrefix+name, nil); err != nil {
		return fmt.Errorf("forget identity %s: %w", name, err)
	}
	next := maps.Clone(*r.entries.Load())
	delete(next, name)
	r.entries.Store(&next)
	return nil
}
