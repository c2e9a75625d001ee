package upstream

import (
	"crypto/tls"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

func TestAHubThatDoesNotAnswerIsLeft(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*bed, *Config){
		"twin requests":                    func(b *bed, _ *Config) { b.hub.deaf = true },
		"messages":                         func(b *bed, _ *Config) { b.hub.hold = true },
		"messages, but pings all the time": func(b *bed, c *Config) { b.hub.hold, c.KeepAlive = true, 20*time.Second },
	}
	for name, script := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := start(t, script, filter)
				defer b.stop(t)
				b.put(t, filter, 0, 1)
				settle(50 * time.Second)
				settle(stallTime + 10*time.Second)
				if s := b.Status()[0]; s.Attempts < 2 {
					t.Errorf("got %+v, want another attempt", s)
				}
				b.hub.set(func() { b.hub.deaf = false })
				b.hub.release()
				settle(2 * time.Minute)
				if s := b.Status()[0]; !s.Connected || b.left() != 0 {
					t.Errorf("got %+v and %d left, want connected and drained", s, b.left())
				}
			})
		})
	}
}

func TestTheTokenIsMintedForEachAttemptAndRenewedInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, filter)
		defer b.stop(t)
		for i := range 60 {
			b.put(t, filter, i*10, 10)
			settle(5 * time.Minute)
		}
		b.hub.mu.Lock()
		hellos := slices.Clone(b.hub.hellos)
		ended := slices.Clone(b.hub.ended)
		b.hub.mu.Unlock()
		if len(hellos) < 5 || len(hellos) > 7 {
			t.Errorf("connections in five hours: got %d, want about 6", len(hellos))
		}
		last := ""
		for i, h := range hellos {
			token, err := iothub.ParseToken(h.Password)
			if err != nil || !token.Verify(key) || h.Password.Reveal() == last {
				t.Errorf("connection %d: token %v (%v) is not fresh", i, token, err)
			}
			last = h.Password.Reveal()
			if h.Clean || h.ClientID != "edge1/filter" || h.KeepAlive != time.Minute {
				t.Errorf("connection %d: got %+v", i, h)
			}
		}
		for i, err := range ended {
			if err != nil {
				t.Errorf("end of connection %d: got %v, want DISCONNECT", i, err)
			}
		}
		if got := len(b.hub.messages); got != 600 || b.left() != 0 {
			t.Errorf("messages: got %d at the hub and %d left, want 600, none twice, and 0", got, b.left())
		}
		if strings.Contains(b.logs.text(), "WARN") {
			t.Errorf("log: renewal is no trouble: %s", b.logs.text())
		}
	})
}

func TestRenewalWaitsForWhatIsInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(_ *bed, c *Config) {
			c.Credential = func(id iothub.ID) (iothub.Secret, *tls.Certificate, error) {
				token, err := iothub.MintToken(id.Resource(hubName), "", time.Now().Add(2*time.Minute), key.Signer())
				return token, nil, err
			}
		}, filter)
		defer b.stop(t)
		settle(100 * time.Second) // renewal begins after 102 to 108 s
		b.hub.set(func() { b.hub.hold = true })
		b.put(t, filter, 0, 5)
		settle(9 * time.Second)
		b.put(t, filter, 5, 5)
		b.hub.release()
		settle(5 * time.Second)
		if got := len(b.hub.messages); got != 10 || b.left() != 0 {
			t.Errorf("got %d messages at the hub and %d left, want 10, none twice, and 0", got, b.left())
		}
		if s := b.Status()[0]; s.Attempts != 2 {
			t.Errorf("got %+v, want a second connection", s)
		}
	})
}

func TestStoppingSettlesWhatIsInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, filter)
		settle(time.Second)
		b.hub.set(func() { b.hub.hold = true })
		b.put(t, filter, 0, 5)
		settle(time.Second)
		go func() {
			<-time.After(time.Second)
			b.hub.release()
		}()
		begun := time.Now()
		b.cancel()
		b.ran.Wait()
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("stopping took %v", took)
		}
		if got := b.left(); got != 0 {
			t.Errorf("left: got %d, want 0", got)
		}
		b.stop(t)
	})
}
