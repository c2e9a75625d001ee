package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Identity is a device or a module as the registry shows it, the members used here.
type Identity struct {
	DeviceID        string `json:"deviceId"`
	ModuleID        string `json:"moduleId,omitempty"`
	GenerationID    string `json:"generationId,omitempty"`
	ETag            string `json:"etag,omitempty"`
	Status          string `json:"status,omitempty"`
	ManagedBy       string `json:"managedBy,omitempty"`
	ConnectionState string `json:"connectionState,omitempty"`
	Capabilities    *struct {
		IoTEdge bool `json:"iotEdge"`
	} `json:"capabilities,omitempty"`
	Authentication struct {
		Type         string `json:"type,omitempty"`
		SymmetricKey struct {
			Primary   string `json:"primaryKey,omitempty"`
			Secondary string `json:"secondaryKey,omitempty"`
		} `json:"symmetricKey"`
		Thumbprint struct {
			Primary   string `json:"primaryThumbprint,omitempty"`
			Secondary string `json:"secondaryThumbprint,omitempty"`
		} `json:"x509Thumbprint"`
	} `json:"authentication"`
}

// ID of the identity.
func (i Identity) ID() iothub.ID { return iothub.ID{Device: i.DeviceID, Module: i.ModuleID} }

// NewIdentity says what Create makes.
type NewIdentity struct {
	ID         iothub.ID
	Edge       bool     // a device that runs modules
	Key        string   // primary key, base64; empty: the hub makes both
	Thumbprint []string // of the client's certificates, at most two; then there are no keys
}

func identityPath(id iothub.ID) string {
	path := "/devices/" + url.PathEscape(id.Device)
	if id.IsModule() {
		path += "/modules/" + url.PathEscape(id.Module)
	}
	return path
}

func twinPath(id iothub.ID) string {
	path := "/twins/" + url.PathEscape(id.Device)
	if id.IsModule() {
		path += "/modules/" + url.PathEscape(id.Module)
	}
	return path
}

// Create makes a device or a module.
func (o *Owner) Create(ctx context.Context, n NewIdentity) (Identity, error) {
	body := Identity{DeviceID: n.ID.Device, ModuleID: n.ID.Module}
	if n.Edge {
		body.Capabilities = &struct {
			IoTEdge bool `json:"iotEdge"`
		}{true}
	}
	body.Authentication.Type = "sas"
	if n.Key != "" {
		body.Authentication.SymmetricKey.Primary, body.Authentication.SymmetricKey.Secondary = n.Key, n.Key
	}
	if len(n.Thumbprint) > 0 {
		body.Authentication.Type = "selfSigned"
		body.Authentication.Thumbprint.Primary = n.Thumbprint[0]
		body.Authentication.Thumbprint.Secondary = n.Thumbprint[len(n.Thumbprint)-1]
	}
	raw, err := o.call(ctx, http.MethodPut, identityPath(n.ID), "", body)
	return identity(raw, err)
}

// Identity reads a device or a module.
func (o *Owner) Identity(ctx context.Context, id iothub.ID) (Identity, error) {
	return identity(o.call(ctx, http.MethodGet, identityPath(id), "", nil))
}

func identity(raw json.RawMessage, err error) (Identity, error) {
	var i Identity
	if err == nil {
		err = json.Unmarshal(raw, &i)
	}
	return i, err
}

// Delete removes a device with its modules, or a module.
func (o *Owner) Delete(ctx context.Context, id iothub.ID) error {
	_, err := o.call(ctx, http.MethodDelete, identityPath(id), "*", nil)
	return err
}

// Devices lists the first 1000 devices.
func (o *Owner) Devices(ctx context.Context) ([]Identity, error) { return o.list(ctx, "/devices") }

// Modules lists the modules of a device.
func (o *Owner) Modules(ctx context.Context, device string) ([]Identity, error) {
	return o.list(ctx, identityPath(iothub.ID{Device: device})+"/modules")
}

func (o *Owner) list(ctx context.Context, path string) ([]Identity, error) {
	raw, err := o.call(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return nil, err
	}
	var list []Identity
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("read list: %w", err)
	}
	return list, nil
}

// ConnectionString is what a device or a module with a key is configured with.
func (o *Owner) ConnectionString(i Identity) (iothub.Secret, error) {
	cs := iothub.ConnectionString{Host: o.host, ID: i.ID(), X509: i.Authentication.Type == "selfSigned"}
	if !cs.X509 {
		key, err := iothub.ParseKey(i.Authentication.SymmetricKey.Primary)
		if err != nil {
			return "", fmt.Errorf("%s has no symmetric key (authentication %s): %w", i.ID(), i.Authentication.Type, err)
		}
		cs.Key = key
	}
	return cs.Text(), nil
}

// Twin reads a twin, as the service shows it.
func (o *Owner) Twin(ctx context.Context, id iothub.ID) (json.RawMessage, error) {
	return o.call(ctx, http.MethodGet, twinPath(id), "", nil)
}

// PatchTwin merges {"properties":{"desired":{…}},"tags":{…}} into a twin and returns it.
func (o *Owner) PatchTwin(ctx context.Context, id iothub.ID, patch json.RawMessage) (json.RawMessage, error) {
	return o.call(ctx, http.MethodPatch, twinPath(id), "*", patch)
}

// Invoke calls a direct method.
func (o *Owner) Invoke(ctx context.Context, id iothub.ID, req iothub.MethodRequest) (iothub.MethodResult, error) {
	var result iothub.MethodResult
	raw, err := o.call(ctx, http.MethodPost, twinPath(id)+"/methods", "", req)
	if err == nil {
		err = json.Unmarshal(raw, &result)
	}
	return result, err
}

// Apply sets the modules of one device: {"modulesContent":{…}}.
func (o *Owner) Apply(ctx context.Context, device string, content json.RawMessage) error {
	_, err := o.call(ctx, http.MethodPost, identityPath(iothub.ID{Device: device})+"/applyConfigurationContent", "", content)
	return err
}
