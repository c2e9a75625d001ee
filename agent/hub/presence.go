package hub

import (
	"context"

	"github.com/sandpiper-edge/sandpiper/agent/hub/state"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// enter makes c the connection of its identity.
func (h *Hub) enter(c *client) {
	h.mu.Lock()
	h.clients[c.id] = c
	h.seen[c.id] = connection{up: true, since: h.cfg.Now()}
	h.mu.Unlock()
	h.cfg.Logger.Info("connected", "identity", c.id.String(), "by", c.auth, "resumed", c.resumed)
	h.announce()
	h.events.note(context.Background(), state.EventConnection, c.id, c.generation, "deviceConnected", object{})
}

// leave forgets c unless a newer connection has its place.
func (h *Hub) leave(c *client) {
	h.mu.Lock()
	current := h.clients[c.id] == c
	if current {
		delete(h.clients, c.id)
		h.seen[c.id] = connection{since: h.cfg.Now()}
	}
	h.mu.Unlock()
	if current {
		h.cfg.Logger.Info("disconnected", "identity", c.id.String())
		h.events.note(context.Background(), state.EventConnection, c.id, c.generation, "deviceDisconnected", object{})
	}
}

// announce wakes callers that wait for somebody to call.
func (h *Hub) announce() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.arrived)
	h.arrived = make(chan struct{})
}

// drop ends the connection of an identity whose registration changed, and those of its modules.
func (h *Hub) drop(id iothub.ID, why error) {
	h.mu.Lock()
	var list []*client
	for have, c := range h.clients {
		if have == id || !id.IsModule() && have.Device == id.Device {
			list = append(list, c)
		}
	}
	h.mu.Unlock()
	for _, c := range list {
		c.close(why)
	}
}
