package twin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
)

// Keys of the documents of one identity, see the package doc.
const (
	desiredPrefix  = "twin/desired/"
	reportedPrefix = "twin/reported/"
)

// recordVersion is the version of both documents. Readers ignore members they do not know, so it rises only when an older agent
// would misread the newer form.
const recordVersion = 1

// markKey marks, in a stored pending patch, an object that replaces. No twin key may hold a '$'.
const markKey = "$replace"

type desiredRecord struct {
	V       int            `json:"v"`
	Version int64          `json:"version"`
	Desired map[string]any `json:"desired"`
	Ring    []stepRecord   `json:"ring,omitempty"`
	Gone    map[string]any `json:"gone,omitempty"`
}

type stepRecord struct {
	From int64          `json:"from"`
	To   int64          `json:"to"`
	Back map[string]any `json:"back"`
}

type reportedRecord struct {
	V       int            `json:"v"`
	Version int64          `json:"version"`
	Base    map[string]any `json:"base"`
	Pending map[string]any `json:"pending,omitempty"`
}

func (d *desired) encode() []byte {
	r := desiredRecord{V: recordVersion, Version: d.version, Desired: d.doc, Gone: d.gone}
	for _, s := range d.ring {
		r.Ring = append(r.Ring, stepRecord{s.from, s.to, s.back})
	}
	return encode(r)
}

func decodeDesired(raw []byte) (*desired, error) {
	var r desiredRecord
	if err := decodeRecord(raw, &r); err != nil {
		return nil, err
	}
	if err := checkRecord(r.V, r.Version, r.Desired); err != nil {
		return nil, err
	}
	d := &desired{known: true, version: r.Version, doc: r.Desired, gone: r.Gone}
	for _, s := range r.Ring {
		d.ring = append(d.ring, step{s.From, s.To, s.Back})
	}
	return d, nil
}

func (r *reported) encode() []byte {
	base := r.base
	if base == nil {
		base = map[string]any{}
	}
	return encode(reportedRecord{V: recordVersion, Version: r.version, Base: base, Pending: withMarks(r.pending())})
}

func decodeReported(raw []byte) (*reported, error) {
	var r reportedRecord
	if err := decodeRecord(raw, &r); err != nil {
		return nil, err
	}
	if err := checkRecord(r.V, r.Version, r.Base); err != nil {
		return nil, err
	}
	section := &reported{version: r.Version, base: r.Base}
	if len(r.Pending) > 0 {
		section.segments = []segment{{patch: withoutMarks(r.Pending)}}
	}
	return section, nil
}

func decodeRecord(raw []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	return dec.Decode(into)
}

func checkRecord(v int, version int64, doc map[string]any) error {
	if v != recordVersion {
		return fmt.Errorf("document version %d; this agent reads %d: install the agent that wrote it", v, recordVersion)
	}
	if version < firstVersion || doc == nil {
		return fmt.Errorf("section of version %d is incomplete", version)
	}
	return nil
}

func withMarks(patch map[string]any) map[string]any {
	out := make(map[string]any, len(patch))
	for key, value := range patch {
		switch v := value.(type) {
		case map[string]any:
			out[key] = withMarks(v)
		case replaced:
			marked := make(map[string]any, len(v)+1)
			maps.Copy(marked, v)
			marked[markKey] = true
			out[key] = marked
		default:
			out[key] = v
		}
	}
	return out
}

func withoutMarks(patch map[string]any) map[string]any {
	out := make(map[string]any, len(patch))
	for key, value := range patch {
		object, ok := value.(map[string]any)
		if !ok {
			out[key] = value
			continue
		}
		if _, marked := object[markKey]; marked {
			object = maps.Clone(object)
			delete(object, markKey)
			out[key] = replaced(object)
			continue
		}
		out[key] = withoutMarks(object)
	}
	return out
}
