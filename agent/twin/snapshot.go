package twin

import (
	"context"
	"encoding/json"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Docs is the durable store of a [Keeper]: small documents by key.
type Docs interface {
	Get(key string) ([]byte, error)                          // nil, nil when absent
	Put(ctx context.Context, key string, value []byte) error // durable on return; a nil value deletes
	Keys(prefix string) ([]string, error)                    // every key that begins with prefix
}

// Snapshot is one twin at one moment. The sections are JSON objects without $version.
type Snapshot struct {
	Desired, Reported               json.RawMessage
	DesiredVersion, ReportedVersion int64
	Known                           bool // desired came from the hub or a deployment; false: nothing is known, sections may be empty
	Lost                            bool // it is not known because the disk lost what was: it must not be served before it is here again
}

// Client is the document a client gets for its twin: both sections with $version, which some SDKs insist on. A twin that is not known
// has versions 1, as a new twin on the hub.
func (s Snapshot) Client() []byte {
	out := append([]byte(`{"desired":`), withVersion(orEmpty(s.Desired), max(s.DesiredVersion, firstVersion))...)
	out = append(out, `,"reported":`...)
	out = append(out, withVersion(orEmpty(s.Reported), max(s.ReportedVersion, firstVersion))...)
	return append(out, '}')
}

// firstVersion is the version of a section of a new twin.
const firstVersion = 1

func orEmpty(object json.RawMessage) json.RawMessage {
	if len(object) == 0 {
		return json.RawMessage("{}")
	}
	return object
}

// Change is what a client has to be told about its desired section.
type Change struct {
	ID      iothub.ID
	Version int64           // version of the section after it
	Patch   json.RawMessage // merge patch, nulls included, with $version
}
