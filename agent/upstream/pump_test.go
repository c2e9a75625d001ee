package upstream

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
)

func TestTelemetryIsDrainedInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, device, filter)
		defer b.stop(t)
		b.put(t, filter, 0, 300)
		b.put(t, device, 0, 10)
		settle(time.Second)
		if got := b.bodies(filter); !slices.Equal(got, numbers(300)) {
			t.Errorf("got %d messages %q…, want 300 in order", len(got), got[:min(8, len(got))])
		}
		if got := b.bodies(device); !slices.Equal(got, numbers(10)) {
			t.Errorf("device: got %q, want 10 in order", got)
		}
		if got := b.left(); got != 0 {
			t.Errorf("left in the queue: got %d, want 0", got)
		}
		if got, want := b.hub.messages[0].bag, "%24.on=out&k=a%20b"; got != want {
			t.Errorf("properties: got %q, want %q", got, want)
		}
		b.put(t, filter, 300, 1)
		settle(time.Second)
		if got := b.bodies(filter); len(got) != 301 {
			t.Errorf("a message to an idle link: got %d, want 301", len(got))
		}
		s := b.Status()
		if len(s) != 2 || !s[1].Connected || s[1].ID != filter || s[1].Sent != 301 || s[1].Attempts != 1 {
			t.Errorf("status: got %+v", s)
		}
	})
}

func TestNothingIsLostWhenConnectionsBreak(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, filter)
		defer b.stop(t)
		const rounds, each = 20, 50
		for i := range rounds {
			if i%3 == 0 {
				b.hub.set(func() { b.hub.hold = true })
			}
			b.put(t, filter, i*each, each)
			settle(time.Duration(i) * 100 * time.Millisecond)
			b.hub.cut(i%2 == 0)
			b.hub.set(func() { b.hub.hold, b.hub.held = false, nil })
			settle(time.Second)
			b.hub.set(func() { b.hub.down = false })
			b.up <- struct{}{}
		}
		settle(2 * time.Minute)
		if got := b.bodies(filter); !slices.Equal(got, numbers(rounds*each)) {
			t.Errorf("got %d messages, want %d in order", len(got), rounds*each)
		}
		if got := b.left(); got != 0 {
			t.Errorf("left in the queue: got %d, want 0", got)
		}
	})
}

func TestTheWindowBoundsWhatIsInFlight(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		size, want int
	}{
		"messages": {10, 64},
		"bytes":    {100 << 10, 3},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				called := make(chan struct{}, 1)
				b := start(t, func(b *bed, c *Config) {
					b.hub.hold = true
					c.Method = func(context.Context, iothub.ID, iothub.MethodRequest) iothub.MethodResult {
						called <- struct{}{}
						return iothub.MethodResult{Status: 200}
					}
				}, filter)
				defer b.stop(t)
				for i := range 100 {
					b.putBody(t, filter, fmt.Sprint(i)+strings.Repeat(" ", tc.size))
				}
				settle(10 * time.Second)
				if got := len(b.bodies(filter)); got != tc.want {
					t.Errorf("in flight: got %d, want %d", got, tc.want)
				}
				b.hub.call(filter.String(), "reset", "1", "null")
				settle(0)
				if len(called) != 1 || len(b.hub.replies) != 1 {
					t.Error("a full window holds up a direct method")
				}
				b.hub.release()
				settle(10 * time.Second)
				if got := b.left(); got != 0 {
					t.Errorf("left after the acknowledgements came: got %d, want 0", got)
				}
			})
		})
	}
}

func TestMessagesThatNoHubCanTakeAreDroppedAndCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, filter)
		defer b.stop(t)
		b.putRaw(t, filter, []byte("not a message"))
		huge := message.Message{Source: filter, Body: make([]byte, iothub.MaxMessage+1)}
		b.putRaw(t, filter, huge.Append(nil))
		wide := message.Message{Source: filter, Bag: iothub.Bag{{Key: "k", Value: strings.Repeat("\"", 30000)}}}
		b.putRaw(t, filter, wide.Append(nil))
		b.put(t, filter, 0, 1)
		settle(time.Second)
		if got := b.bodies(filter); !slices.Equal(got, numbers(1)) {
			t.Errorf("got %q, want the good message", got)
		}
		if s := b.Status()[0]; s.Dropped != 3 || b.left() != 0 {
			t.Errorf("got %d dropped and %d left, want 3 and 0", s.Dropped, b.left())
		}
		if n := strings.Count(b.logs.text(), "can never be sent"); n != 3 {
			t.Errorf("log: got %d lines, want 3", n)
		}
	})
}

func TestAMessageOfANewerAgentIsKeptUnlessItHoldsUpTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, filter)
		defer b.stop(t)
		b.putRaw(t, filter, []byte{0xa2, 0x00, 0x18, 0x63, 0x01, 0x61, 'd'})
		b.put(t, filter, 0, 100)
		settle(time.Second)
		b.hub.cut(false)
		settle(10 * time.Second)
		if got := b.bodies(filter); !slices.Equal(got, numbers(100)) || b.Status()[0].Dropped != 0 || b.left() == 0 {
			t.Errorf("got %d messages, %d dropped, %d left, want 100 sent and the other kept", len(got), b.Status()[0].Dropped, b.left())
		}
		b.put(t, filter, 100, 5000)
		settle(10 * time.Second)
		if got := b.bodies(filter); len(got) != 5100 || b.Status()[0].Dropped != 1 || b.left() != 0 {
			t.Errorf("got %d messages, %d dropped, %d left, want 5100, 1 and 0", len(got), b.Status()[0].Dropped, b.left())
		}
	})
}

func TestOnlyAMessageThatWaitedSaysWhenItWasMade(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	p := &pump{s: &session{link: &link{Upstream: &Upstream{cfg: Config{
		Now: func() time.Time { return now },
		Made: func(boot string, up time.Duration) (time.Time, time.Duration, bool) {
			return now.Add(-up), 0, boot == "b"
		},
	}}}}}
	for name, tc := range map[string]struct {
		m    message.Message
		want string
	}{
		"live":                  {message.Message{Accepted: now.Add(-time.Second)}, ""},
		"late":                  {message.Message{Accepted: now.Add(-time.Hour)}, "2026-11-25T11:00:00.000000Z"},
		"of no clock":           {message.Message{}.Untimed("b", time.Minute), "2026-11-25T11:59:00.000000Z"},
		"of a boot nobody knew": {message.Message{}.Untimed("c", time.Minute), ""},
	} {
		if got, _ := p.timed(tc.m).Bag.Get(iothub.PropCreated); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}
