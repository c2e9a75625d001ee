package twin

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// packedDesired is a desired section as it rests in memory: text, a sixth of what its tree would take. It is opened for a change and by
// whoever asks for a difference. It is never changed.
type packedDesired struct {
	known   bool
	version int64
	doc     json.RawMessage // the section
	past    json.RawMessage // ring and gone, as on disk; nil = neither
}

// pack copies, because an encoder's buffer is larger than what it holds.
func (d *desired) pack() *packedDesired {
	p := &packedDesired{known: d.known, version: d.version, doc: bytes.Clone(encode(d.doc))}
	if len(d.ring) > 0 || len(d.gone) > 0 {
		p.past = d.past()
	}
	return p
}

// past is the record without the section itself.
func (d *desired) past() json.RawMessage {
	short := *d
	short.doc = nil
	return bytes.Clone(short.encode())
}

func (p *packedDesired) open() *desired {
	d := &desired{known: p.known, version: p.version, doc: opened(p.doc)}
	if p.past == nil {
		return d
	}
	var r desiredRecord
	if err := decodeRecord(p.past, &r); err != nil {
		panic(fmt.Sprintf("twin: what was packed cannot be opened: %v", err))
	}
	for _, s := range r.Ring {
		d.ring = append(d.ring, step{s.From, s.To, s.Back})
	}
	d.gone = r.Gone
	return d
}

// packedReported is a reported section as it rests in memory. It is never changed.
type packedReported struct {
	version  int64
	base     json.RawMessage // nil = nothing is known of the hub's
	segments []packedSegment
}

type packedSegment struct {
	mark  uint64
	patch json.RawMessage // objects that replace are marked as on disk
}

func (r *reported) pack() *packedReported {
	p := &packedReported{version: r.version}
	if r.base != nil {
		p.base = bytes.Clone(encode(r.base))
	}
	for _, s := range r.segments {
		p.segments = append(p.segments, packedSegment{s.mark, bytes.Clone(encode(withMarks(s.patch)))})
	}
	return p
}

func (p *packedReported) open() *reported {
	r := &reported{version: p.version}
	if p.base != nil {
		r.base = opened(p.base)
	}
	for _, s := range p.segments {
		r.segments = append(r.segments, segment{s.mark, withoutMarks(opened(s.patch))})
	}
	return r
}

// stored tells whether anything was ever made durable.
func (p *packedReported) stored() bool { return p.base != nil || p.version > firstVersion }

// local is the section as this device sees it, as text.
func (p *packedReported) local() json.RawMessage {
	if len(p.segments) == 0 {
		return append(json.RawMessage(nil), orEmpty(p.base)...)
	}
	return encode(p.open().local())
}

// opened reads a section of our own making.
func opened(raw json.RawMessage) map[string]any {
	var doc map[string]any
	if err := decodeRecord(raw, &doc); err != nil {
		panic(fmt.Sprintf("twin: what was packed cannot be opened: %v", err))
	}
	if doc == nil {
		doc = map[string]any{}
	}
	return doc
}
