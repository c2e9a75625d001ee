package upstream

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
)

func TestWaitsGrowToTheirLimitAndStayBelowIt(t *testing.T) {
	t.Parallel()
	b := backoff{first: firstWait, longest: longestWait}
	for n := range 200 {
		limit := min(longestWait, firstWait<<min(n, 10))
		if d := b.next(); d < 0 || d >= limit {
			t.Fatalf("wait %d: got %v, want below %v", n, d, limit)
		}
	}
	b.reset()
	if d := b.next(); d >= firstWait {
		t.Errorf("after a reset: got %v, want below %v", d, firstWait)
	}
}

func TestAttemptsDuringAnOutageAreSpreadAndBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(b *bed, _ *Config) { b.hub.down = true }, filter)
		defer b.stop(t)
		settle(time.Hour)
		n := len(b.hub.dials)
		if n < 60 || n > 240 {
			t.Errorf("attempts in an hour: got %d, want about 120", n)
		}
		for i := 1; i < n; i++ {
			if gap := b.hub.dials[i].Sub(b.hub.dials[i-1]); gap > longestWait {
				t.Errorf("gap %d: got %v, want at most %v", i, gap, longestWait)
			}
		}
	})
}

// Azure/iotedge PR 7528: draining resumes 1 to 53 s after the link is back, because of the back-off.
func TestTheNetworkComingBackEndsTheWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(b *bed, _ *Config) { b.hub.down = true }, filter)
		defer b.stop(t)
		for i := range 100 {
			settle(10 * time.Minute)
			b.put(t, filter, i, 1)
			b.hub.set(func() { b.hub.down = false })
			if i%2 == 0 {
				b.up <- struct{}{}
			} else {
				b.NetworkUp()
			}
			settle(time.Second)
			if got := b.left(); got != 0 {
				t.Errorf("outage %d: %d messages left a second after the network came back, want 0", i, got)
			}
			b.hub.cut(true)
		}
	})
}

func TestTheFirstLinkThatGetsThroughBringsTheOthersAlong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ids := make([]iothub.ID, 12)
		for i := range ids {
			ids[i] = iothub.ID{Device: device.Device, Module: "m" + string(rune('a'+i))}
		}
		b := start(t, func(b *bed, _ *Config) { b.hub.down = true }, ids...)
		defer b.stop(t)
		settle(time.Hour)
		b.hub.set(func() { b.hub.down = false })
		var first time.Duration
		for waited := time.Duration(0); waited < 2*longestWait; waited += 100 * time.Millisecond {
			settle(100 * time.Millisecond)
			n := 0
			for _, s := range b.Status() {
				if s.Connected {
					n++
				}
			}
			if n > 0 && first == 0 {
				first = waited
			}
			if n == len(ids) {
				if late := waited - first; late > time.Second {
					t.Errorf("the last link came %v after the first, want at most a second", late)
				}
				return
			}
		}
		t.Error("not every link came back within two waits")
	})
}

// blackhole is a connection whose bytes go nowhere once it is shut.
type blackhole struct {
	net.Conn
	mu   sync.Mutex
	shut bool
}

func (h *blackhole) isShut() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.shut
}

func (h *blackhole) shutIt() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shut = true
}

func (h *blackhole) Write(p []byte) (int, error) {
	if h.isShut() {
		return len(p), nil
	}
	return h.Conn.Write(p)
}

func TestAConnectionThatDidNotOutliveTheOutageIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		inFlight bool
		within   time.Duration
	}{
		"with messages in flight": {true, time.Second},
		"idle":                    {false, probeTime + time.Second},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var holes []*blackhole
				b := start(t, func(b *bed, c *Config) {
					c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
						conn, err := b.hub.dial(ctx, network, address)
						if err != nil {
							return nil, err
						}
						hole := &blackhole{Conn: conn}
						holes = append(holes, hole)
						return hole, nil
					}
				}, filter)
				defer b.stop(t)
				settle(10 * time.Second)
				holes[0].shutIt()
				if tc.inFlight {
					b.put(t, filter, 0, 1)
				}
				settle(20 * time.Second)
				b.up <- struct{}{}
				settle(tc.within)
				if s := b.Status()[0]; !s.Connected || s.Attempts != 2 || b.left() != 0 {
					t.Errorf("got %+v and %d left, want the second connection and 0", s, b.left())
				}
			})
		})
	}
}

func TestALivingConnectionOutlivesTheNetworkComingBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, filter)
		defer b.stop(t)
		for range 20 {
			settle(10 * time.Second)
			b.up <- struct{}{}
		}
		settle(time.Minute)
		if s := b.Status()[0]; !s.Connected || s.Attempts != 1 {
			t.Errorf("got %+v, want the first connection", s)
		}
	})
}

func TestTwoWithOneIdentitySlowDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, filter)
		defer b.stop(t)
		for range 600 {
			settle(time.Second)
			b.hub.cut(false) // as the hub does when the other one connects
		}
		if s := b.Status()[0]; s.Attempts > 60 {
			t.Errorf("attempts in ten minutes: got %d, want some twenty", s.Attempts)
		}
	})
}

func TestARefusalIsNotTheEnd(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		code    mqtt.Code
		mendErr error
		within  time.Duration
		mends   int
	}{
		"mended at once":         {mqtt.NotAuthorized, nil, 5 * time.Second, 1},
		"cannot be mended":       {mqtt.NotAuthorized, errors.New("no network"), 15 * time.Minute, 3},
		"bad user name":          {mqtt.BadCredentials, nil, 5 * time.Second, 1},
		"hub is not ready":       {mqtt.Unavailable, nil, 10 * time.Second, 0},
		"client id not accepted": {mqtt.BadIdentifier, nil, 5 * time.Second, 1},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				mends, good := 0, false
				b := start(t, func(b *bed, c *Config) {
					b.hub.judge = func(n int, _ mqtt.Hello) mqtt.Code {
						if good || n >= 3 || tc.code == mqtt.Unavailable && n > 0 {
							return mqtt.Accepted
						}
						return tc.code
					}
					c.Refused = func(_ context.Context, id iothub.ID) error {
						mends++
						if id != filter {
							t.Errorf("mend: got %v, want %v", id, filter)
						}
						good = tc.mendErr == nil
						return tc.mendErr
					}
				}, filter)
				defer b.stop(t)
				settle(tc.within)
				if s := b.Status()[0]; !s.Connected || mends != tc.mends {
					t.Errorf("got %+v after %d mends, want connected after %d", s, mends, tc.mends)
				}
			})
		})
	}
}

func TestAnIdentityThatIsRefusedForGoodIsTriedSlowly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mends := 0
		b := start(t, func(b *bed, c *Config) {
			b.hub.judge = func(int, mqtt.Hello) mqtt.Code { return mqtt.NotAuthorized }
			c.Refused = func(context.Context, iothub.ID) error { mends++; return nil }
		}, filter)
		defer b.stop(t)
		settle(24 * time.Hour)
		// Two attempts, of which one follows a mend, in every wait of 0 to 10 minutes: about 600 a day.
		if s := b.Status()[0]; s.Attempts > 900 || s.Attempts < 200 || mends > 450 {
			t.Errorf("in a day: got %d attempts and %d mends", s.Attempts, mends)
		}
		if n := strings.Count(b.logs.text(), "level=WARN"); n != 1 {
			t.Errorf("log: got %d warnings in a day of refusals, want 1", n)
		}
		if s := b.Status()[0].LastError; !strings.Contains(s, "is its key ours") {
			t.Errorf("last error: got %q, want advice", s)
		}
	})
}
