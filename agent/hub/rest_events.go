package hub

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sandpiper-edge/sandpiper/agent/hub/state"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

var kindNames = map[state.EventKind]string{
	state.EventTelemetry: "telemetry", state.EventWill: "will", state.EventTwin: "twinChange", state.EventLifeCycle: "lifeCycle", state.EventConnection: "connectionState",
}

// newEvent is an entry of the log as the stream shows it.
func newEvent(e state.Entry) Event {
	out := Event{Shard: e.Shard, Offset: e.Offset, Enqueued: e.Enqueued.UTC(), Device: e.Device, Module: e.Module, Kind: kindNames[e.Kind]}
	if bag, err := iothub.ParseBag(e.Properties); err == nil { // it was printed by this hub
		for _, p := range bag {
			into := &out.Properties
			if len(p.Key) > 2 && p.Key[:2] == "$." {
				into = &out.System
			}
			if *into == nil {
				*into = map[string]string{}
			}
			(*into)[p.Key] = p.Value
		}
	}
	if len(e.Body) > 0 && json.Valid(e.Body) {
		out.Body = e.Body
	} else {
		out.BodyBase64 = e.Body
	}
	return out
}

// streamEvents is GET /events?device=&module=&since=&from=&follow=&kind=&next=: one JSON document a line, in order within a shard.
func (h *Hub) streamEvents(w http.ResponseWriter, r *http.Request, _ iothub.ID) error {
	q := r.URL.Query()
	query := state.Query{Device: q.Get("device"), Module: q.Get("module"), Follow: q.Get("follow") == "true"}
	if q.Get("kind") != "all" {
		query.Kinds = []state.EventKind{state.EventTelemetry, state.EventWill}
	}
	if text := q.Get("since"); text != "" {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return h.invalid("since must be an RFC 3339 time")
		}
		query.Since = at
	}
	if text := q.Get("from"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return h.invalid("from must be an offset")
		}
		query.From = n
	}
	next := map[int]uint64{}
	for _, text := range q["next"] {
		at, offset, _ := strings.Cut(text, ":")
		shard, err := strconv.Atoi(at)
		if err == nil {
			next[shard], err = strconv.ParseUint(offset, 10, 64)
		}
		if err != nil {
			return h.invalid("next must be shard:offset")
		}
	}
	shards := make([]int, 0, h.state.Log().Shards())
	if query.Device != "" {
		shards = append(shards, h.state.Docs().Shard(query.Device))
	} else {
		for shard := range h.state.Log().Shards() {
			shards = append(shards, shard)
		}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	if err := flush.Flush(); err != nil {
		return nil //nolint:nilerr // the reader is gone already
	}
	var mu sync.Mutex // one line at a time
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	g, ctx := errgroup.WithContext(r.Context())
	for _, shard := range shards {
		q := query
		q.Shard = shard
		if offset, ok := next[shard]; ok {
			q.From, q.Since = offset, time.Time{}
		}
		g.Go(func() error {
			return h.state.Log().Read(ctx, q, nil, func(e state.Entry) error {
				mu.Lock()
				defer mu.Unlock()
				if err := enc.Encode(newEvent(e)); err != nil {
					return err
				}
				if query.Follow {
					return flush.Flush()
				}
				return nil
			})
		})
	}
	if err := g.Wait(); err != nil && ctx.Err() == nil && r.Context().Err() == nil {
		h.cfg.Logger.Warn("event stream ended", "err", err)
	}
	return nil
}
