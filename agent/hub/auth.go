package hub

import (
	"context"
	"crypto/sha1" //nolint:gosec // a fingerprint that the service's clients use, not a signature
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/hub/state"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// gate knows who may speak.
type gate struct {
	documents
	hosts    map[string]bool // names of this hub, in lower case
	policies map[string]policy
}

// speaker is an authenticated identity.
type speaker struct {
	id       iothub.ID
	identity stored[identityDoc]
	method   string    // authByKey or authByCert
	expires  time.Time // of the token; zero with a certificate
}

// ownHost says whether a token's audience or a Host header names this hub. A port does not matter.
func (g *gate) ownHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return g.hosts[strings.ToLower(strings.Trim(host, "[]"))]
}

// identify authenticates a device or a module by its token or, without one, by its certificate. Every *iothub.Error is final;
// another error means that it cannot be said now.
func (g *gate) identify(ctx context.Context, id iothub.ID, secret iothub.Secret, conn *tls.ConnectionState) (speaker, error) {
	identity, err := load[identityDoc](ctx, g.documents, id, state.KindIdentity)
	if err != nil {
		return speaker{}, err
	}
	if !identity.ok {
		return speaker{}, g.refuse("%s is not registered", id)
	}
	if err := g.enabled(ctx, id, identity.doc); err != nil {
		return speaker{}, err
	}
	s := speaker{id: id, identity: identity}
	if secret == "" {
		s.method = authByCert
		return s, g.checkCertificate(id, identity.doc.Auth, conn)
	}
	s.method = authByKey
	s.expires, err = g.checkToken(id, identity.doc.Auth, secret)
	return s, err
}

// enabled looks at the device also when a module speaks.
func (g *gate) enabled(ctx context.Context, id iothub.ID, doc identityDoc) error {
	if id.IsModule() {
		device, err := load[identityDoc](ctx, g.documents, iothub.ID{Device: id.Device}, state.KindIdentity)
		if err != nil {
			return err
		}
		doc = device.doc
	}
	if doc.Status != statusEnabled {
		return g.refuse("device %s is disabled", id.Device)
	}
	return nil
}

func (g *gate) checkToken(id iothub.ID, auth authDoc, secret iothub.Secret) (time.Time, error) {
	token, err := iothub.ParseToken(secret)
	if err != nil {
		return time.Time{}, g.refuse("token of %s: %v", id, err)
	}
	audience, err := token.Audience()
	if err != nil {
		return time.Time{}, g.refuse("token of %s: %v", id, err)
	}
	switch {
	case !g.ownHost(audience.Host) || !audience.Is(audience.Host, id):
		return time.Time{}, g.refuse("token of %s is for %s", id, audience)
	case token.Expired(g.now()):
		return time.Time{}, g.refuse("token of %s expired at %s", id, token.Expiry().Format(time.RFC3339))
	case !token.Verify(auth.keys()...):
		return time.Time{}, g.refuse("token of %s is signed by another key", id)
	}
	return token.Expiry(), nil
}

// checkCertificate compares the fingerprint of the client's certificate. Who issued it does not matter.
func (g *gate) checkCertificate(id iothub.ID, auth authDoc, conn *tls.ConnectionState) error {
	if conn == nil || len(conn.PeerCertificates) == 0 {
		return g.refuse("%s shows neither a token nor a certificate", id)
	}
	leaf := conn.PeerCertificates[0]
	if now := g.now(); now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return g.refuse("certificate of %s is valid from %s to %s only", id, leaf.NotBefore.Format(time.DateOnly), leaf.NotAfter.Format(time.DateOnly))
	}
	long, short := sha256.Sum256(leaf.Raw), sha1.Sum(leaf.Raw) //nolint:gosec // see the import
	for _, thumb := range []string{auth.PrimaryThumb, auth.SecondaryThumb} {
		if auth.Type != authSelf || thumb == "" {
			continue
		}
		if strings.EqualFold(thumb, hex.EncodeToString(long[:])) || strings.EqualFold(thumb, hex.EncodeToString(short[:])) {
			return nil
		}
	}
	return g.refuse("certificate of %s is not one it is registered with", id)
}

// refuse is the answer to a credential that is definitively wrong.
func (g *gate) refuse(format string, args ...any) *iothub.Error {
	return iothub.NewError(iothub.CodeUnauthorized, fmt.Sprintf(format, args...), g.now())
}

// caller is who makes a REST request: a policy with rights, or a device that manages its own modules.
type caller struct {
	rights Right
	device string // empty for a policy
}

// call authenticates a REST request. A device shows a token of its own, or its certificate.
func (g *gate) call(ctx context.Context, authorization string, device string, conn *tls.ConnectionState) (caller, error) {
	if authorization == "" {
		if device == "" || conn == nil || len(conn.PeerCertificates) == 0 {
			return caller{}, g.refuse("no Authorization header")
		}
		_, err := g.identify(ctx, iothub.ID{Device: device}, "", conn)
		return caller{device: device}, err
	}
	secret := iothub.Secret(authorization)
	token, err := iothub.ParseToken(secret)
	if err != nil {
		return caller{}, g.refuse("Authorization: %v", err)
	}
	audience, err := token.Audience()
	if err != nil {
		return caller{}, g.refuse("Authorization: %v", err)
	}
	if token.Policy() == "" {
		if audience.ID.IsModule() || audience.ID.IsZero() {
			return caller{}, g.refuse("a token without a policy must be a device's")
		}
		_, err := g.identify(ctx, audience.ID, secret, conn)
		return caller{device: audience.ID.Device}, err
	}
	p, known := g.policies[token.Policy()]
	switch {
	case !known:
		return caller{}, g.refuse("there is no policy %q", token.Policy())
	case !g.ownHost(audience.Host) || !audience.ID.IsZero():
		return caller{}, g.refuse("token is for %s", audience)
	case token.Expired(g.now()):
		return caller{}, g.refuse("token expired at %s", token.Expiry().Format(time.RFC3339))
	case !token.Verify(p.primary, p.secondary):
		return caller{}, g.refuse("token is not signed by policy %q", token.Policy())
	}
	return caller{rights: p.rights}, nil
}

// may says whether the caller has a right. A device has those over its own modules alone, which its handlers ask for.
func (c caller) may(right Right) bool { return c.rights&right == right }
