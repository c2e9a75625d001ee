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

func TestAModuleReachesWhatItIsGrantedAndNothingElse(t *testing.T) {
	t.Parallel()
	zero := 0.0
	relay := hal.Resource{Name: "relay", Kind: hal.KindLine, Bus: "c", Safe: &zero, Allow: []string{"*"}, Line: &hal.LinePart{Direction: hal.Out}}
	secret := relay
	secret.Name = "secret"
	imu := hal.Resource{Name: "imu", Kind: hal.KindI2C, Bus: "i", Allow: []string{"*"}, I2C: &hal.I2CPart{Addr: 0x68, RegBytes: 1, Read: []hal.Range{{Last: 0x1f}}, Write: []hal.Range{{First: 0x10, Last: 0x10}}}}
	pins, err := hal.New(hal.ServerConfig{Resources: []hal.Resource{relay, secret, imu}, Backend: hal.NewSim()})
	if err != nil {
		t.Fatal(err)
	}
	if err := pins.Grant("filter", []hal.Grant{{Name: "relay", Read: true, Write: true}, {Name: "imu", Read: true, Write: true}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- pins.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	k := &socket{Server: &Server{cfg: Config{Hal: pins, Now: time.Now}, log: slog.New(slog.DiscardHandler)}, caller: Caller{ID: filter}, bodies: make(chan struct{}, maxBodies)}
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
