package hub

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/sandpiper-edge/sandpiper/agent/hub/state"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// errChanged ends the connections of an identity that was changed or deleted: it may come back if it still may.
var errChanged = errors.New("the identity was changed at the hub")

// putIdentity creates, or with If-Match updates, a device or a module.
func (h *Hub) putIdentity(w http.ResponseWriter, r *http.Request, id iothub.ID) error {
	var body identityBody
	if err := h.read(r, &body); err != nil {
		return err
	}
	if body.DeviceID != "" && body.DeviceID != id.Device || body.ModuleID != "" && body.ModuleID != id.Module {
		return h.invalid("the body names another identity than the path")
	}
	match := ifMatch(r)
	var doc identityDoc
	var err error
	if match == "" {
		doc, err = h.registry.create(r.Context(), id, body)
	} else {
		before, lerr := load[identityDoc](r.Context(), h.docs, id, state.KindIdentity)
		if lerr != nil {
			return lerr
		}
		if doc, err = h.registry.update(r.Context(), id, match, body); err == nil && (doc.Auth != before.doc.Auth || doc.Status != before.doc.Status) {
			h.drop(id, errChanged)
		}
	}
	if err != nil {
		return err
	}
	return reply(w, doc.ETag, doc.body(id, h.connection(id)))
}

func (h *Hub) getIdentity(w http.ResponseWriter, r *http.Request, id iothub.ID) error {
	found, err := h.docs.identity(r.Context(), id)
	if err != nil {
		return err
	}
	return reply(w, found.doc.ETag, found.doc.body(id, h.connection(id)))
}

func (h *Hub) deleteIdentity(w http.ResponseWriter, r *http.Request, id iothub.ID) error {
	if err := h.registry.remove(r.Context(), id, ifMatch(r)); err != nil {
		return err
	}
	h.drop(id, errChanged)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// maxList is how many identities a listing holds at most, as the service has it.
const maxList = 1000

func (h *Hub) listDevices(w http.ResponseWriter, r *http.Request, _ iothub.ID) error {
	top := maxList
	if text := r.URL.Query().Get("top"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxList {
			return h.invalid("top must be 1 to 1000")
		}
		top = n
	}
	list := []identityBody{}
	err := h.eachDevice(r.Context(), func(id iothub.ID, doc identityDoc) {
		list = append(list, doc.body(id, h.connection(id)))
	})
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b identityBody) int { return cmp.Compare(a.DeviceID, b.DeviceID) })
	return reply(w, "", list[:min(top, len(list))])
}

// eachDevice calls fn with every device.
func (h *Hub) eachDevice(ctx context.Context, fn func(iothub.ID, identityDoc)) error {
	docs := h.state.Docs()
	for shard := range docs.Shards() {
		var broken error
		err := docs.All(ctx, shard, state.KindIdentity, func(doc state.Doc) {
			found, err := decode[identityDoc](doc)
			if err != nil {
				broken = errors.Join(broken, err)
				return
			}
			fn(iothub.ID{Device: doc.Key.Device}, found.doc)
		})
		if err = errors.Join(err, broken); err != nil {
			return err
		}
	}
	return nil
}

func (h *Hub) listModules(w http.ResponseWriter, r *http.Request, id iothub.ID) error {
	if _, err := h.docs.identity(r.Context(), id); err != nil {
		return err
	}
	docs, err := h.state.Docs().Modules(r.Context(), id.Device, state.KindIdentity)
	if err != nil {
		return err
	}
	list := []identityBody{}
	for _, doc := range docs {
		found, err := decode[identityDoc](doc)
		if err != nil {
			return err
		}
		if found.ok {
			module := iothub.ID{Device: id.Device, Module: doc.Key.Name}
			list = append(list, found.doc.body(module, h.connection(module)))
		}
	}
	slices.SortFunc(list, func(a, b identityBody) int { return cmp.Compare(a.ModuleID, b.ModuleID) })
	return reply(w, "", list)
}

func (h *Hub) statistics(w http.ResponseWriter, r *http.Request, _ iothub.ID) error {
	var stats struct {
		Total    int `json:"totalDeviceCount"`
		Enabled  int `json:"enabledDeviceCount"`
		Disabled int `json:"disabledDeviceCount"`
	}
	err := h.eachDevice(r.Context(), func(_ iothub.ID, doc identityDoc) {
		stats.Total++
		if doc.Status == statusDisabled {
			stats.Disabled++
		} else {
			stats.Enabled++
		}
	})
	if err != nil {
		return err
	}
	return reply(w, "", stats)
}
