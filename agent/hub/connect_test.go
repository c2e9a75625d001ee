package hub_test

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/certtest"
	"github.com/sandpiper-edge/sandpiper/agent/hub"
	"github.com/sandpiper-edge/sandpiper/agent/hub/hubtest"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt/mqtttest"
)

func TestWrongCredentialsAreRefusedForGood(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	cs, other := register(t, h, "edge1", ""), register(t, h, "edge2", "")
	mint := func(resource string, expiry time.Time, key iothub.Key) string {
		token, err := iothub.MintToken(resource, "", expiry, key.Signer())
		if err != nil {
			t.Fatal(err)
		}
		return token.Reveal()
	}
	hour := time.Now().Add(time.Hour)
	tests := map[string]struct {
		o    mqtttest.Options
		want byte
	}{
		"another device's key":      {mqtttest.Options{Password: mint(cs.ID.Resource(h.Host), hour, other.Key)}, 5},
		"another device's audience": {mqtttest.Options{Password: mint(other.ID.Resource(h.Host), hour, cs.Key)}, 5},
		"another hub's audience":    {mqtttest.Options{Password: mint(cs.ID.Resource("contoso.example"), hour, cs.Key)}, 5},
		"an expired token":          {mqtttest.Options{Password: mint(cs.ID.Resource(h.Host), time.Now().Add(-time.Hour), cs.Key)}, 5},
		"no token":                  {mqtttest.Options{Password: "x"}, 5},
		"another client id":         {mqtttest.Options{ClientID: "edge2"}, 2},
		"no api-version":            {mqtttest.Options{UserName: h.Host + "/edge1/"}, 4},
		"an unknown device":         {mqtttest.Options{ClientID: "nobody", UserName: h.Host + "/nobody/?api-version=2021-04-12"}, 5},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := dial(t.Context(), h, cs, tt.o, nil)
			if err == nil {
				_ = c.Abort()
			}
			refused, ok := errors.AsType[*mqtttest.RefusedError](err)
			if !ok || refused.Code != tt.want {
				t.Errorf("got %v, want CONNACK %d", err, tt.want)
			}
		})
	}
	if err := connect(t, h, cs).Ping(t.Context()); err != nil {
		t.Errorf("the right token: %v", err)
	}
}

func TestACertificateIsKnownByItsThumbprint(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	certificate, _ := certtest.New(t, "")
	other, _ := certtest.New(t, "")
	sum := sha256.Sum256(certificate.Certificate[0])
	id := iothub.ID{Device: "edge1"}
	if _, err := h.Owner.Create(t.Context(), hub.NewIdentity{ID: id, Thumbprint: []string{hex.EncodeToString(sum[:])}}); err != nil {
		t.Fatal(err)
	}
	cs := iothub.ConnectionString{Host: h.Host, ID: id, X509: true}
	conf := h.TLS()
	conf.Certificates = []tls.Certificate{certificate}
	c, err := dial(t.Context(), h, cs, mqtttest.Options{}, conf)
	if err != nil {
		t.Fatalf("with the registered certificate: %v", err)
	}
	publish(t, c, "devices/edge1/messages/events/", "{}")
	_ = c.Abort()
	conf.Certificates = []tls.Certificate{other}
	if _, err := dial(t.Context(), h, cs, mqtttest.Options{}, conf); err == nil {
		t.Error("with another certificate: got a connection")
	}
}

func TestTheNewestConnectionWins(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	cs := register(t, h, "edge1", "")
	first := connect(t, h, cs)
	second := connect(t, h, cs)
	<-first.Ended()
	publish(t, second, "devices/edge1/messages/events/", "{}")
	found, err := h.Owner.Identity(t.Context(), cs.ID)
	if err != nil || found.ConnectionState != "Connected" {
		t.Errorf("registry: got %q, %v, want Connected", found.ConnectionState, err)
	}
}

func TestAChangedOrDeletedIdentityIsDisconnected(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	device := connect(t, h, register(t, h, "edge1", ""))
	module := connect(t, h, register(t, h, "edge1", "filter"))
	if err := h.Owner.Delete(t.Context(), iothub.ID{Device: "edge1", Module: "filter"}); err != nil {
		t.Fatal(err)
	}
	<-module.Ended()
	if err := device.Ping(t.Context()); err != nil {
		t.Errorf("the device of a deleted module: %v", err)
	}
	if err := h.Owner.Delete(t.Context(), iothub.ID{Device: "edge1"}); err != nil {
		t.Fatal(err)
	}
	<-device.Ended()
}

func TestAnExpiringTokenEndsTheConnection(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	cs := register(t, h, "edge1", "")
	expiry := time.Now().Add(-iothub.SkewTolerance + 2*time.Second)
	token, err := iothub.MintToken(cs.ID.Resource(h.Host), "", expiry, cs.Key.Signer())
	if err != nil {
		t.Fatal(err)
	}
	c, err := dial(t.Context(), h, cs, mqtttest.Options{Password: token.Reveal()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-c.Ended()
}

func TestAWillIsTelemetryOfAClientThatVanished(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	cs := register(t, h, "edge1", "")
	follow := make(chan hub.Event, 8)
	go func() {
		_ = h.Owner.Events(t.Context(), hub.EventQuery{Device: "edge1", Follow: true}, func(e hub.Event) error { follow <- e; return nil })
	}()
	c, err := dial(t.Context(), h, cs, mqtttest.Options{WillTopic: "devices/edge1/messages/events/a=b", WillPayload: []byte(`{"gone":true}`)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Abort()
	e := <-follow
	if e.Kind != "will" || e.Properties["iothub-MessageType"] != "Will" || e.Properties["a"] != "b" || string(e.Body) != `{"gone":true}` {
		t.Errorf("got %+v, want the will", e)
	}
}

func TestADeviceManagesItsOwnModulesOnly(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	cs, other := register(t, h, "edge1", ""), register(t, h, "edge2", "")
	own := restAs(t, h, cs)
	module := map[string]any{"deviceId": "edge1", "moduleId": "filter", "managedBy": "IotEdge"}
	tests := []struct {
		name, method, path, match string
		body                      any
		want                      int
	}{
		{"creates its module", "PUT", "/devices/edge1/modules/filter", "", module, 200},
		{"not twice", "PUT", "/devices/edge1/modules/filter", "", module, 409},
		{"updates its module", "PUT", "/devices/edge1/modules/filter", `"*"`, module, 200},
		{"lists its modules", "GET", "/devices/edge1/modules", "", nil, 200},
		{"not another's module", "PUT", "/devices/edge2/modules/filter", "", nil, 401},
		{"not itself", "PUT", "/devices/edge1", `"*"`, map[string]any{"status": "disabled"}, 401},
		{"no twins", "GET", "/twins/edge1", "", nil, 401},
		{"deletes its module", "DELETE", "/devices/edge1/modules/filter", `"*"`, nil, 204},
	}
	for _, tt := range tests {
		if got, body := own(tt.method, tt.path, tt.match, tt.body); got != tt.want {
			t.Errorf("%s: got %d %s, want %d", tt.name, got, body, tt.want)
		}
	}
	if got, body := restAs(t, h, other)("GET", "/devices/edge1/modules", "", nil); got != 401 || !json.Valid(body) {
		t.Errorf("another device: got %d %s, want 401", got, body)
	}
}
