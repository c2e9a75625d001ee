package hub

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Values of identity members, as the service spells them.
const (
	statusEnabled  = "enabled"
	statusDisabled = "disabled"

	authSAS  = "sas"
	authSelf = "selfSigned"
	authCA   = "certificateAuthority"
	authNone = "none"

	managedByEdge = "IotEdge"

	// How the speaker of an event was authenticated.
	authByKey  = "sas"
	authByCert = "x509"
	authHub    = "hub" // the hub speaks itself
)

// identityDoc is a device or a module as stored.
type identityDoc struct {
	V            int       `json:"v"`
	Generation   string    `json:"generation"`
	ETag         string    `json:"etag"`
	Status       string    `json:"status"`
	StatusReason string    `json:"statusReason,omitempty"`
	StatusTime   time.Time `json:"statusTime,omitzero"`
	Auth         authDoc   `json:"auth"`
	Edge         bool      `json:"edge,omitempty"`
	Scope        string    `json:"scope,omitempty"`
	ParentScopes []string  `json:"parentScopes,omitempty"`
	ManagedBy    string    `json:"managedBy,omitempty"`
}

func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// Names of JSON members that several documents share.
type (
	capabilities struct {
		IoTEdge bool `json:"iotEdge"`
	}
	thumbprints struct {
		Primary   *string `json:"primaryThumbprint"`
		Secondary *string `json:"secondaryThumbprint"`
	}
	symmetricKeys struct {
		Primary   *string `json:"primaryKey"`
		Secondary *string `json:"secondaryKey"`
	}
	authBody struct {
		Type         string         `json:"type"`
		SymmetricKey *symmetricKeys `json:"symmetricKey"`
		Thumbprint   *thumbprints   `json:"x509Thumbprint"`
	}
)

// identityBody is a device or a module in REST bodies, both ways. What a client may not set is ignored on the way in.
type identityBody struct {
	DeviceID               string        `json:"deviceId"`
	ModuleID               string        `json:"moduleId,omitempty"`
	ManagedBy              *string       `json:"managedBy,omitempty"`
	GenerationID           string        `json:"generationId"`
	ETag                   string        `json:"etag"`
	ConnectionState        string        `json:"connectionState"`
	Status                 string        `json:"status,omitempty"`
	StatusReason           *string       `json:"statusReason,omitempty"`
	ConnectionStateUpdated string        `json:"connectionStateUpdatedTime"`
	StatusUpdatedTime      string        `json:"statusUpdatedTime,omitempty"`
	LastActivityTime       string        `json:"lastActivityTime"`
	CloudToDeviceCount     int           `json:"cloudToDeviceMessageCount"`
	Authentication         *authBody     `json:"authentication"`
	Capabilities           *capabilities `json:"capabilities,omitempty"`
	DeviceScope            string        `json:"deviceScope,omitempty"`
	ParentScopes           []string      `json:"parentScopes,omitempty"`
}

// body is the document as REST shows it.
func (d identityDoc) body(id iothub.ID, connected connection) identityBody {
	b := identityBody{
		DeviceID:               id.Device,
		ModuleID:               id.Module,
		GenerationID:           d.Generation,
		ETag:                   d.ETag,
		ConnectionState:        connected.state(),
		ConnectionStateUpdated: timeText(connected.since),
		LastActivityTime:       timeText(connected.since),
		Authentication: &authBody{
			Type:         d.Auth.Type,
			SymmetricKey: &symmetricKeys{Primary: optional(d.Auth.Primary), Secondary: optional(d.Auth.Secondary)},
		},
	}
	thumbs := d.Auth.thumbprints()
	b.Authentication.Thumbprint = &thumbs
	if id.IsModule() {
		b.ManagedBy = &d.ManagedBy
		return b
	}
	b.Status, b.StatusReason, b.StatusUpdatedTime = d.Status, &d.StatusReason, timeText(d.StatusTime)
	b.Capabilities = &capabilities{IoTEdge: d.Edge}
	b.DeviceScope, b.ParentScopes = d.Scope, d.ParentScopes
	return b
}

// connection is what presence says of an identity.
type connection struct {
	up    bool
	since time.Time
}

func (c connection) state() string {
	if c.up {
		return "Connected"
	}
	return "Disconnected"
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return never
	}
	return t.UTC().Format("2006-01-02T15:04:05.0000000Z")
}

// newGeneration tells two identities of one name apart. The service counts tenths of microseconds since year 1.
func newGeneration(now time.Time) string {
	const untilUnix = 621355968000000000
	return strconv.FormatInt(now.UnixNano()/100+untilUnix, 10)
}

// newETag is different from every other with all but certainty. The service prints a number as base64, so do we.
func newETag() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return base64.StdEncoding.EncodeToString(strconv.AppendUint(nil, uint64(binary.BigEndian.Uint32(b[:])), 10))
}
