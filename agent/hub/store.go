package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/hub/state"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Tries of a change that lost its race, and the longest pause before another.
const (
	changeTries = 8
	changePause = 20 * time.Millisecond
)

// documents reads and writes the hub's documents as values.
type documents struct {
	docs *state.Docs
	now  func() time.Time
}

func docKey(id iothub.ID, kind string) state.Key {
	return state.Key{Device: id.Device, Name: id.Module, Kind: kind}
}

// stored is a document with the revision it was read at. ok is false when there is none.
type stored[T any] struct {
	doc      T
	revision uint64
	ok       bool
}

func load[T any](ctx context.Context, d documents, id iothub.ID, kind string) (stored[T], error) {
	key := docKey(id, kind)
	doc, err := d.docs.Get(ctx, key)
	if err != nil {
		return stored[T]{}, err
	}
	return decode[T](doc)
}

// decode is a document as a value.
func decode[T any](doc state.Doc) (stored[T], error) {
	out := stored[T]{revision: doc.Revision, ok: doc.Exists()}
	if !out.ok {
		return out, nil
	}
	return out, decodeDoc(doc.Key, doc.Value, &out.doc)
}

// put is a document to be written over the revision it was read at.
func put(id iothub.ID, kind string, revision uint64, doc any) (state.Put, error) {
	value, err := json.Marshal(doc)
	if err != nil {
		return state.Put{}, fmt.Errorf("write document %s: %w", docKey(id, kind), err)
	}
	return state.Put{Key: docKey(id, kind), Expect: revision, Value: value}, nil
}

// retry repeats a change that read documents and lost its race, with a short random pause so that two do not go in step.
func retry(ctx context.Context, change func() error) error {
	var err error
	for range changeTries {
		if err = change(); !errors.Is(err, state.ErrConflict) {
			return err
		}
		pause := time.NewTimer(rand.N(changePause))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		}
	}
	return err
}

// identity reads an identity that must exist.
func (d documents) identity(ctx context.Context, id iothub.ID) (stored[identityDoc], error) {
	found, err := load[identityDoc](ctx, d, id, state.KindIdentity)
	if err == nil && !found.ok {
		err = d.notFound(id)
	}
	return found, err
}

// notFound is the service's answer for an identity that does not exist.
func (d documents) notFound(id iothub.ID) *iothub.Error {
	if id.IsModule() {
		return iothub.NewError(iothub.CodeModuleNotFound, fmt.Sprintf("module %s is not registered", id), d.now())
	}
	return iothub.NewError(iothub.CodeDeviceNotFound, fmt.Sprintf("device %s is not registered", id), d.now())
}
