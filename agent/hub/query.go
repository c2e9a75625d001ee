package hub

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/hub/state"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Bounds of a query.
const (
	maxQuery    = 4096 // bytes of text
	defaultPage = 100  // twins in an answer, when the asker does not say
	maxPage     = 1000
)

// parseQuery reads the two queries that need no index: SELECT * FROM devices, and … devices.modules. modules tells which.
func parseQuery(text string) (modules bool, err error) {
	if len(text) > maxQuery {
		return false, fmt.Errorf("query has %d bytes, %d are allowed", len(text), maxQuery)
	}
	words := strings.Fields(text)
	want := []string{"SELECT", "*", "FROM"}
	for i, w := range want {
		if i >= len(words) || !strings.EqualFold(words[i], w) {
			return false, refuseWord(words, i, w)
		}
	}
	switch {
	case len(words) < 4:
		return false, refuseWord(words, 3, "devices or devices.modules")
	case len(words) > 4:
		return false, refuseWord(words, 4, "the end")
	case strings.EqualFold(words[3], "devices"):
		return false, nil
	case strings.EqualFold(words[3], "devices.modules"):
		return true, nil
	}
	return false, refuseWord(words, 3, "devices or devices.modules")
}

// refuseWord names what is not understood.
func refuseWord(words []string, i int, want string) error {
	if i >= len(words) {
		return fmt.Errorf("query ends where %s should be", want)
	}
	return fmt.Errorf("query: %.64q where %s should be; this hub answers SELECT * FROM devices and SELECT * FROM devices.modules", words[i], want)
}

// page is the part of a listing that is asked for: size identities after one.
type page struct {
	size  int
	after iothub.ID // zero: from the first
}

// parsePage reads the headers of a query.
func parsePage(size, continuation string) (page, error) {
	p := page{size: defaultPage}
	if size != "" {
		n, err := strconv.Atoi(size)
		if err != nil || n < 1 || n > maxPage {
			return page{}, fmt.Errorf("x-ms-max-item-count must be 1 to %d", maxPage)
		}
		p.size = n
	}
	if continuation == "" {
		return p, nil
	}
	if len(continuation) > maxQuery {
		return page{}, errors.New("x-ms-continuation is not one of ours")
	}
	text, err := base64.RawURLEncoding.DecodeString(continuation)
	if err == nil {
		p.after, err = iothub.ParseID(string(text))
	}
	if err != nil {
		return page{}, errors.New("x-ms-continuation is not one of ours")
	}
	return p, nil
}

// continuation is the header value that goes on after id.
func continuation(id iothub.ID) string {
	return base64.RawURLEncoding.EncodeToString([]byte(id.String()))
}

func compareIDs(a, b iothub.ID) int {
	return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Module, b.Module))
}

// query answers a page of twins in the order of their ids. A page costs a walk over all names.
func (h *Hub) query(w http.ResponseWriter, r *http.Request, _ iothub.ID) error {
	var body struct {
		Query string `json:"query"`
	}
	if err := h.read(r, &body); err != nil {
		return err
	}
	modules, err := parseQuery(body.Query)
	if err != nil {
		return h.invalid(err.Error())
	}
	p, err := parsePage(r.Header.Get("x-ms-max-item-count"), r.Header.Get("x-ms-continuation"))
	if err != nil {
		return h.invalid(err.Error())
	}
	var ids []iothub.ID
	for shard := range h.state.Docs().Shards() {
		err := h.state.Docs().Keys(r.Context(), shard, state.KindIdentity, modules, func(key state.Key) {
			if id := (iothub.ID{Device: key.Device, Module: key.Name}); p.after.IsZero() || compareIDs(id, p.after) > 0 {
				ids = append(ids, id)
			}
		})
		if err != nil {
			return err
		}
	}
	slices.SortFunc(ids, compareIDs)
	if len(ids) > p.size {
		ids = ids[:p.size]
		w.Header().Set("x-ms-continuation", continuation(ids[p.size-1]))
	}
	list := make([]twinView, 0, len(ids))
	for _, id := range ids {
		whole, err := h.twins.get(r.Context(), id)
		if no, gone := errors.AsType[*iothub.Error](err); gone && no.Status() == http.StatusNotFound {
			continue // deleted meanwhile
		}
		if err != nil {
			return err
		}
		list = append(list, h.view(id, whole))
	}
	w.Header().Set("x-ms-item-type", "Twin")
	return reply(w, "", list)
}
