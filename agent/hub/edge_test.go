package hub_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/hub"
	"github.com/sandpiper-edge/sandpiper/agent/hub/hubtest"
	"github.com/sandpiper-edge/sandpiper/agent/identity"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
	"github.com/sandpiper-edge/sandpiper/agent/upstream"
	"github.com/sandpiper-edge/sandpiper/store"
)

// edge is the part of an edge device that talks to a hub.
type edge struct {
	identities *identity.Registry
	queue      *store.Queue
	twins      *twin.Keeper
	up         *upstream.Upstream
}

// newEdge starts a device's identities and links against a hub, until the test ends.
func newEdge(t *testing.T, h *hubtest.Hub, cs iothub.ConnectionString) *edge {
	t.Helper()
	s, err := store.Open(store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	e := &edge{queue: s.Queue()}
	if e.twins, err = twin.NewKeeper(s.Docs()); err != nil {
		t.Fatal(err)
	}
	e.identities, err = identity.New(t.Context(), identity.Config{
		Hub: cs.Host, Device: cs.ID.Device, Credential: identity.Credential{Key: cs.Key}, Docs: s.Docs(), Address: h.HTTPS, TLS: h.TLS(),
	})
	if err != nil {
		t.Fatal(err)
	}
	e.up, err = upstream.New(upstream.Config{
		Hub: cs.Host, Address: h.MQTT, TLS: h.TLS(), Credential: e.identities.Password, Refused: e.identities.Refused, Queue: e.queue, Twins: e.twins,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
		Method: func(_ context.Context, id iothub.ID, req iothub.MethodRequest) iothub.MethodResult {
			return iothub.MethodResult{Status: 200, Payload: json.RawMessage(fmt.Sprintf("%q", id.String()+" "+req.Name))}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- s.Run(ctx) }()
	go func() { ended <- e.up.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("end edge: %v", err)
			}
		}
		if err := s.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	return e
}

// send stores telemetry of a module for the hub.
func (e *edge) send(t *testing.T, id iothub.ID, mid string) {
	t.Helper()
	m, err := message.FromPublish(id, iothub.Bag{{Key: "$.mid", Value: mid}, {Key: "$.on", Value: "out"}}, []byte(`{"n":1}`), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	record := store.Record{Body: m.Append(nil), Entries: []store.Entry{{Sink: "upstream/" + id.Module}}}
	if err := e.queue.Append(t.Context(), record); err != nil {
		t.Fatal(err)
	}
}

// A device of ours and a hub of ours: its modules get identities by its own key, what they say arrives once and in order through a
// cut, what is desired meanwhile reaches them, what they report reaches the hub, and methods find them.
func TestAnEdgeDeviceLosesNothingThroughACut(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	e := newEdge(t, h, register(t, h, "edge1", ""))
	module := iothub.ID{Device: "edge1", Module: "filter"}
	if _, err := e.identities.Ensure(t.Context(), "filter"); err != nil {
		t.Fatal(err)
	}
	if err := e.identities.Sync(t.Context()); err != nil {
		t.Fatalf("identities at the hub: %v", err)
	}
	changes := make(chan twin.Change, 64)
	e.twins.OnDesired(func(c twin.Change) { changes <- c })
	e.up.SetIdentities([]iothub.ID{{Device: "edge1"}, module})

	const n = 300
	for i := range n / 3 {
		e.send(t, module, fmt.Sprint(i))
	}
	request := iothub.MethodRequest{Name: "blink", Payload: json.RawMessage("null"), ConnectTimeout: 30 * time.Second}
	result, err := h.Owner.Invoke(t.Context(), module, request)
	if err != nil || string(result.Payload) != `"edge1/filter blink"` {
		t.Errorf("method: got %+v, %v", result, err)
	}

	h.Cut()
	for i := range n / 3 {
		e.send(t, module, fmt.Sprint(n/3+i))
	}
	if _, err := e.twins.PatchReported(t.Context(), module, []byte(`{"state":"cut"}`)); err != nil {
		t.Fatal(err)
	}
	if err := h.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	desire(t, h, module, `{"threshold":70}`)
	e.up.NetworkUp()
	for i := range n / 3 {
		e.send(t, module, fmt.Sprint(2*n/3+i))
	}
	for c := range changes {
		if c.ID == module && string(e.twins.Snapshot(module).Desired) == `{"threshold":70}` {
			break
		}
	}
	// Once the newest message is in the log, all are or never will be.
	seen := map[string]int{}
	order, done := -1, errors.New("all there")
	err = h.Owner.Events(t.Context(), hub.EventQuery{Device: "edge1", Follow: true}, func(ev hub.Event) error {
		mid := ev.System["$.mid"]
		var i int
		if _, err := fmt.Sscan(mid, &i); err != nil {
			return err
		}
		if seen[mid]++; seen[mid] == 1 {
			if i != order+1 {
				t.Errorf("message %d after %d", i, order)
			}
			order = i
		}
		if i == n-1 {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) || len(seen) != n {
		t.Errorf("events: got %d of %d, %v", len(seen), n, err)
	}
	for {
		raw, err := h.Owner.Twin(t.Context(), module)
		if err != nil {
			t.Fatal(err)
		}
		var view struct {
			Properties struct{ Reported map[string]any }
		}
		if err := json.Unmarshal(raw, &view); err != nil {
			t.Fatal(err)
		}
		if view.Properties.Reported["state"] == "cut" {
			break
		}
	}
}
