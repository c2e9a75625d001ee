package upstream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

func TestTheTwinIsFetchedAndFollowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(b *bed, _ *Config) {
			b.hub.twins[filter.String()] = &hubTwin{desired: map[string]any{"a": 1}, version: 4, reported: map[string]any{"old": true}}
		}, filter)
		defer b.stop(t)
		settle(time.Second)
		check := func(what, desired string, version int64, gets int) {
			t.Helper()
			s := b.twins.Snapshot(filter)
			if string(s.Desired) != desired || s.DesiredVersion != version {
				t.Errorf("%s: got %s version %d, want %s version %d", what, s.Desired, s.DesiredVersion, desired, version)
			}
			if got := b.hub.twins[filter.String()].gets; got != gets {
				t.Errorf("%s: got %d fetches, want %d", what, got, gets)
			}
		}
		check("on connect", `{"a":1}`, 4, 1)
		if s := b.twins.Snapshot(filter); string(s.Reported) != `{"old":true}` {
			t.Errorf("reported: got %s", s.Reported)
		}
		b.hub.desire(t, filter.String(), `{"a":2}`, false)
		settle(time.Second)
		check("a patch in turn", `{"a":2}`, 5, 1)
		b.hub.desire(t, filter.String(), `{"b":1}`, true)
		b.hub.desire(t, filter.String(), `{"c":1}`, false)
		settle(5 * time.Second)
		check("a patch after one that was missed", `{"a":2,"b":1,"c":1}`, 7, 2)
		b.hub.desire(t, filter.String(), `{"b":null}`, true)
		settle(refreshTime)
		check("missed altogether, after an hour", `{"a":2,"c":1}`, 8, 3)
		b.hub.cut(false)
		settle(time.Minute)
		check("after a new connection", `{"a":2,"c":1}`, 8, 4)
	})
}

func TestReportedPropertiesAreCoalesced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(b *bed, _ *Config) { b.hub.down = true }, filter)
		defer b.stop(t)
		report := func(patch string) {
			t.Helper()
			if _, err := b.twins.PatchReported(t.Context(), filter, []byte(patch)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 50 {
			report(fmt.Sprintf(`{"n":%d,"k%d":1}`, i, i%3))
		}
		b.hub.set(func() { b.hub.down = false })
		settle(2 * time.Minute)
		tw := b.hub.twins[filter.String()]
		if len(tw.patches) != 1 {
			t.Fatalf("after an outage: got %d patches, want 1: %q", len(tw.patches), tw.patches)
		}
		sameJSON(t, tw.patches[0], `{"n":49,"k0":1,"k1":1,"k2":1}`)
		for i := range 100 {
			report(fmt.Sprintf(`{"n":%d}`, 100+i))
			<-time.After(50 * time.Millisecond)
		}
		settle(5 * time.Second)
		if got := len(tw.patches); got > 8 {
			t.Errorf("five seconds of reports, twenty a second: got %d patches, want about one a second", got)
		}
		if got := tw.reported["n"]; got != float64(199) {
			t.Errorf("in the end: got %v, want 199", got)
		}
		if _, _, pending := b.twins.Pending(filter); pending {
			t.Error("something is still pending")
		}
	})
}

func sameJSON(t *testing.T, got, want string) {
	t.Helper()
	var g, w any
	if json.Unmarshal([]byte(got), &g) != nil || json.Unmarshal([]byte(want), &w) != nil {
		t.Fatalf("not JSON: got %q, want %q", got, want)
	}
	a, _ := json.Marshal(g)
	c, _ := json.Marshal(w)
	if !bytes.Equal(a, c) {
		t.Errorf("got  %s\nwant %s", a, c)
	}
}

func TestTwinErrors(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		answer  func(p iothub.Publish, n int) int
		patches int
		pending bool
	}{
		"throttled requests are made again": {func(_ iothub.Publish, n int) int {
			if n < 6 && n%2 == 0 {
				return 429
			}
			return 0
		}, 1, false},
		"a report that the hub does not take is dropped": {func(p iothub.Publish, _ int) int {
			if p.Kind == iothub.TwinPatch {
				return 400
			}
			return 0
		}, 0, false},
		"a report is kept while the hub has troubles": {func(p iothub.Publish, _ int) int {
			if p.Kind == iothub.TwinPatch {
				return 503
			}
			return 0
		}, 0, true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := start(t, func(b *bed, _ *Config) { b.hub.answer = tc.answer }, filter)
				defer b.stop(t)
				if _, err := b.twins.PatchReported(t.Context(), filter, []byte(`{"a":1}`)); err != nil {
					t.Fatal(err)
				}
				settle(5 * time.Minute)
				if got := len(b.hub.twins[filter.String()].patches); got != tc.patches {
					t.Errorf("patches: got %d, want %d", got, tc.patches)
				}
				if _, _, pending := b.twins.Pending(filter); pending != tc.pending {
					t.Errorf("pending: got %v, want %v", pending, tc.pending)
				}
				if s := b.Status()[0]; !s.Connected || s.Attempts != 1 {
					t.Errorf("got %+v, want the first connection still", s)
				}
				if got := b.hub.requests; got > 60 { // the back-off has jitter; without one there would be thousands
					t.Errorf("got %d requests in five minutes, want a few", got)
				}
			})
		})
	}
}
