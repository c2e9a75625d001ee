package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// session is what outlives a connection: what the client listens to, and which desired version it was sent last.
type session struct {
	V       int            `json:"v"`
	Filters []subscription `json:"filters"`
	Desired int64          `json:"desired"` // 0 = never sent any
}

// subscription is one filter of a known shape that names this very client.
type subscription struct {
	Filter string `json:"filter"`
	QoS    byte   `json:"qos"`

	feature iothub.Feature // of Filter
}

// sessionVersion is the form of the document.
const sessionVersion = 1

// maxFilters bounds a session: there are six shapes, one of them in two forms.
const maxFilters = 8

func sessionKey(id iothub.ID) string { return "session/" + id.String() }

// loadSession reads id's session, or discards it when the client wants a clean one. stored says that there was one to go on with.
func (b *Broker) loadSession(ctx context.Context, id iothub.ID, clean bool) (rec session, stored bool, err error) {
	raw, err := b.cfg.Docs.Get(sessionKey(id))
	if err != nil {
		return session{}, false, fmt.Errorf("read session: %w", err)
	}
	if clean && raw != nil {
		return session{}, false, b.cfg.Docs.Put(ctx, sessionKey(id), nil)
	}
	if raw == nil {
		return session{}, false, nil
	}
	if err := json.Unmarshal(raw, &rec); err != nil {
		return session{}, false, fmt.Errorf("session of %s: %w", id, err)
	}
	if rec.V != sessionVersion {
		return session{}, false, fmt.Errorf("session of %s has form %d, want %d; update the agent", id, rec.V, sessionVersion)
	}
	for i := range rec.Filters {
		f, err := iothub.ParseFilter(rec.Filters[i].Filter)
		if err != nil {
			return session{}, false, fmt.Errorf("session of %s: %w", id, err)
		}
		rec.Filters[i].feature = f.Feature
	}
	return rec, true, nil
}

// saveSession makes rec durable.
func (b *Broker) saveSession(ctx context.Context, id iothub.ID, rec session) error {
	rec.V = sessionVersion
	raw, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return b.cfg.Docs.Put(ctx, sessionKey(id), raw)
}

// qos tells at which quality the client listens to a feature; false when it does not.
func (s session) qos(f iothub.Feature) (byte, bool) {
	for _, sub := range s.Filters {
		if sub.feature == f {
			return sub.QoS, true
		}
	}
	return 0, false
}

// with returns s with one more subscription, and whether that changed anything. s is not altered.
func (s session) with(sub subscription) (session, bool) {
	i := slices.IndexFunc(s.Filters, func(have subscription) bool { return have.Filter == sub.Filter })
	switch {
	case i >= 0 && s.Filters[i].QoS == sub.QoS:
		return s, false
	case i < 0 && len(s.Filters) >= maxFilters:
		return s, false
	}
	s.Filters = slices.Clone(s.Filters)
	if i >= 0 {
		s.Filters[i] = sub
	} else {
		s.Filters = append(s.Filters, sub)
	}
	return s, true
}

// without returns s without a filter.
func (s session) without(filter string) session {
	s.Filters = slices.DeleteFunc(slices.Clone(s.Filters), func(sub subscription) bool { return sub.Filter == filter })
	return s
}
