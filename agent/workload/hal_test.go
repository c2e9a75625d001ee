package workload

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// pinBoard is a module's side of a simulated board: a relay, a door that follows it, a chip, and one that is not granted.
func pinBoard(t *testing.T) (*socket, *hal.Sim) {
	t.Helper()
	return pinBoardUntil(context.WithoutCancel(t.Context()), t)
}

// pinBoardUntil is a pinBoard that ends with ctx.
func pinBoardUntil(ctx context.Context, t *testing.T) (*socket, *hal.Sim) {
	t.Helper()
	zero := 0.0
	relay := hal.Resource{Name: "relay", Kind: hal.KindLine, Bus: "c", Safe: &zero, Allow: []string{"*"}, Line: &hal.LinePart{Direction: hal.Out}}
	secret := relay
	secret.Name = "secret"
	door := hal.Resource{Name: "door", Kind: hal.KindLine, Bus: "c", Allow: []string{"*"}, Line: &hal.LinePart{Direction: hal.In}, Sim: &hal.Wave{Wire: "relay", FIFO: 4096}}
	imu := hal.Resource{Name: "imu", Kind: hal.KindI2C, Bus: "i", Allow: []string{"*"}, I2C: &hal.I2CPart{Addr: 0x68, RegBytes: 1, Read: []hal.Range{{Last: 0x1f}}, Write: []hal.Range{{First: 0x10, Last: 0x10}}}}
	sim := hal.NewSim()
	server, pins := doorTo(ctx, t, sim, relay, secret, door, imu)
	if err := pins.Grant("filter", []hal.Grant{{Name: "relay", Read: true, Write: true}, {Name: "door", Read: true}, {Name: "imu", Read: true, Write: true}}); err != nil {
		t.Fatal(err)
	}
	return &socket{Server: server, caller: Caller{ID: filter}, bodies: make(chan struct{}, maxBodies)}, sim
}

// doorTo serves a board of these resources, on which nothing is granted yet.
func doorTo(ctx context.Context, t *testing.T, board hal.Backend, resources ...hal.Resource) (*Server, *hal.Server) {
	t.Helper()
	pins, err := hal.New(hal.ServerConfig{Resources: resources, Backend: board})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- pins.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return &Server{cfg: Config{Hal: pins, Now: time.Now}, log: slog.New(slog.DiscardHandler)}, pins
}

func TestAModuleReachesWhatItIsGrantedAndNothingElse(t *testing.T) {
	t.Parallel()
	k, _ := pinBoard(t)
	ctx := t.Context()
	handler := k.handler()
	const nothing = `{"error":{"code":"unknown","detail":"no such name is granted to this module"}}`
	for _, c := range []struct {
		claim, method, path, body string
		status                    int
		want                      string
	}{
		{"an output is driven", "PUT", "/v1/hal/relay", `{"value":1}`, 204, ``},
		{"and read", "GET", "/v1/hal/relay", ``, 200, `"value":1`},
		{"an old fence is refused", "PUT", "/v1/hal/relay", `{"value":1,"fence":7}`, 409, `"code":"lease_lost"`},
		{"beyond its limits", "PUT", "/v1/hal/relay", `{"value":2}`, 422, `"code":"range"`},
		{"without a value", "PUT", "/v1/hal/relay", `{}`, 400, `"code":"invalid"`},
		{"what is not granted looks like nonsense", "GET", "/v1/hal/secret", ``, 404, nothing},
		{"and nonsense like what is not granted", "GET", "/v1/hal/..%2f..%2fetc", ``, 404, nothing},
		{"a lease of it too", "POST", "/v1/hal/leases", `{"names":["secret"],"ttl":"2s"}`, 404, nothing},
		{"a register is written and read", "POST", "/v1/hal/imu/transfer", `{"ops":[{"w":"10a5"},{"w":"10","r":1}]}`, 200, `{"ops":[{},{"r":"a5"}]}`},
		{"one past the range", "POST", "/v1/hal/imu/transfer", `{"ops":[{"w":"1f","r":2}]}`, 403, `"code":"denied"`},
		{"a bare read", "POST", "/v1/hal/imu/transfer", `{"r":1}`, 403, `"code":"denied"`},
		{"a batch of one bus", "POST", "/v1/hal/batch", `{"ops":[{"name":"relay","value":0},{"name":"door"}]}`, 200, `{"value":0,`},
		{"a batch of two buses", "POST", "/v1/hal/batch", `{"ops":[{"name":"relay","value":1},{"name":"imu","w":"10","r":1}]}`, 400, `another bus`},
		{"a batch with one that is not granted", "POST", "/v1/hal/batch", `{"ops":[{"name":"relay","value":1},{"name":"secret"}]}`, 404, nothing},
		{"nothing of a refused batch is done", "GET", "/v1/hal/relay", ``, 200, `"value":0`},
		{"a batch of nothing", "POST", "/v1/hal/batch", `{"ops":[]}`, 400, `1 to 64`},
		{"events of what is not granted", "GET", "/v1/hal/secret/events", ``, 404, nothing},
		{"events of an output", "GET", "/v1/hal/relay/events", ``, 501, `"code":"unsupported"`},
		{"events from nowhere", "GET", "/v1/hal/door/events?from=x", ``, 400, `"code":"invalid"`},
		{"an upgrade to something else", "GET", "/v1/hal/x", ``, 404, nothing},
		{"a value of a bus", "GET", "/v1/hal/imu", ``, 501, `"code":"unsupported"`},
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, c.method, c.path, strings.NewReader(c.body)))
		if got := w.Body.String(); w.Code != c.status || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %d %s, want %d %s", c.claim, w.Code, got, c.status, c.want)
		}
		if c.method == http.MethodPut && w.Code == http.StatusNoContent && w.Header().Get("HAL-Fence") == "" {
			t.Errorf("%s: no fence", c.claim)
		}
	}
}
