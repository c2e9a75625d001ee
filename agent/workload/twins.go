package workload

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
)

// maxPatch is well above the 32 KiB of a section, for white space and escapes.
const maxPatch = 256 << 10

// headerVersion carries the version of the reported properties after a patch.
const headerVersion = "Sandpiper-Version"

func (k *socket) getTwin(w http.ResponseWriter, r *http.Request) {
	snapshot := k.cfg.Twins.Snapshot(k.caller.ID)
	if snapshot.Lost { // empty would be taken for the truth
		fail(w, http.StatusServiceUnavailable, "the twin was lost by the disk and is not here yet; ask again when the hub has been reached")
		return
	}
	answerIn(w, r, http.StatusOK, snapshot.Client())
}

func (k *socket) patchTwin(w http.ResponseWriter, r *http.Request) {
	k.withDocument(w, r, maxPatch, func(patch []byte) {
		version, err := k.cfg.Twins.PatchReported(r.Context(), k.caller.ID, patch)
		var limit *twin.LimitError
		switch {
		case errors.As(err, &limit):
			fail(w, http.StatusBadRequest, "%v", limit)
		case err != nil:
			fail(w, http.StatusServiceUnavailable, "reported properties were not stored: %v", err)
		default:
			w.Header().Set(headerVersion, strconv.FormatInt(version, 10))
			w.WriteHeader(http.StatusNoContent)
		}
	})
}

// wake tells one stream of desired properties that there may be something new.
type wake struct {
	id iothub.ID
	up chan struct{} // capacity 1: several changes are one reason to look
}

// desiredChanged wakes the streams of that identity. It is called by the twins, so it must not wait.
func (s *Server) desiredChanged(change twin.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.wakes {
		if w.id != change.ID {
			continue
		}
		select {
		case w.up <- struct{}{}:
		default:
		}
	}
}

func (s *Server) watch(id iothub.ID) (*wake, func()) {
	w := &wake{id: id, up: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wakes[w] = struct{}{}
	return w, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.wakes, w)
	}
}

// getDesired streams desired properties.
func (k *socket) getDesired(w http.ResponseWriter, r *http.Request) {
	version, since := int64(0), r.URL.Query().Get("since")
	if since != "" {
		n, err := strconv.ParseInt(since, 10, 64)
		if err != nil || n < 1 {
			fail(w, http.StatusBadRequest, "since is %.32q, want a version that was seen", since)
			return
		}
		version = n
	}
	ctx, s, ok := k.open(w, r, "desired properties")
	if !ok {
		return
	}
	defer k.close(s, "desired properties")
	news, done := k.watch(k.caller.ID)
	defer done()
	for {
		doc, now := k.desired(version)
		if doc != nil {
			if s.write(doc) != nil {
				return
			}
			version = now
			continue
		}
		select {
		case <-news.up:
		case <-ctx.Done():
			return
		}
	}
}

// desired is what a client that has seen version must be told, nil for nothing: at first the whole section, once it is known.
func (k *socket) desired(version int64) (doc []byte, now int64) {
	if version > 0 {
		change, ok := k.cfg.Twins.DesiredSince(k.caller.ID, version)
		if !ok {
			return nil, version
		}
		return change.Patch, change.Version
	}
	snapshot := k.cfg.Twins.Snapshot(k.caller.ID)
	if !snapshot.Known {
		return nil, 0
	}
	var whole struct {
		Desired json.RawMessage `json:"desired"`
	}
	if json.Unmarshal(snapshot.Client(), &whole) != nil {
		return nil, 0
	}
	return whole.Desired, snapshot.DesiredVersion
}
