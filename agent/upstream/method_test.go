package upstream

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

func TestMethods(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		b := start(t, func(_ *bed, c *Config) {
			c.Method = func(ctx context.Context, id iothub.ID, req iothub.MethodRequest) iothub.MethodResult {
				if req.Name == "slow" {
					select {
					case <-gate:
					case <-ctx.Done():
					}
				}
				return iothub.MethodResult{Status: 201, Payload: json.RawMessage(`"` + id.String() + " " + req.Name + " " + strings.Trim(string(req.Payload), `"`) + `"`)}
			}
		}, filter)
		defer b.stop(t)
		settle(time.Second)
		tests := []struct{ name, rid, body, want string }{
			{"reset", "1", `"now"`, `1 201 "edge1/filter reset now"`},
			{"a b", "2", "", `2 201 "edge1/filter a b null"`},
			{"bad", "3", "{", `3 400 {"message":"payload is not JSON"}`},
		}
		for i, tc := range tests {
			b.hub.call(filter.String(), tc.name, tc.rid, tc.body)
			settle(0)
			if got := b.hub.replies; len(got) != i+1 || got[i] != tc.want {
				t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
			}
		}
		for i := range maxCalls + 1 {
			b.hub.call(filter.String(), "slow", fmt.Sprint("s", i), "1")
		}
		settle(0)
		if got := b.hub.replies[len(b.hub.replies)-1]; !strings.HasPrefix(got, "s16 429 ") {
			t.Errorf("one call too many: got %q, want status 429", got)
		}
		close(gate)
		settle(0)
		if got, want := len(b.hub.replies), len(tests)+maxCalls+1; got != want {
			t.Errorf("answers: got %d, want %d", got, want)
		}
	})
}

func TestASlowMethodDoesNotHoldUpTheNextConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		b := start(t, func(_ *bed, c *Config) {
			c.Method = func(context.Context, iothub.ID, iothub.MethodRequest) iothub.MethodResult {
				<-gate
				return iothub.MethodResult{Status: 200}
			}
		}, filter)
		defer b.stop(t)
		defer close(gate)
		settle(time.Second)
		b.hub.call(filter.String(), "slow", "1", "1")
		settle(time.Second)
		b.hub.cut(false)
		settle(5 * time.Second)
		if s := b.Status()[0]; !s.Connected || s.Attempts != 2 {
			t.Errorf("got %+v, want the second connection", s)
		}
	})
}
