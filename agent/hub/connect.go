package hub

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/sandpiper-edge/sandpiper/agent/hub/state"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
)

// Connect judges a CONNECT. It implements mqtt.Handler.
func (h *Hub) Connect(ctx context.Context, hello mqtt.Hello) (mqtt.Session, mqtt.Code) {
	user, err := iothub.ParseUserName(hello.UserName)
	if err != nil {
		h.cfg.Logger.Warn("connection refused", "err", err)
		return nil, mqtt.BadCredentials
	}
	if hello.ClientID != user.ID.String() {
		h.cfg.Logger.Warn("connection refused", "identity", user.ID.String(), "why", "the client id is not that of the user name")
		return nil, mqtt.BadIdentifier
	}
	if err := h.state.Writable(); err != nil {
		h.cfg.Logger.Error("connection put off", "identity", user.ID.String(), "err", err)
		return nil, mqtt.Unavailable
	}
	who, err := h.gate.identify(ctx, user.ID, hello.Password, hello.TLS)
	if no, definite := errors.AsType[*iothub.Error](err); definite {
		h.cfg.Logger.Warn("connection refused", "identity", user.ID.String(), "err", no)
		return nil, mqtt.NotAuthorized
	}
	if err != nil {
		h.cfg.Logger.Error("connection put off", "identity", user.ID.String(), "err", err)
		return nil, mqtt.Unavailable
	}
	c := &client{h: h, id: user.ID, generation: who.identity.doc.Generation, auth: who.method, expires: who.expires, appender: h.state.Log().Appender(), will: hello.Will}
	if err := c.load(ctx, hello.Clean); err != nil {
		h.cfg.Logger.Error("connection put off, its session cannot be read", "identity", user.ID.String(), "err", err)
		return nil, mqtt.Unavailable
	}
	return c, mqtt.Accepted
}

// sessionDoc is what outlives a connection.
type sessionDoc struct {
	V       int              `json:"v"`
	Filters map[string]uint8 `json:"filters"` // filter → granted QoS
	Shown   int64            `json:"shown"`   // desired version the client knows
	Desired object           `json:"desired"` // the section at that version: what it missed can always be told
}

// load reads the client's session; a clean one is discarded.
func (c *client) load(ctx context.Context, clean bool) error {
	key := docKey(c.id, state.KindSession)
	doc, err := c.h.state.Docs().Get(ctx, key)
	if err != nil {
		return err
	}
	c.revision, c.filters, c.clean = doc.Revision, map[string]uint8{}, clean
	if !doc.Exists() {
		return nil
	}
	if clean {
		_, err := c.h.state.Docs().Change(ctx, state.Put{Key: key, Expect: doc.Revision})
		if errors.Is(err, state.ErrConflict) {
			return nil // the connection it takes over from has just written it; it is not read again while clients say clean
		}
		return err
	}
	var rec sessionDoc
	if err := decodeDoc(key, doc.Value, &rec); err != nil {
		return err
	}
	if rec.Filters != nil {
		c.filters, c.resumed = rec.Filters, true
		c.shown, c.base = rec.Shown, rec.Desired
	}
	return nil
}

// save stores the subscription set. Only this connection writes it: an older one has ended.
func (c *client) save(ctx context.Context) error {
	if c.clean {
		return nil
	}
	c.mu.Lock()
	value, err := json.Marshal(sessionDoc{V: docVersion, Filters: c.filters, Shown: c.shown, Desired: c.base})
	c.moved = false
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return retry(ctx, func() error {
		revisions, err := c.h.state.Docs().Change(ctx, state.Put{Key: docKey(c.id, state.KindSession), Expect: c.revision, Value: value})
		if errors.Is(err, state.ErrConflict) {
			doc, gerr := c.h.state.Docs().Get(ctx, docKey(c.id, state.KindSession))
			c.revision = doc.Revision
			return errors.Join(err, gerr)
		}
		if err == nil {
			c.revision = revisions[0]
		}
		return err
	})
}
