package hub

import (
	"context"
	"fmt"

	"github.com/sandpiper-edge/sandpiper/agent/hub/state"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// maxModules is how many modules the service allows on one device.
const maxModules = 50

// registry creates, changes and deletes identities. Each call is one atomic change.
type registry struct {
	documents
	log *eventLog
}

// create makes an identity with its twin. An edge device gets its two system modules with it.
func (r registry) create(ctx context.Context, id iothub.ID, body identityBody) (identityDoc, error) {
	var made identityDoc
	err := retry(ctx, func() error {
		var err error
		made, err = r.createOnce(ctx, id, body)
		return err
	})
	if err != nil {
		return identityDoc{}, err
	}
	return made, r.tell(ctx, id, made, "createDeviceIdentity", "createModuleIdentity")
}

func (r registry) createOnce(ctx context.Context, id iothub.ID, body identityBody) (identityDoc, error) {
	if id.IsModule() {
		if _, err := r.identity(ctx, iothub.ID{Device: id.Device}); err != nil {
			return identityDoc{}, err
		}
		if err := r.room(ctx, id.Device, 1); err != nil {
			return identityDoc{}, err
		}
	}
	have, err := load[identityDoc](ctx, r.documents, id, state.KindIdentity)
	if err != nil {
		return identityDoc{}, err
	}
	if have.ok {
		return identityDoc{}, r.exists(id)
	}
	doc, err := r.newIdentity(id, body)
	if err != nil {
		return identityDoc{}, err
	}
	puts, err := r.puts(ctx, id, doc, nil)
	if err != nil {
		return identityDoc{}, err
	}
	if doc.Edge {
		system, err := r.systemModules(ctx, id.Device)
		if err != nil {
			return identityDoc{}, err
		}
		puts = append(puts, system...)
	}
	_, err = r.docs.Change(ctx, puts...)
	return doc, err
}

func (r registry) exists(id iothub.ID) *iothub.Error {
	if id.IsModule() {
		return iothub.NewError(iothub.CodeModuleExists, fmt.Sprintf("module %s exists already; an update needs an If-Match header", id), r.now())
	}
	return iothub.NewError(iothub.CodeDeviceExists, fmt.Sprintf("device %s exists already; an update needs an If-Match header", id), r.now())
}

// room refuses the modules that would be too many.
func (r registry) room(ctx context.Context, device string, more int) error {
	modules, err := r.docs.Modules(ctx, device, state.KindIdentity)
	if err != nil {
		return err
	}
	if len(modules)+more > maxModules {
		return iothub.NewError(iothub.CodeQuota, fmt.Sprintf("device %s has %d modules, %d are allowed", device, len(modules), maxModules), r.now())
	}
	return nil
}

// newIdentity is the document of a new identity.
func (r registry) newIdentity(id iothub.ID, body identityBody) (identityDoc, error) {
	now := r.now()
	doc := identityDoc{V: docVersion, Generation: newGeneration(now), Status: statusEnabled}
	if !id.IsModule() && body.Capabilities != nil && body.Capabilities.IoTEdge {
		doc.Scope = edgeScope(id.Device, doc.Generation)
	}
	return r.apply(id, doc, body)
}

// edgeScope is what children of an edge device name as theirs.
func edgeScope(device, generation string) string {
	return "ms-azure-iot-edge://" + device + "-" + generation
}

// apply sets what a body may set, and gives the document a new etag.
func (r registry) apply(id iothub.ID, doc identityDoc, body identityBody) (identityDoc, error) {
	auth, err := body.Authentication.apply(doc.Auth)
	if err != nil {
		return identityDoc{}, iothub.NewError(iothub.CodeInvalid, err.Error(), r.now())
	}
	doc.Auth, doc.ETag = auth, newETag()
	if id.IsModule() {
		if body.ManagedBy != nil {
			doc.ManagedBy = shorten(*body.ManagedBy)
		}
		return doc, nil
	}
	switch body.Status {
	case "":
	case statusEnabled, statusDisabled:
		if doc.Status != body.Status {
			doc.Status, doc.StatusTime = body.Status, r.now().UTC()
		}
	default:
		return identityDoc{}, iothub.NewError(iothub.CodeInvalid, "status must be enabled or disabled", r.now())
	}
	if body.StatusReason != nil {
		doc.StatusReason = shorten(*body.StatusReason)
	}
	if body.Capabilities != nil {
		doc.Edge = body.Capabilities.IoTEdge
	}
	switch {
	case doc.Edge && doc.Scope == "":
		doc.Scope = edgeScope(id.Device, doc.Generation)
	case !doc.Edge && body.DeviceScope != "":
		doc.Scope = shorten(body.DeviceScope)
	}
	if len(body.ParentScopes) > 1 {
		return identityDoc{}, iothub.NewError(iothub.CodeInvalid, "a device has at most one parent scope", r.now())
	}
	if len(body.ParentScopes) == 1 {
		doc.ParentScopes = []string{shorten(body.ParentScopes[0])}
	}
	return doc, nil
}

// shorten keeps free text at the service's 128 characters.
func shorten(text string) string {
	if n := 0; len(text) > 128 {
		for i := range text {
			if n++; n > 128 {
				return text[:i]
			}
		}
	}
	return text
}

// puts writes a new identity and its twin, over whatever was deleted under its name before. desired is the section it starts
// with; nil leaves it as a new twin is.
func (r registry) puts(ctx context.Context, id iothub.ID, doc identityDoc, desired map[string]any) ([]state.Put, error) {
	service, reported := newTwin(r.now())
	if desired != nil {
		var err error
		if service, err = service.replaceDesired(desired, r.now()); err != nil {
			return nil, err
		}
	}
	var puts []state.Put
	for _, part := range []struct {
		kind string
		doc  any
	}{{state.KindIdentity, doc}, {state.KindService, service}, {state.KindReported, reported}} {
		old, err := r.docs.Get(ctx, docKey(id, part.kind))
		if err != nil {
			return nil, err
		}
		p, err := put(id, part.kind, old.Revision, part.doc)
		if err != nil {
			return nil, err
		}
		puts = append(puts, p)
	}
	return puts, nil
}

// systemModules makes $edgeAgent and $edgeHub where they are missing.
func (r registry) systemModules(ctx context.Context, device string) ([]state.Put, error) {
	var puts []state.Put
	for _, module := range []string{iothub.EdgeAgent, iothub.EdgeHub} {
		id := iothub.ID{Device: device, Module: module}
		have, err := load[identityDoc](ctx, r.documents, id, state.KindIdentity)
		if err != nil {
			return nil, err
		}
		if have.ok {
			continue
		}
		more, err := r.managedModule(ctx, id, nil)
		if err != nil {
			return nil, err
		}
		puts = append(puts, more...)
	}
	return puts, nil
}

// managedModule makes a module that the edge runtime manages.
func (r registry) managedModule(ctx context.Context, id iothub.ID, desired map[string]any) ([]state.Put, error) {
	managed := managedByEdge
	doc, err := r.newIdentity(id, identityBody{ManagedBy: &managed})
	if err != nil {
		return nil, err
	}
	return r.puts(ctx, id, doc, desired)
}

// update changes an identity. match is the etag it must have, "*" for any.
func (r registry) update(ctx context.Context, id iothub.ID, match string, body identityBody) (identityDoc, error) {
	var made identityDoc
	err := retry(ctx, func() error {
		have, err := r.identity(ctx, id)
		if err != nil {
			return err
		}
		if err := r.match(match, have.doc.ETag); err != nil {
			return err
		}
		if made, err = r.apply(id, have.doc, body); err != nil {
			return err
		}
		p, err := put(id, state.KindIdentity, have.revision, made)
		if err != nil {
			return err
		}
		puts := []state.Put{p}
		if made.Edge && !have.doc.Edge {
			system, err := r.systemModules(ctx, id.Device)
			if err != nil {
				return err
			}
			puts = append(puts, system...)
		}
		_, err = r.docs.Change(ctx, puts...)
		return err
	})
	return made, err
}

// match compares an If-Match header with an etag.
func (r registry) match(want, have string) error {
	if want == "" || want == "*" || want == have {
		return nil
	}
	return iothub.NewError(iothub.CodePrecondition, fmt.Sprintf("If-Match is %q, the etag is %q", want, have), r.now())
}

// remove deletes an identity with all its documents; a device with its modules.
func (r registry) remove(ctx context.Context, id iothub.ID, match string) error {
	var gone identityDoc
	err := retry(ctx, func() error {
		have, err := r.identity(ctx, id)
		if err != nil {
			return err
		}
		if err := r.match(match, have.doc.ETag); err != nil {
			return err
		}
		gone = have.doc
		var puts []state.Put
		kinds := []string{state.KindIdentity, state.KindService, state.KindReported, state.KindSession}
		for _, kind := range kinds {
			own, err := r.docs.Get(ctx, docKey(id, kind))
			if err != nil {
				return err
			}
			docs := []state.Doc{own}
			if !id.IsModule() {
				modules, err := r.docs.Modules(ctx, id.Device, kind)
				if err != nil {
					return err
				}
				docs = append(docs, modules...)
			}
			for _, doc := range docs {
				if doc.Exists() {
					puts = append(puts, state.Put{Key: doc.Key, Expect: doc.Revision})
				}
			}
		}
		_, err = r.docs.Change(ctx, puts...)
		return err
	})
	if err != nil {
		return err
	}
	return r.tell(ctx, id, gone, "deleteDeviceIdentity", "deleteModuleIdentity")
}

// tell writes a life cycle event.
func (r registry) tell(ctx context.Context, id iothub.ID, doc identityDoc, device, module string) error {
	operation := device
	if id.IsModule() {
		operation = module
	}
	return r.log.operation(ctx, state.EventLifeCycle, id, doc.Generation, operation, object{})
}
