package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/store"
)

// session is what outlives the connections of one identity. All connections of the identity that did not ask for a clean one share
// it, so that an old connection on its way out cannot write back what a new one has changed.
type session struct {
	b       *Broker
	id      iothub.ID
	durable bool // false: of one clean connection, never on disk

	writing sync.Mutex // held over a change and its write, so that the disk sees changes in their order

	mu     sync.Mutex // guards what follows
	rec    record
	loaded bool
	gone   bool // the identity is no more: nothing is written again
}

// record is a session on disk: what the client listens to, and which desired version it was given last.
type record struct {
	V       int            `json:"v"`
	Filters []subscription `json:"filters"`
	Desired int64          `json:"desired"` // 0 = never given any
}

// subscription is one filter of a known shape that names this very client.
type subscription struct {
	Filter string `json:"filter"`
	QoS    byte   `json:"qos"`

	feature iothub.Feature // of Filter
}

// sessionVersion is the form of the document.
const sessionVersion = 1

// errGone ends what is still under way for an identity that was dropped.
var errGone = errors.New("identity was removed")

func sessionKey(id iothub.ID) string { return "session/" + id.String() }

// session returns the one session of id, read from disk when it is asked for first.
func (b *Broker) session(id iothub.ID) (*session, error) {
	b.mu.Lock()
	s := b.sessions[id]
	if s == nil {
		s = &session{b: b, id: id, durable: true}
		b.sessions[id] = s
	}
	b.mu.Unlock()
	return s, s.load()
}

// load reads the document. One that the disk did not keep is lost, and said so, but must not keep its client away for ever; one of a
// newer agent is whole and does.
func (s *session) load() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	loaded, gone := s.loaded, s.gone
	s.mu.Unlock()
	switch {
	case gone:
		return errGone
	case loaded:
		return nil
	}
	raw, err := s.b.cfg.Docs.Get(sessionKey(s.id))
	var rec record
	if err == nil && raw != nil {
		rec, err = parseRecord(raw)
	}
	if errors.Is(err, store.ErrDamaged) {
		s.b.cfg.Logger.Error("session lost, the client starts a new one", "identity", s.id.String(), "err", err)
		rec, err = record{}, nil
	}
	if err != nil {
		return fmt.Errorf("read session: %w", err)
	}
	s.mu.Lock()
	s.rec, s.loaded = rec, true
	s.mu.Unlock()
	return nil
}

func parseRecord(raw []byte) (record, error) {
	var rec record
	if err := json.Unmarshal(raw, &rec); err != nil {
		return record{}, fmt.Errorf("%w: %w", store.ErrDamaged, err)
	}
	if rec.V != sessionVersion {
		return record{}, fmt.Errorf("form %d, want %d; update the agent", rec.V, sessionVersion)
	}
	for i := range rec.Filters {
		f, err := iothub.ParseFilter(rec.Filters[i].Filter)
		if err != nil {
			return record{}, fmt.Errorf("%w: %w", store.ErrDamaged, err)
		}
		rec.Filters[i].feature = f.Feature
	}
	return rec, nil
}

// get returns the record as it is now; it is not to be altered.
func (s *session) get() record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rec
}

// qos tells at which quality the client listens to a feature; false when it does not.
func (s *session) qos(f iothub.Feature) (byte, bool) { return s.get().qos(f) }

// change applies fn; what matters later is durable when change returns nil. With an error nothing has changed.
func (s *session) change(ctx context.Context, fn func(record) record) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	old, gone := s.rec, s.gone
	s.mu.Unlock()
	if gone {
		return errGone
	}
	next := fn(old)
	if s.durable && next.differs(old) {
		if err := s.put(ctx, next); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.rec = next
	s.mu.Unlock()
	return nil
}

// put writes a record; an empty one needs no document.
func (s *session) put(ctx context.Context, rec record) error {
	if len(rec.Filters) == 0 {
		return s.b.cfg.Docs.Put(ctx, sessionKey(s.id), nil)
	}
	rec.V = sessionVersion
	raw, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return s.b.cfg.Docs.Put(ctx, sessionKey(s.id), raw)
}

// drop forgets the session for good, durable on return.
func (s *session) drop(ctx context.Context) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.b.cfg.Docs.Put(ctx, sessionKey(s.id), nil); err != nil {
		return err
	}
	s.mu.Lock()
	s.rec, s.gone = record{}, true
	s.mu.Unlock()
	return nil
}

func (s *session) isGone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone
}

// differs tells whether r must be written where old is. The version delivered matters only to those who hear of new ones.
func (r record) differs(old record) bool {
	if !slices.Equal(r.Filters, old.Filters) {
		return true
	}
	_, listens := r.qos(iothub.FeatureDesired)
	return listens && r.Desired != old.Desired
}

// qos is the best quality of the filters of a feature: inputs have two forms.
func (r record) qos(f iothub.Feature) (best byte, listens bool) {
	for _, sub := range r.Filters {
		if sub.feature == f {
			best, listens = max(best, sub.QoS), true
		}
	}
	return best, listens
}

// with returns r with one more subscription. r is not altered. There are six filters that can get here, so it stays small.
func (r record) with(sub subscription) record {
	i := slices.IndexFunc(r.Filters, func(have subscription) bool { return have.Filter == sub.Filter })
	r.Filters = slices.Clone(r.Filters)
	if i >= 0 {
		r.Filters[i] = sub
	} else {
		r.Filters = append(r.Filters, sub)
	}
	return r
}

// without returns r without some filters.
func (r record) without(filters []string) record {
	r.Filters = slices.DeleteFunc(slices.Clone(r.Filters), func(sub subscription) bool { return slices.Contains(filters, sub.Filter) })
	return r
}
