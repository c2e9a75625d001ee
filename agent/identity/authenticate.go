package identity

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
)

// Authenticate judges a local CONNECT: which listener took it, the user name, the client id and the token must all name the
// same live module of this device (or the device itself), and the token must be signed with that identity's key and not be
// spent. Every refusal is an [iothub.Error] and is logged here with both identities; the caller need not log it again.
//
// The token's expiry is judged by the device clock, which is the clock of the module that minted it. On a listener that
// belongs to one module it is not held against the module that the clock was unknown or has jumped.
func (r *Registry) Authenticate(_ context.Context, h mqtt.Hello, user iothub.UserName) (iothub.ID, error) {
	claim := claim{origin: h.Origin, id: user.ID, token: h.Password}
	why := r.judgeName(h.ClientID, user.ID)
	if why == nil {
		why = r.judge(claim)
	}
	if why != nil {
		remote := ""
		if h.Remote != nil {
			remote = h.Remote.String()
		}
		r.refuse(claim, remote, why)
		return iothub.ID{}, r.stamp(why)
	}
	return user.ID, nil
}

// AuthorizeHTTP judges the token of an HTTPS request that says it comes from id. The caller has checked that id may speak on
// the listener that took it.
func (r *Registry) AuthorizeHTTP(_ context.Context, id iothub.ID, token iothub.Secret) error {
	claim := claim{id: id, token: token}
	if why := r.judge(claim); why != nil {
		r.refuse(claim, "", why)
		return r.stamp(why)
	}
	return nil
}

// claim is who says to be whom, by which door, on what evidence.
type claim struct {
	origin mqtt.Origin
	id     iothub.ID
	token  iothub.Secret
}

// refusal is why a claim does not hold. code is the service's.
type refusal struct {
	code int
	why  string
}

func unauthorized(format string, args ...any) *refusal {
	return &refusal{code: iothub.CodeUnauthorized, why: fmt.Sprintf(format, args...)}
}

func badToken(format string, args ...any) *refusal {
	return &refusal{code: iothub.CodeToken, why: fmt.Sprintf(format, args...)}
}

// judgeName compares client id and user name.
func (r *Registry) judgeName(clientID string, id iothub.ID) *refusal {
	if clientID != id.String() {
		return unauthorized("client id %.64q is not the %q of the user name", clientID, id)
	}
	return nil
}

func (r *Registry) judge(c claim) *refusal {
	bound := !c.origin.ID.IsZero()
	if bound && c.origin.ID != c.id {
		return unauthorized("this listener belongs to %s", c.origin.ID)
	}
	if c.id.Device != r.cfg.Device {
		return unauthorized("device %q is not served here, only %q and its modules", c.id.Device, r.cfg.Device)
	}
	key := r.cfg.Credential.Key
	if c.id.IsModule() {
		m, ok := r.Module(c.id.Module)
		if !ok {
			return unauthorized("no such module is deployed on this device")
		}
		key = m.Key
	}
	if len(key) == 0 {
		return unauthorized("this identity has no SAS key here")
	}
	if c.token == "" {
		return badToken("no token was sent")
	}
	token, err := iothub.ParseToken(c.token)
	if err != nil {
		return badToken("token does not parse: %v", err)
	}
	if why := r.judgeAudience(token, c.id); why != nil {
		return why
	}
	if !token.Verify(key) {
		return badToken("token is not signed with this identity's key")
	}
	if r.clock.spent(token, bound) {
		return badToken("token expired at %s, device clock shows %s", token.Expiry().UTC().Format(time.RFC3339), r.clock.Device().UTC().Format(time.RFC3339))
	}
	return nil
}

// judgeAudience compares the resource a token is for with the claim: the host may be the hub or this gateway, and like the
// ids it is compared without regard to case, as the service does.
func (r *Registry) judgeAudience(token iothub.Token, id iothub.ID) *refusal {
	audience, err := token.Audience()
	if err != nil {
		return badToken("token audience does not parse: %v", err)
	}
	if !audience.Is(r.cfg.Hub, id) && !audience.Is(r.cfg.Gateway, id) {
		return badToken("token audience is %.200q, want this identity at host %q or %q", audience, r.cfg.Hub, r.cfg.Gateway)
	}
	return nil
}

// stamp makes the error the client may see: it does not say which check failed.
func (r *Registry) stamp(why *refusal) error {
	return iothub.NewError(why.code, "Unauthorized", r.clock.Device())
}

// refuse logs who was refused what. The identity is the one the listener proves where it proves one, else the remote address.
func (r *Registry) refuse(c claim, remote string, why *refusal) {
	who := c.origin.ID.String()
	if c.origin.ID.IsZero() {
		who = remote
	}
	again, show := r.refusals.note(who + "\x00" + c.id.String() + "\x00" + why.why)
	if !show {
		return
	}
	r.log.Warn("identity refused", "identity", who, "claimed", c.id.String(), "origin", c.origin.Label, "repeated", again, "err", why.why)
}

// refusals keeps a client that tries again and again from filling the log: the same refusal is shown once a minute, with how
// often it happened in between.
type refusals struct {
	now  func() time.Time
	mu   sync.Mutex
	seen map[string]refused
}

type refused struct {
	shown time.Time
	muted int
}

const (
	refusalQuiet = time.Minute
	refusalKinds = 256 // distinct refusals remembered
)

// note counts a refusal and says whether to show it, and how many like it were not shown since the last one.
func (f *refusals) note(key string) (muted int, show bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	last, known := f.seen[key]
	if age := now.Sub(last.shown); known && age >= 0 && age < refusalQuiet {
		last.muted++
		f.seen[key] = last
		return 0, false
	}
	if f.seen == nil || len(f.seen) >= refusalKinds {
		f.seen = map[string]refused{}
	}
	f.seen[key] = refused{shown: now}
	return last.muted, true
}
