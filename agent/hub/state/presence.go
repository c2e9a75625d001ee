package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// claimAttempts bounds the race of several connections of one identity; each round one of them wins.
const claimAttempts = 64

// Owner is the hub process that holds an identity's connection.
type Owner struct {
	Replica    string    `json:"replica"`
	Generation uint64    `json:"gen"` // grows with each claim; an older one's late events are ignored
	Since      time.Time `json:"since"`
}

// Presence says who is connected where. It is kept in memory and ends with the server, as the connections do.
type Presence struct{ bucket jetstream.KeyValue }

func presenceKey(device, module string) string {
	if module == "" {
		return "c." + escape(device)
	}
	return "c." + escape(device) + "." + escape(module)
}

// Claim makes the caller the owner: the newest claim wins. It returns the claim and the one it replaces, if any.
func (p *Presence) Claim(ctx context.Context, device, module string, claim Owner) (own, previous Owner, err error) {
	key := presenceKey(device, module)
	for range claimAttempts {
		old, revision, err := p.get(ctx, key)
		if err != nil {
			return Owner{}, Owner{}, err
		}
		claim.Generation = old.Generation + 1
		value, err := json.Marshal(claim)
		if err != nil {
			return Owner{}, Owner{}, fmt.Errorf("claim %s: %w", key, err)
		}
		if revision == 0 {
			_, err = p.bucket.Create(ctx, key, value)
		} else {
			_, err = p.bucket.Update(ctx, key, value, revision)
		}
		switch {
		case err == nil && old.Replica != "":
			return claim, old, nil
		case err == nil:
			return claim, Owner{}, nil
		case !lostRace(err):
			return Owner{}, Owner{}, fmt.Errorf("claim %s: %w", key, err)
		}
	}
	return Owner{}, Owner{}, fmt.Errorf("claim %s: %w", key, ErrConflict)
}

// Release gives up a claim. It reports whether the claim still stood. The key stays, so that generations go on growing.
func (p *Presence) Release(ctx context.Context, device, module string, claim Owner) (bool, error) {
	key := presenceKey(device, module)
	old, revision, err := p.get(ctx, key)
	if err != nil || revision == 0 || old.Replica != claim.Replica || old.Generation != claim.Generation {
		return false, err
	}
	value, err := json.Marshal(Owner{Generation: claim.Generation})
	if err != nil {
		return false, fmt.Errorf("release %s: %w", key, err)
	}
	_, err = p.bucket.Update(ctx, key, value, revision)
	if err != nil && !lostRace(err) {
		return false, fmt.Errorf("release %s: %w", key, err)
	}
	return err == nil, nil
}

// Get returns the owner; ok is false when nobody is connected.
func (p *Presence) Get(ctx context.Context, device, module string) (owner Owner, ok bool, err error) {
	owner, _, err = p.get(ctx, presenceKey(device, module))
	return owner, owner.Replica != "", err
}

// Await returns the owner as soon as there is one other than the generation given, or the context's error.
func (p *Presence) Await(ctx context.Context, device, module string, other uint64) (Owner, error) {
	key := presenceKey(device, module)
	watch, err := p.bucket.Watch(ctx, key)
	if err != nil {
		return Owner{}, fmt.Errorf("await %s: %w", key, err)
	}
	defer func() { _ = watch.Stop() }() // nothing to do about a reader that cannot be stopped: it ends with ctx
	for {
		select {
		case <-ctx.Done():
			return Owner{}, ctx.Err()
		case entry, open := <-watch.Updates():
			if !open {
				return Owner{}, fmt.Errorf("await %s: %w", key, ErrClosed)
			}
			if entry == nil {
				continue // all that was there has been shown
			}
			var owner Owner
			if err := json.Unmarshal(entry.Value(), &owner); err != nil {
				return Owner{}, fmt.Errorf("await %s: %w", key, err)
			}
			if owner.Replica != "" && owner.Generation != other {
				return owner, nil
			}
		}
	}
}

func (p *Presence) get(ctx context.Context, key string) (Owner, uint64, error) {
	entry, err := p.bucket.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return Owner{}, 0, nil
	}
	if err != nil {
		return Owner{}, 0, fmt.Errorf("look up %s: %w", key, err)
	}
	var owner Owner
	if err := json.Unmarshal(entry.Value(), &owner); err != nil {
		return Owner{}, 0, fmt.Errorf("look up %s: %w", key, err)
	}
	return owner, entry.Revision(), nil
}

// lostRace says that somebody else wrote first.
func lostRace(err error) bool {
	if errors.Is(err, jetstream.ErrKeyExists) {
		return true
	}
	refused, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (refused.ErrorCode == codeWrongSequence || refused.ErrorCode == codeWrongConstant)
}
