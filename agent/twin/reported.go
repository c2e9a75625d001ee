package twin

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

const (
	// maxSegments bounds how many answers of the hub may be outstanding for one twin, each needing its part of pending kept apart.
	maxSegments = 4
	// pendingBytes is the size of a pending patch beyond which nulls for members that the hub is not known to hold are dropped. Without it
	// a module that invents names would grow the patch for as long as the link is down.
	pendingBytes = 32 << 10
)

// reported is a reported section: what the hub holds and what it is still to be told. It is never changed.
type reported struct {
	version  int64
	base     map[string]any // what the hub is known to hold
	segments []segment      // pending, oldest first
}

// segment is a part of pending. Marked ones were handed out by [Keeper.Pending]; the hub's answer removes exactly those.
type segment struct {
	mark  uint64 // 0: not handed out
	patch map[string]any
}

// local is the section as this device sees it.
func (r *reported) local() map[string]any {
	doc := Merge(nil, r.base)
	for _, s := range r.segments {
		doc = Merge(doc, s.patch)
	}
	return doc
}

// pending is everything the hub is still to be told.
func (r *reported) pending() map[string]any {
	var patch map[string]any
	for _, s := range r.segments {
		patch = compose(patch, s.patch)
	}
	return patch
}

// held is the most that the hub may hold now: base, and whatever was handed out and may have arrived.
func (r *reported) held() map[string]any {
	doc := r.base
	for _, s := range r.segments {
		if s.mark != 0 {
			doc = overlay(doc, s.patch)
		}
	}
	return doc
}

// fold is the section after a client's patch.
func (r *reported) fold(patch map[string]any) *reported {
	n := &reported{version: r.version + 1, base: r.base, segments: slices.Clone(r.segments)}
	if len(patch) == 0 {
		return n
	}
	last := len(n.segments) - 1
	if last < 0 || n.segments[last].mark != 0 {
		n.segments = append(n.segments, segment{patch: patch})
	} else {
		n.segments[last].patch = compose(n.segments[last].patch, patch)
	}
	if len(n.segments) > maxSegments {
		// The answer to the first mark will find nothing and its part be sent once more.
		n.segments[1].patch = compose(n.segments[0].patch, n.segments[1].patch)
		n.segments = n.segments[1:]
	}
	last = len(n.segments) - 1
	if len(encode(plain(n.segments[last].patch))) > pendingBytes {
		n.segments[last].patch = additions(n.segments[last].patch, n.held())
	}
	return n
}

// PatchReported merges a client's patch into its reported section and into what is pending for the hub, and returns the new version of
// the section. A patch that breaks a limit, or would take the section over its size, is a [*LimitError] and changes nothing.
func (k *Keeper) PatchReported(ctx context.Context, id iothub.ID, patch []byte) (version int64, err error) {
	change, _, err := parse("reported", patch)
	if err != nil {
		return 0, err
	}
	if err := Validate(Reported, change); err != nil {
		return 0, err
	}
	t, err := k.take(ctx, id)
	if err != nil {
		return 0, err
	}
	version, err = k.foldReported(ctx, t, change)
	t.release()
	k.deliver(t)
	return version, err
}

func (k *Keeper) foldReported(ctx context.Context, t *twin, change map[string]any) (int64, error) {
	have := t.reported.Load().open()
	before := have.local()
	// A section that is too large already, because the hub allowed it, may still shrink.
	if n := sizeOf(Merge(before, change)); n > max(Reported.MaxSize(), sizeOf(before)) {
		return 0, tooLarge(Reported, n)
	}
	n := have.fold(change)
	if err := k.storeReported(ctx, t, n); err != nil {
		return 0, err
	}
	k.queue(t, event{reported: encode(change)})
	return n.version, nil
}

// Pending is the patch the hub is still to be told, false when there is none. It is at most as large as a section may be: if more is pending the
// deletions come first and the rest once they are [Keeper.Sent]. mark names what was handed out. A new connection
// fetches the twin for [Keeper.Replace] before it asks: only then is it known which members an object that replaces has to delete.
func (k *Keeper) Pending(id iothub.ID) (patch json.RawMessage, mark uint64, ok bool) {
	if k.peek(id) == nil {
		return nil, 0, false
	}
	// Waiting for the turn is waiting for at most one commit.
	t, err := k.take(context.Background(), id)
	if err != nil {
		return nil, 0, false
	}
	defer t.release()
	have := t.reported.Load().open()
	last := len(have.segments) - 1
	if last < 0 {
		return nil, 0, false
	}
	whole := have.pending()
	wire := resolve(whole, have.held())
	n := &reported{version: have.version, base: have.base, segments: slices.Clone(have.segments)}
	if first := deletions(wire); sizeOf(wire) > Reported.MaxSize() && len(first) > 0 {
		n.segments = []segment{{mark: k.newMark(), patch: first}, {patch: additions(whole, nil)}}
		t.reported.Store(n.pack())
		return encode(first), n.segments[0].mark, true
	}
	if n.segments[last].mark == 0 {
		n.segments[last].mark = k.newMark()
		t.reported.Store(n.pack())
	}
	return encode(wire), n.segments[last].mark, true
}

func (k *Keeper) newMark() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lastMark++
	return k.lastMark
}

// Sent drops what [Keeper.Pending] handed out with mark, as the hub holds it now; what was reported since stays pending. A mark that
// is not known any more is ignored: its patch is sent once more.
func (k *Keeper) Sent(ctx context.Context, id iothub.ID, mark uint64) error {
	t, err := k.take(ctx, id)
	if err != nil {
		return err
	}
	defer t.release()
	have := t.reported.Load().open()
	i := slices.IndexFunc(have.segments, func(s segment) bool { return s.mark == mark && mark != 0 })
	if i < 0 {
		return nil
	}
	n := &reported{version: have.version, base: have.base, segments: have.segments[i+1:]}
	for _, s := range have.segments[:i+1] {
		n.base = Merge(n.base, s.patch)
	}
	return k.storeReported(ctx, t, n)
}

// rebase takes the hub's section as base. What is pending stays so, on top of it.
func (k *Keeper) rebase(ctx context.Context, t *twin, hub section) error {
	have := t.reported.Load().open()
	n := &reported{version: max(have.version, hub.version), base: hub.doc, segments: have.segments}
	if n.version == have.version && len(Diff(have.base, hub.doc)) == 0 {
		return nil
	}
	return k.storeReported(ctx, t, n)
}

// storeReported makes n durable, then visible.
func (k *Keeper) storeReported(ctx context.Context, t *twin, n *reported) error {
	if err := k.docs.Put(ctx, reportedPrefix+t.id.String(), n.encode()); err != nil {
		return fmt.Errorf("store reported of %s: %w", t.id, err)
	}
	t.reported.Store(n.pack())
	return nil
}
