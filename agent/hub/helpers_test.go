package hub_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/hub/hubtest"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt/mqtttest"
)

// register makes a device or a module.
func register(t *testing.T, h *hubtest.Hub, device, module string) iothub.ConnectionString {
	t.Helper()
	create := func() (iothub.ConnectionString, error) { return h.CreateDevice(t.Context(), device) }
	if module != "" {
		create = func() (iothub.ConnectionString, error) { return h.CreateModule(t.Context(), device, module) }
	}
	cs, err := create()
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

func userName(cs iothub.ConnectionString) string {
	return iothub.UserName{Hub: cs.Host, ID: cs.ID, APIVersion: iothub.APIVersion}.String()
}

// dial connects with options; what is empty is filled in from the connection string.
func dial(ctx context.Context, h *hubtest.Hub, cs iothub.ConnectionString, o mqtttest.Options, conf *tls.Config) (*mqtttest.Client, error) {
	if o.ClientID == "" {
		o.ClientID = cs.ID.String()
	}
	if o.UserName == "" {
		o.UserName = userName(cs)
	}
	if o.Password == "" && len(cs.Key) > 0 {
		token, err := hubtest.Token(cs)
		if err != nil {
			return nil, err
		}
		o.Password = token.Reveal()
	}
	if conf == nil {
		conf = h.TLS()
	}
	return mqtttest.Dial(ctx, func(ctx context.Context) (net.Conn, error) {
		return (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", h.MQTT)
	}, o)
}

// connect is dial for tests that need the connection.
func connect(t *testing.T, h *hubtest.Hub, cs iothub.ConnectionString) *mqtttest.Client {
	t.Helper()
	c, err := dial(t.Context(), h, cs, mqtttest.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Abort() })
	return c
}

func subscribe(t *testing.T, c *mqtttest.Client, filters ...string) {
	t.Helper()
	if _, err := c.Subscribe(t.Context(), filters...); err != nil {
		t.Fatal(err)
	}
}

// publish sends with QoS 1 and waits for the acknowledgement.
func publish(t *testing.T, c *mqtttest.Client, topic, body string) {
	t.Helper()
	if err := c.Publish(t.Context(), topic, []byte(body), 1); err != nil {
		t.Fatal(err)
	}
}

// next is the next delivery, parsed.
func next(t *testing.T, c *mqtttest.Client) (iothub.Delivery, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	m, err := c.Next(ctx)
	if err != nil {
		t.Fatalf("no delivery: %v", err)
	}
	d, err := iothub.ParseDelivery(m.Topic)
	if err != nil {
		t.Fatal(err)
	}
	return d, string(m.Payload)
}

// desire changes the desired section of an identity.
func desire(t *testing.T, h *hubtest.Hub, id iothub.ID, patch string) {
	t.Helper()
	body := json.RawMessage(`{"properties":{"desired":` + patch + `}}`)
	if _, err := h.Owner.PatchTwin(t.Context(), id, body); err != nil {
		t.Fatal(err)
	}
}

// code is the service's code of an error; 0 when it is another error.
func code(err error) int {
	if no, ok := errors.AsType[*iothub.Error](err); ok {
		return no.Code
	}
	return 0
}
