package twin

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Bounds on what is kept beside a desired section to tell a client that was away what changed.
const (
	ringSteps = 8        // differences
	ringBytes = 16 << 10 // of their text, together
	goneBytes = 8 << 10  // of the text of members that are no more
)

// desired is a desired section with its recent past. It is never changed.
type desired struct {
	known   bool
	version int64
	doc     map[string]any
	ring    []step         // oldest first; each begins where the one before ends, the last ends at version
	gone    map[string]any // patch of nulls: members that were there once and are not now
}

// step is one change, kept as the way back: patch turns the section of version to into that of version from. Going back and
// taking the difference is exact where composing the patches forward would not be.
type step struct {
	from, to int64
	back     map[string]any
}

// next is the section after a change to doc.
func (d *desired) next(doc map[string]any, version int64) *desired {
	n := &desired{known: true, version: version, doc: doc}
	n.gone = deletions(compose(d.gone, Diff(d.doc, doc)))
	if len(encode(n.gone)) > goneBytes {
		n.gone = nil
	}
	if !d.known || version <= d.version {
		return n // another twin under the same name: versions seen before mean nothing now
	}
	n.ring = append(append(n.ring, d.ring...), step{d.version, version, Diff(doc, d.doc)})
	room := ringBytes
	for i := len(n.ring) - 1; i >= 0; i-- {
		room -= len(encode(n.ring[i].back))
		if room < 0 || len(n.ring)-i > ringSteps {
			n.ring = n.ring[i+1:]
			break
		}
	}
	return n
}

// since is the patch for a client that has version.
func (d *desired) since(version int64) map[string]any {
	doc := d.doc
	for i := len(d.ring) - 1; i >= 0; i-- {
		doc = Merge(doc, d.ring[i].back)
		if d.ring[i].from == version {
			return Diff(doc, d.doc)
		}
	}
	return plain(compose(d.gone, d.doc))
}

// change is what listeners are told: patch with the version reached.
func (d *desired) change(id iothub.ID, patch map[string]any) Change {
	return Change{ID: id, Version: d.version, Patch: withVersion(encode(patch), d.version)}
}

// SetDesired replaces the desired section, as a deployment does on a device without a hub: the version rises by one and listeners get the
// difference. An equal section is no change: Change is then zero.
func (k *Keeper) SetDesired(ctx context.Context, id iothub.ID, section json.RawMessage) (Change, error) {
	doc, _, err := parse("desired", section)
	if err != nil {
		return Change{}, err
	}
	if err := Validate(Desired, doc); err != nil {
		return Change{}, err
	}
	doc = Merge(nil, doc) // null is no value of a section
	t, err := k.take(ctx, id)
	if err != nil {
		return Change{}, err
	}
	have := t.desired.Load().open()
	difference := Diff(have.doc, doc)
	if have.known && len(difference) == 0 {
		t.release()
		return Change{}, nil
	}
	n := have.next(doc, have.version+1)
	change := n.change(id, difference)
	err = k.storeDesired(ctx, t, n, change)
	t.release()
	k.deliver(t)
	if err != nil {
		return Change{}, err
	}
	return change, nil
}

// ApplyDesired takes a patch from the hub with $version in it. A version that is here already is ignored. A version beyond the next one,
// or any patch to a twin that is not known, is a gap: nothing is stored and the caller fetches the whole twin for [Keeper.Replace].
func (k *Keeper) ApplyDesired(ctx context.Context, id iothub.ID, patch json.RawMessage) (gap bool, err error) {
	change, version, err := parse("desired", patch)
	if err != nil {
		return false, err
	}
	if version == 0 {
		return false, &LimitError{"desired.$version", "missing", "the version of the section after the patch"}
	}
	t, err := k.take(ctx, id)
	if err != nil {
		return false, err
	}
	have := t.desired.Load().open()
	if !have.known || version > have.version+1 {
		t.release()
		return true, nil
	}
	if version <= have.version {
		t.release()
		return false, nil
	}
	n := have.next(Merge(have.doc, change), version)
	err = k.storeDesired(ctx, t, n, n.change(id, change))
	t.release()
	k.deliver(t)
	return false, err
}

// Replace takes the whole twin as the hub serves it to a device. Listeners get the difference of the desired section. The
// reported section becomes what the hub holds with the pending patch on top; a twin whose versions went back is a new twin and taken as it is.
func (k *Keeper) Replace(ctx context.Context, id iothub.ID, whole json.RawMessage) error {
	wantDesired, wantReported, err := parseWhole(whole)
	if err != nil {
		return err
	}
	t, err := k.take(ctx, id)
	if err != nil {
		return err
	}
	err = k.replaceDesired(ctx, t, wantDesired)
	if err == nil {
		err = k.rebase(ctx, t, wantReported)
	}
	t.release()
	k.deliver(t)
	return err
}

func (k *Keeper) replaceDesired(ctx context.Context, t *twin, want section) error {
	have := t.desired.Load().open()
	difference := Diff(have.doc, want.doc)
	if have.known && have.version == want.version && len(difference) == 0 {
		return nil
	}
	n := have.next(want.doc, want.version)
	return k.storeDesired(ctx, t, n, n.change(t.id, difference))
}

// storeDesired makes n durable, then visible, then known to the listeners once the turn is given back.
func (k *Keeper) storeDesired(ctx context.Context, t *twin, n *desired, change Change) error {
	if err := k.docs.Put(ctx, desiredPrefix+t.id.String(), n.encode()); err != nil {
		return fmt.Errorf("store desired of %s: %w", t.id, err)
	}
	t.desired.Store(n.pack())
	k.queue(t, event{change: &change})
	return nil
}

// DesiredSince is what a client must be sent that last saw version: the exact difference while that version is remembered, otherwise the
// whole section with null for the members known to be gone. False when it has the current version or nothing is known.
func (k *Keeper) DesiredSince(id iothub.ID, version int64) (Change, bool) {
	t := k.peek(id)
	if t == nil {
		return Change{}, false
	}
	d := t.desired.Load()
	if !d.known || d.version == version {
		return Change{}, false
	}
	section := d.open()
	return section.change(id, section.since(version)), true
}

// section is one parsed section of a twin.
type section struct {
	doc     map[string]any
	version int64
}

// parseWhole reads {"desired":{…},"reported":{…}}. A section that is missing is new.
func parseWhole(raw json.RawMessage) (want, has section, err error) {
	object, _, err := parse("twin", raw)
	if err != nil {
		return section{}, section{}, err
	}
	if want, err = sectionOf(object, Desired); err != nil {
		return section{}, section{}, err
	}
	has, err = sectionOf(object, Reported)
	return want, has, err
}

func sectionOf(object map[string]any, name Section) (section, error) {
	value, ok := object[name.String()]
	if !ok || value == nil {
		return section{map[string]any{}, firstVersion}, nil
	}
	doc, ok := value.(map[string]any)
	if !ok {
		return section{}, &LimitError{name.String(), fmt.Sprintf("a %T", value), "an object"}
	}
	version, err := versionOf(name.String(), doc)
	if err != nil {
		return section{}, err
	}
	doc = Merge(nil, doc) // null is no value of a section
	delete(doc, "$version")
	delete(doc, "$metadata")
	return section{doc, max(version, firstVersion)}, nil
}
