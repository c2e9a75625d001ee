package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sandpiper-edge/sandpiper/agent/hub/state"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
)

// twins reads and changes twins for the service.
type twins struct {
	documents
	log *eventLog
}

// wholeTwin is a twin with the identity it belongs to.
type wholeTwin struct {
	identity identityDoc
	service  serviceTwin
	reported reportedTwin
}

// get reads the twin of an identity that must exist.
func (t twins) get(ctx context.Context, id iothub.ID) (wholeTwin, error) {
	identity, err := t.identity(ctx, id)
	if err != nil {
		return wholeTwin{}, err
	}
	service, err := load[serviceTwin](ctx, t.documents, id, state.KindService)
	if err != nil {
		return wholeTwin{}, err
	}
	reported, err := load[reportedTwin](ctx, t.documents, id, state.KindReported)
	if err != nil {
		return wholeTwin{}, err
	}
	if !service.ok || !reported.ok { // deleted between the reads
		return wholeTwin{}, t.notFound(id)
	}
	return wholeTwin{identity.doc, service.doc, reported.doc}, nil
}

// twinChange is what a service asks to be changed. A nil section is left as it is.
type twinChange struct {
	replace bool // sections replace; otherwise they are patches
	desired map[string]any
	tags    map[string]any
}

// parseTwinChange reads the body of PATCH (replace false) or PUT (true) on a twin. What only the hub may set is ignored, so that a
// twin may be sent back as it was read.
func parseTwinChange(body []byte, replace bool) (twinChange, error) {
	var b struct {
		Tags       json.RawMessage `json:"tags"`
		Properties struct {
			Desired json.RawMessage `json:"desired"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return twinChange{}, fmt.Errorf("twin is not JSON of the right shape: %w", err)
	}
	c := twinChange{replace: replace}
	var err error
	if c.desired, err = parseSection(b.Properties.Desired, replace); err != nil {
		return twinChange{}, err
	}
	if c.tags, err = parseSection(b.Tags, replace); err != nil {
		return twinChange{}, err
	}
	if err := validSection(twin.Desired, c.desired); err != nil {
		return twinChange{}, err
	}
	return c, validSection(twin.Tags, c.tags)
}

// parseSection reads one section. An absent one is nil. null replaces by nothing; in a patch it says nothing.
func parseSection(text json.RawMessage, replace bool) (map[string]any, error) {
	switch {
	case len(text) == 0, string(text) == "null" && !replace:
		return nil, nil
	case string(text) == "null":
		return map[string]any{}, nil
	}
	return twin.ParsePatch(text)
}

func validSection(section twin.Section, patch map[string]any) error {
	if patch == nil {
		return nil
	}
	return twin.Validate(section, patch)
}

// update applies a change and returns the twin after it. match is the etag it must have, "*" or empty for any.
func (t twins) update(ctx context.Context, id iothub.ID, match string, change twinChange) (wholeTwin, error) {
	var whole wholeTwin
	err := retry(ctx, func() error {
		identity, err := t.identity(ctx, id)
		if err != nil {
			return err
		}
		service, err := load[serviceTwin](ctx, t.documents, id, state.KindService)
		if err != nil {
			return err
		}
		if !service.ok {
			return t.notFound(id)
		}
		if have := service.doc.etag(); match != "" && match != "*" && match != have {
			return iothub.NewError(iothub.CodePrecondition, fmt.Sprintf("If-Match is %q, the etag is %q", match, have), t.now())
		}
		next, err := t.apply(service.doc, change)
		if err != nil {
			return err
		}
		p, err := put(id, state.KindService, service.revision, next)
		if err != nil {
			return err
		}
		if _, err := t.docs.Change(ctx, p); err != nil {
			return err
		}
		reported, err := load[reportedTwin](ctx, t.documents, id, state.KindReported)
		whole = wholeTwin{identity.doc, next, reported.doc}
		return err
	})
	if err != nil {
		return wholeTwin{}, asInvalid(err, t.documents)
	}
	return whole, t.log.twinChanged(ctx, id, whole.identity.Generation, change.event())
}

// apply is the twin after the change.
func (t twins) apply(doc serviceTwin, change twinChange) (serviceTwin, error) {
	now := t.now()
	var err error
	switch {
	case change.desired == nil:
	case change.replace:
		doc, err = doc.replaceDesired(change.desired, now)
	default:
		doc, err = doc.patchDesired(change.desired, now)
	}
	if err != nil {
		return serviceTwin{}, err
	}
	if change.tags != nil {
		have := doc.Tags
		if change.replace {
			have = nil
		}
		doc.Tags = twin.Merge(have, change.tags)
		if err := twin.Validate(twin.Tags, doc.Tags); err != nil {
			return serviceTwin{}, err
		}
	}
	doc.Count++
	return doc, nil
}

// event is the change as the twin event tells it.
func (c twinChange) event() object {
	body := object{}
	if c.desired != nil {
		body["properties"] = map[string]any{"desired": c.desired}
	}
	if c.tags != nil {
		body["tags"] = c.tags
	}
	return body
}

// asInvalid turns a broken limit into the service's answer.
func asInvalid(err error, d documents) error {
	if limit, ok := errors.AsType[*twin.LimitError](err); ok {
		return iothub.NewError(iothub.CodeInvalid, limit.Error(), d.now())
	}
	return err
}
