package hub

import (
	"encoding/json"
	"maps"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
)

// never is how the service prints a time that has not come yet.
const never = "0001-01-01T00:00:00Z"

// twinView is a twin as the service's REST interface shows it.
type twinView struct {
	DeviceID           string          `json:"deviceId"`
	ModuleID           string          `json:"moduleId,omitempty"`
	ETag               string          `json:"etag"`
	DeviceETag         string          `json:"deviceEtag"`
	Status             string          `json:"status"`
	StatusReason       string          `json:"statusReason,omitempty"`
	StatusUpdateTime   string          `json:"statusUpdateTime"`
	ConnectionState    string          `json:"connectionState"`
	LastActivityTime   string          `json:"lastActivityTime"`
	CloudToDeviceCount int             `json:"cloudToDeviceMessageCount"`
	AuthenticationType string          `json:"authenticationType"`
	X509Thumbprint     thumbprints     `json:"x509Thumbprint"`
	ModelID            string          `json:"modelId"`
	Version            uint64          `json:"version"`
	Tags               object          `json:"tags"`
	Properties         twinProperties  `json:"properties"`
	Capabilities       *capabilities   `json:"capabilities,omitempty"`
	DeviceScope        string          `json:"deviceScope,omitempty"`
	ParentScopes       []string        `json:"parentScopes,omitempty"`
	Configurations     json.RawMessage `json:"configurations,omitempty"`
}

type twinProperties struct {
	Desired  object `json:"desired"`
	Reported object `json:"reported"`
}

// view puts the parts of a twin together for the service.
func (t serviceTwin) view(id iothub.ID, identity identityDoc, reported reportedTwin, connected connection) twinView {
	v := twinView{
		DeviceID:           id.Device,
		ModuleID:           id.Module,
		ETag:               t.etag(),
		DeviceETag:         identity.ETag,
		Status:             identity.Status,
		StatusReason:       identity.StatusReason,
		StatusUpdateTime:   timeText(identity.StatusTime),
		ConnectionState:    connected.state(),
		LastActivityTime:   timeText(connected.since),
		AuthenticationType: identity.Auth.Type,
		X509Thumbprint:     identity.Auth.thumbprints(),
		Version:            t.Count + uint64(reported.Version),
		Tags:               t.Tags,
		Properties: twinProperties{
			Desired:  section(t.Desired, t.Meta, t.Version),
			Reported: section(reported.Reported, reported.Meta, reported.Version),
		},
	}
	if !id.IsModule() {
		v.Capabilities = &capabilities{IoTEdge: identity.Edge}
		v.DeviceScope, v.ParentScopes = identity.Scope, identity.ParentScopes
	}
	return v
}

// section is a section with what the service adds to it.
func section(content, meta object, version int64) object {
	out := make(object, len(content)+2)
	maps.Copy(out, content)
	out["$metadata"] = map[string]any(meta)
	out["$version"] = version
	return out
}

// clientTwin is what a device gets when it asks for its twin.
func clientTwin(service serviceTwin, reported reportedTwin) ([]byte, error) {
	desired, err := service.Desired.MarshalJSON()
	if err != nil {
		return nil, err
	}
	own, err := reported.Reported.MarshalJSON()
	if err != nil {
		return nil, err
	}
	return twin.Snapshot{
		Desired: desired, DesiredVersion: service.Version,
		Reported: own, ReportedVersion: reported.Version,
		Known: true,
	}.Client(), nil
}

// patchBody is a desired patch as a client gets it.
func (p ringPatch) body() ([]byte, error) {
	out := make(object, len(p.Patch)+1)
	maps.Copy(out, p.Patch)
	out["$version"] = p.Version
	return out.MarshalJSON()
}
