package broker

import (
	"context"
	"errors"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
)

// Connect judges a CONNECT and loads its session. It implements mqtt.Handler.
//
// A refusal that SDKs do not retry (CONNACK 4 and 5) is given only when the credentials are definitely wrong; whatever is ours to
// mend (a store that does not answer) is CONNACK 3.
func (b *Broker) Connect(ctx context.Context, h mqtt.Hello) (mqtt.Session, mqtt.Code) {
	user, err := iothub.ParseUserName(h.UserName)
	if err != nil {
		b.cfg.Logger.Warn("connection refused", "origin", h.Origin.Label, "err", err)
		return nil, mqtt.BadCredentials
	}
	id, err := b.cfg.Authenticate(ctx, h, user)
	var no *iothub.Error
	switch {
	case errors.As(err, &no):
		return nil, mqtt.NotAuthorized
	case err != nil:
		b.cfg.Logger.Warn("connection put off", "identity", user.ID.String(), "err", err)
		return nil, mqtt.Unavailable
	}
	if h.ClientID != id.String() { // there is one connection for each client id, and it must be one for each identity
		b.cfg.Logger.Warn("connection refused", "identity", id.String(), "other", h.ClientID, "err", "client id is not the identity's")
		return nil, mqtt.NotAuthorized
	}
	stored, err := b.session(id)
	if err != nil {
		b.cfg.Logger.Error("connection put off, its session cannot be read", "identity", id.String(), "err", err)
		return nil, mqtt.Unavailable
	}
	c := &client{b: b, id: id, hello: h, stored: stored, session: stored, will: b.willOf(id, h.Will)}
	if h.Clean {
		c.session = &session{b: b, id: id}
	}
	if id.IsModule() && id.Device == b.cfg.Device { // routes name modules of this device
		c.box = b.box(id.Module)
	}
	return c, mqtt.Accepted
}
