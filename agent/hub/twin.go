package hub

import (
	"encoding/base64"
	"encoding/binary"
	"slices"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/twin"
)

// The last patches of a desired section are kept, so that a client that was away is told each of them.
const (
	ringPatches = 8
	ringBytes   = 16 << 10
)

// serviceTwin is the service's half of a twin, as stored.
type serviceTwin struct {
	V       int         `json:"v"`
	Count   uint64      `json:"count"` // writes by the service: the etag
	Version int64       `json:"version"`
	Tags    object      `json:"tags"`
	Desired object      `json:"desired"`
	Meta    object      `json:"meta"`
	Ring    []ringPatch `json:"ring,omitempty"`
}

// ringPatch is one change of a desired section.
type ringPatch struct {
	Version int64  `json:"version"` // of the section after it
	Patch   object `json:"patch"`   // as clients are told it, without $version
}

// reportedTwin is the device's half of a twin, as stored.
type reportedTwin struct {
	V        int    `json:"v"`
	Version  int64  `json:"version"`
	Reported object `json:"reported"`
	Meta     object `json:"meta"`
}

// newTwin is the twin of an identity that was just created: both sections at version 1.
func newTwin(now time.Time) (serviceTwin, reportedTwin) {
	meta := twin.Touch(nil, nil, now, 0)
	return serviceTwin{V: docVersion, Count: 1, Version: 1, Meta: meta}, reportedTwin{V: docVersion, Version: 1, Meta: meta}
}

// etag is the twin's: the count of service writes in the form the service prints it.
func (t serviceTwin) etag() string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, t.Count))
}

// patchDesired merges a checked patch into the section.
func (t serviceTwin) patchDesired(patch map[string]any, now time.Time) (serviceTwin, error) {
	return t.setDesired(twin.Merge(t.Desired, patch), patch, now)
}

// replaceDesired makes section the whole section. Clients are told a difference of presence: members that vanished come as
// null, and those that are there come with their values, changed or not.
func (t serviceTwin) replaceDesired(section map[string]any, now time.Time) (serviceTwin, error) {
	section = twin.Merge(nil, section) // a null in a whole section means absent
	next, err := t.setDesired(section, vanished(t.Desired, section), now)
	if err != nil {
		return serviceTwin{}, err
	}
	next.Meta = twin.Touch(nil, section, now, next.Version)
	return next, nil
}

func (t serviceTwin) setDesired(section, patch map[string]any, now time.Time) (serviceTwin, error) {
	if err := twin.Validate(twin.Desired, section); err != nil {
		return serviceTwin{}, err
	}
	t.Version++
	t.Desired = section
	t.Meta = twin.Touch(t.Meta, patch, now, t.Version)
	t.Ring = pushRing(t.Ring, ringPatch{Version: t.Version, Patch: patch})
	return t, nil
}

// vanished is a patch that says section and has null for what from has beyond it.
func vanished(from, section map[string]any) map[string]any {
	patch := make(map[string]any, len(section))
	for key := range from {
		if _, kept := section[key]; !kept {
			patch[key] = nil
		}
	}
	for key, value := range section {
		inner, isObject := value.(map[string]any)
		old, wasObject := from[key].(map[string]any)
		if isObject && wasObject {
			value = vanished(old, inner)
		}
		patch[key] = value
	}
	return patch
}

// pushRing adds a patch and drops the oldest beyond the limits. A patch larger than the ring empties it.
func pushRing(ring []ringPatch, p ringPatch) []ringPatch {
	ring = append(ring[:len(ring):len(ring)], p)
	total := 0
	for i, entry := range slices.Backward(ring) {
		text, err := entry.Patch.MarshalJSON()
		total += len(text)
		if err != nil || total > ringBytes || len(ring)-i > ringPatches {
			return ring[i+1:]
		}
	}
	return ring
}

// since is every patch after version, in order; false when the ring does not reach back that far.
func (t serviceTwin) since(version int64) ([]ringPatch, bool) {
	for i, p := range t.Ring {
		if p.Version == version+1 {
			return t.Ring[i:], true
		}
	}
	return nil, version >= t.Version
}

// patchReported merges a checked patch of the device into its section.
func (t reportedTwin) patchReported(patch map[string]any, now time.Time) (reportedTwin, error) {
	section := twin.Merge(t.Reported, patch)
	if err := twin.Validate(twin.Reported, section); err != nil {
		return reportedTwin{}, err
	}
	t.Version++
	t.Reported = section
	t.Meta = twin.Touch(t.Meta, patch, now, 0)
	return t, nil
}
