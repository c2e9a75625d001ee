package hub

import (
	"io"
	"net/http"
	"regexp"
	"strings"

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
	return reply(w, http.StatusOK, whole.service.etag(), h.view(id, whole))
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
	return reply(w, http.StatusOK, whole.service.etag(), h.view(id, whole))
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
	return reply(w, http.StatusOK, "", result)
}

// simpleQuery is the query language as far as it goes here: all twins, of devices or of modules.
var simpleQuery = regexp.MustCompile(`(?i)^\s*select\s+\*\s+from\s+(devices|devices\.modules)\s*$`)

// query answers the two queries that need no index; any other is refused with its text.
func (h *Hub) query(w http.ResponseWriter, r *http.Request, _ iothub.ID) error {
	var body struct {
		Query string `json:"query"`
	}
	if err := h.read(r, &body); err != nil {
		return err
	}
	m := simpleQuery.FindStringSubmatch(body.Query)
	if m == nil {
		return h.invalid("query " + body.Query + ": only SELECT * FROM devices and SELECT * FROM devices.modules are answered")
	}
	modules := strings.EqualFold(m[1], "devices.modules")
	var ids []iothub.ID
	if err := h.eachIdentity(r.Context(), func(id iothub.ID, _ identityDoc) {
		if id.IsModule() == modules {
			ids = append(ids, id)
		}
	}); err != nil {
		return err
	}
	list := []twinView{}
	for _, id := range ids {
		whole, err := h.twins.get(r.Context(), id)
		if err != nil {
			return err
		}
		list = append(list, h.view(id, whole))
	}
	w.Header().Set("x-ms-item-type", "Twin")
	return reply(w, http.StatusOK, "", list)
}
