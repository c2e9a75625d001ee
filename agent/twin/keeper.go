package twin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Keeper holds the twins of every identity of this device. A twin that was known once is never served empty again. All methods
// may be called from any goroutine; a change returns when it is durable. Create with [NewKeeper].
type Keeper struct {
	docs Docs

	mu         sync.Mutex // guards what follows and, of each twin, lost, events and delivering
	twins      map[iothub.ID]*twin
	onDesired  []func(Change)
	onReported []func(iothub.ID, json.RawMessage)
	lastMark   uint64
	lost       bool // every twin that is not known may have been
}

// twin is one identity's state. Its sections are values that are replaced, never changed, so readers need no turn,
// and rest as text: two hundred twins of 32 KiB take 7 MiB so, and forty as trees.
type twin struct {
	id       iothub.ID
	turn     chan struct{} // capacity 1: who has put its token in is the only one who changes the sections
	desired  atomic.Pointer[packedDesired]
	reported atomic.Pointer[packedReported]

	lost       bool    // a document of it was there and is not
	events     []event // durable changes whose callbacks are still to be called
	delivering bool    // somebody is calling them
}

// event is one callback to be made: a desired change, or a reported patch.
type event struct {
	change   *Change
	reported json.RawMessage
}

// NewKeeper loads every twin in docs. A document that is listed and not there was lost by the disk; one it cannot read is an error, as
// serving that twin empty would be a lie.
func NewKeeper(docs Docs) (*Keeper, error) {
	k := &Keeper{docs: docs, twins: map[iothub.ID]*twin{}}
	if err := k.load(desiredPrefix, func(t *twin, raw []byte) error {
		section, err := decodeDesired(raw)
		if err == nil {
			t.desired.Store(section.pack())
		}
		return err
	}); err != nil {
		return nil, err
	}
	if err := k.load(reportedPrefix, func(t *twin, raw []byte) error {
		section, err := decodeReported(raw)
		if err == nil {
			t.reported.Store(section.pack())
		}
		return err
	}); err != nil {
		return nil, err
	}
	return k, nil
}

func (k *Keeper) load(prefix string, into func(t *twin, raw []byte) error) error {
	keys, err := k.docs.Keys(prefix)
	if err != nil {
		return fmt.Errorf("list twins: %w", err)
	}
	for _, key := range keys {
		id, err := iothub.ParseID(strings.TrimPrefix(key, prefix))
		if err != nil {
			return fmt.Errorf("load %s: %w", key, err)
		}
		raw, err := k.docs.Get(key)
		if err != nil {
			return fmt.Errorf("load %s: %w", key, err)
		}
		if raw == nil { // listed, and lost by the disk
			k.findLocked(id).lost = true
			continue
		}
		if err := into(k.findLocked(id), raw); err != nil {
			return fmt.Errorf("load %s: %w", key, err)
		}
	}
	return nil
}

// findLocked gives the twin of id, made when there is none.
func (k *Keeper) findLocked(id iothub.ID) *twin {
	t := k.twins[id]
	if t == nil {
		t = &twin{id: id, turn: make(chan struct{}, 1)}
		t.desired.Store((&desired{version: firstVersion, doc: map[string]any{}}).pack())
		t.reported.Store((&reported{version: firstVersion}).pack())
		k.twins[id] = t
	}
	return t
}

// take waits for the right to change the twin of id. The caller gives it back with release.
func (k *Keeper) take(ctx context.Context, id iothub.ID) (*twin, error) {
	for {
		k.mu.Lock()
		t := k.findLocked(id)
		k.mu.Unlock()
		select {
		case t.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		k.mu.Lock()
		current := k.twins[id] == t // not forgotten while we waited
		k.mu.Unlock()
		if current {
			return t, nil
		}
		t.release()
	}
}

func (t *twin) release() { <-t.turn }

// peek is the twin of id for reading, nil when there is none.
func (k *Keeper) peek(id iothub.ID) *twin {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.twins[id]
}

// IDs lists the identities that something is stored of, sorted.
func (k *Keeper) IDs() []iothub.ID {
	k.mu.Lock()
	defer k.mu.Unlock()
	ids := make([]iothub.ID, 0, len(k.twins))
	for id, t := range k.twins {
		if t.desired.Load().known || t.reported.Load().stored() {
			ids = append(ids, id)
		}
	}
	sort.Slice(ids, func(i, j int) bool { return ids[i].String() < ids[j].String() })
	return ids
}

// Snapshot is the twin of id as it is now. It never waits for the disk.
func (k *Keeper) Snapshot(id iothub.ID) Snapshot {
	k.mu.Lock()
	t, lost := k.twins[id], k.lost
	if t != nil {
		lost = lost || t.lost
	}
	k.mu.Unlock()
	if t == nil {
		return Snapshot{Desired: orEmpty(nil), Reported: orEmpty(nil), DesiredVersion: firstVersion, ReportedVersion: firstVersion, Lost: lost}
	}
	d, r := t.desired.Load(), t.reported.Load()
	return Snapshot{
		Lost:    lost && !d.known,
		Desired: bytes.Clone(d.doc), DesiredVersion: d.version, Known: d.known,
		Reported: r.local(), ReportedVersion: r.version,
	}
}

// AllLost says that the store lost its documents: a twin that is not known now may have been, and is [Snapshot.Lost] until the hub has
// given it anew. Call it before the keeper is used.
func (k *Keeper) AllLost() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lost = true
}

// Forget removes the twin of id, durable on return. Its callbacks that are still to be called are called.
func (k *Keeper) Forget(ctx context.Context, id iothub.ID) error {
	if k.peek(id) == nil {
		return nil
	}
	t, err := k.take(ctx, id)
	if err != nil {
		return err
	}
	defer t.release()
	if err := k.docs.Put(ctx, reportedPrefix+id.String(), nil); err != nil {
		return fmt.Errorf("forget reported of %s: %w", id, err)
	}
	if err := k.docs.Put(ctx, desiredPrefix+id.String(), nil); err != nil {
		return fmt.Errorf("forget desired of %s: %w", id, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.twins, id)
	return nil
}

// OnDesired registers a callback for every change of a desired section. Register before the keeper is used.
func (k *Keeper) OnDesired(call func(Change)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.onDesired = append(k.onDesired, call)
}

// OnReported registers a callback for every accepted reported patch, as its client sent it. Register before the keeper is used.
func (k *Keeper) OnReported(call func(id iothub.ID, patch json.RawMessage)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.onReported = append(k.onReported, call)
}

// queue notes a callback to be made. Called with the turn, so events are in version order.
func (k *Keeper) queue(t *twin, e event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t.events = append(t.events, e)
}

// deliver makes the callbacks that are due, unless another goroutine is at it already: that one then makes them all.
// Called without the turn.
func (k *Keeper) deliver(t *twin) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if t.delivering {
		return
	}
	t.delivering = true
	for len(t.events) > 0 {
		e := t.events[0]
		t.events[0] = event{} // else the list would hold the patch on
		t.events = t.events[1:]
		onDesired, onReported := k.onDesired, k.onReported
		k.mu.Unlock()
		if e.change != nil {
			for _, call := range onDesired {
				call(*e.change)
			}
		} else {
			for _, call := range onReported {
				call(t.id, e.reported)
			}
		}
		k.mu.Lock()
	}
	t.delivering = false
}
