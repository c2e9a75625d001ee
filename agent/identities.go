package agent

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/upstream"
)

// identitiesChanged makes the hub hear of new or removed module identities.
func (a *Agent) identitiesChanged() {
	select {
	case a.syncNow <- struct{}{}:
	default: // one that is waiting says the same
	}
}

// How long to wait before the hub is asked again to take module identities.
const (
	syncRetry     = 2 * time.Second
	syncRetryMost = 2 * time.Minute
)

// keepIdentities brings the hub's registry to what is here, and gives every identity that the hub has a link. A link whose identity
// the hub does not have yet would only be refused.
func (a *Agent) keepIdentities(ctx context.Context) error {
	for _, name := range []string{deployment.EdgeAgent, deployment.EdgeHub} {
		if _, err := a.identities.Ensure(ctx, name); err != nil {
			return named("identity of "+name, err)
		}
	}
	a.setLinks()
	links, err := upstream.WatchLinks(ctx)
	if err != nil {
		a.log.Warn("network changes are not watched", "err", err)
	}
	failures := 0
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.syncNow:
		case <-retry.C:
		case _, ok := <-links:
			if !ok {
				links = nil
				continue
			}
			a.upstream.NetworkUp()
		}
		err := errors.Join(a.purgeRetired(ctx), a.identities.Sync(ctx))
		a.setLinks()
		a.syncError.Store(&err)
		if err == nil {
			failures = 0
			continue
		}
		failures++
		pause := min(syncRetry<<min(failures-1, 6), syncRetryMost)
		pause = pause/2 + rand.N(pause/2)
		if failures == 1 || failures%10 == 0 {
			a.log.Warn("module identities not at the hub yet, trying again", "err", err, "after", pause)
		}
		retry.Reset(pause)
	}
}

// syncTrouble says why the hub could not be told of this device's identities; without an identity there is not even a link that could say it.
func (a *Agent) syncTrouble(st *control.Status) {
	if err := a.syncError.Load(); err != nil && *err != nil {
		first, _, _ := strings.Cut((*err).Error(), "\n") // one for each identity
		st.Problems = append(st.Problems, "the hub was not told of the modules of this device: "+first)
	}
}

// purgeRetired forgets removed modules whose lane has drained; until then their key is needed to deliver what they said.
func (a *Agent) purgeRetired(ctx context.Context) error {
	retired := a.identities.Retired()
	if len(retired) == 0 {
		return nil
	}
	waiting := map[string]bool{}
	for _, q := range a.store.Queue().Stats() {
		waiting[q.Sink] = waiting[q.Sink] || q.Messages > 0
	}
	for _, m := range retired {
		if waiting["upstream/"+m.ID.Module] {
			continue
		}
		if err := errors.Join(a.identities.Purge(ctx, m.ID.Module), a.twins.Forget(ctx, m.ID)); err != nil {
			return err
		}
	}
	return nil
}

// setLinks gives a link to each identity that the hub has.
func (a *Agent) setLinks() {
	var ids []iothub.ID
	for _, m := range a.identities.List() {
		if m.OnHub {
			ids = append(ids, m.ID)
		}
	}
	for _, m := range a.identities.Retired() { // removed, but its lane may hold messages
		if m.OnHub {
			ids = append(ids, m.ID)
		}
	}
	a.upstream.SetIdentities(ids)
}

// method answers a direct method that the hub calls on an identity of this device.
func (a *Agent) method(ctx context.Context, id iothub.ID, req iothub.MethodRequest) iothub.MethodResult {
	result, err := a.broker.Call(ctx, id, req)
	if err == nil {
		return result
	}
	status := 500
	if no, ok := asError(err); ok {
		status = no.Status()
	}
	body, merr := json.Marshal(map[string]string{"message": err.Error()})
	if merr != nil {
		body = []byte("null")
	}
	return iothub.MethodResult{Status: status, Payload: body}
}
