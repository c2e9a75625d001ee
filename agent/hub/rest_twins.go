package hub

import (
	"io"
	"net/http"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

func (h *Hub) view(id iothub.ID, t wholeTwin) twinView {
	return t.service.view(id, t.identity, t.reported, h.connection(id))
}

func (h *Hub) getTwin(w http.ResponseWriter, r *http.Request, id iothub.ID) error {
	whole, err := h.twins.get(r.Context(), id)
	if err != nil {
		return err
	}
	return reply(w, whole.service.etag(), h.view(id, whole))
}

func (h *Hub) patchTwin(w http.ResponseWriter, r *http.Request, id iothub.ID) error {
	return h.changeTwin(w, r, id, false)
}

func (h *Hub) putTwin(w http.ResponseWriter, r *http.Request, id iothub.ID) error {
	return h.changeTwin(w, r, id, true)
}

func (h *Hub) changeTwin(w http.ResponseWriter, r *http.Request, id iothub.ID, replace bool) error {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	change, err := parseTwinChange(raw, replace)
	if err != nil {
		return h.invalid(err.Error())
	}
	whole, err := h.twins.update(r.Context(), id, ifMatch(r), change)
	if err != nil {
		return err
	}
	return reply(w, whole.service.etag(), h.view(id, whole))
}

// callMethod calls a direct method and answers when the device has.
func (h *Hub) callMethod(w http.ResponseWriter, r *http.Request, id iothub.ID) error {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	req, err := iothub.ParseMethodRequest(raw)
	if err != nil {
		return h.invalid(err.Error())
	}
	result, err := h.call(r.Context(), id, req)
	if err != nil {
		return err
	}
	return reply(w, "", result)
}
