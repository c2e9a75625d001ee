package identity

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/certtest"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
)

func near(got, want time.Time) bool { return got.Sub(want).Abs() < time.Second }

func TestHubTime(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		device time.Time // at start
		act    func(*testing.T, *bed)
		want   time.Time
	}{
		"follows a device clock that can be right": {testNow, func(*testing.T, *bed) {}, testNow},
		"is the build time on a board without a clock": {
			time.Unix(5, 0), func(*testing.T, *bed) {}, testBuilt,
		},
		"goes on from the build time": {
			time.Unix(5, 0), func(_ *testing.T, b *bed) { b.clock.pass(time.Minute) }, testBuilt.Add(time.Minute),
		},
		"is what the hub said": {
			time.Unix(5, 0), func(t *testing.T, b *bed) { t.Helper(); heard(t, b, testNow); b.clock.pass(time.Minute) }, testNow.Add(time.Minute),
		},
		"is the hub's when the device clock is ahead": {
			testNow.AddDate(3, 0, 0), func(t *testing.T, b *bed) { t.Helper(); heard(t, b, testNow) }, testNow,
		},
		"follows the device clock within the tolerance": {
			testNow.Add(4 * time.Minute), func(t *testing.T, b *bed) { t.Helper(); heard(t, b, testNow) }, testNow.Add(4 * time.Minute),
		},
		"follows the device clock once that is set right": {
			time.Unix(5, 0), func(t *testing.T, b *bed) { t.Helper(); heard(t, b, testNow); b.clock.set(testNow.Add(time.Minute)) }, testNow.Add(time.Minute),
		},
		"does not follow a clock that is set wrong": {
			testNow, func(t *testing.T, b *bed) { t.Helper(); heard(t, b, testNow); b.clock.set(time.Unix(5, 0)) }, testNow,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := openAt(t, tc.device)
			tc.act(t, b)
			if got := b.Clock().Now(); !near(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func openAt(t *testing.T, at time.Time) *bed {
	t.Helper()
	hand := &dial{now: at}
	b := open(t, func(c *Config) { c.Now = hand.read })
	b.clock = hand
	b.Registry.clock.elapsed = hand.since
	return b
}

func heard(t *testing.T, b *bed, at time.Time) {
	t.Helper()
	if err := b.Clock().Heard(t.Context(), at); err != nil {
		t.Fatal(err)
	}
}

func TestHubTimeOutlivesALongPowerCutWithoutAClock(t *testing.T) {
	t.Parallel()
	b := openAt(t, testNow)
	heard(t, b, testNow)
	after := b.again(t, func(c *Config) { c.Now = func() time.Time { return time.Unix(9, 0) } })
	if got := after.Clock().Now(); !near(got, testNow) {
		t.Errorf("got %v, want %v", got, testNow)
	}
	secret, _, err := after.Password(after.ID())
	if err != nil {
		t.Fatal(err)
	}
	token, err := iothub.ParseToken(secret)
	if err != nil {
		t.Fatal(err)
	}
	if want := testNow.Add(TokenLife); !near(token.Expiry(), want) {
		t.Errorf("token for the hub: expires %v, want %v", token.Expiry(), want)
	}
}

func TestHubTimeIsWrittenAtMostOnceAnHour(t *testing.T) {
	t.Parallel()
	b := openAt(t, testNow)
	heard(t, b, testNow)
	first, _ := b.docs.Get(clockKey)
	heard(t, b, testNow.Add(59*time.Minute))
	if second, _ := b.docs.Get(clockKey); string(second) != string(first) {
		t.Errorf("got %s, want %s", second, first)
	}
	heard(t, b, testNow.Add(61*time.Minute))
	if third, _ := b.docs.Get(clockKey); string(third) == string(first) {
		t.Error("not written after more than an hour")
	}
}

func TestALocalTokenIsNotBlamedForTheClock(t *testing.T) {
	t.Parallel()
	boot := time.Unix(60, 0)
	tests := map[string]struct {
		start time.Time
		act   func(*dial)
		mint  time.Time // when the module minted, by the device clock
		bound bool
		ok    bool
	}{
		"clock unknown, own listener":            {boot, func(d *dial) { d.pass(2 * time.Hour) }, boot, true, true},
		"clock unknown, anybody's listener":      {boot, func(d *dial) { d.pass(2 * time.Hour) }, boot, false, false},
		"minted before the clock was set":        {boot, func(d *dial) { d.set(testNow) }, boot, true, true},
		"minted before, anybody's listener":      {boot, func(d *dial) { d.set(testNow) }, boot, false, false},
		"minted before a jump of three days":     {testNow, func(d *dial) { d.set(testNow.AddDate(0, 0, 3)) }, testNow, true, true},
		"minted before a jump, anybody's":        {testNow, func(d *dial) { d.set(testNow.AddDate(0, 0, 3)) }, testNow, false, false},
		"truly spent, clock steady":              {testNow, func(d *dial) { d.pass(2 * time.Hour) }, testNow, true, false},
		"minted before a jump backwards":         {testNow, func(d *dial) { d.set(testNow.AddDate(0, 0, -3)) }, testNow, true, true},
		"truly spent after a jump, by any clock": {testNow, func(d *dial) { d.set(testNow.AddDate(0, 0, 3)) }, testNow.Add(-3 * time.Hour), true, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := openAt(t, tc.start)
			m := b.ensure(t, "filter")
			token := mint(t, m.ID.Resource(testHub), m.Key, tc.mint.Add(time.Hour))
			tc.act(b.clock)
			hello := mqtt.Hello{ClientID: m.ID.String(), Password: token}
			if tc.bound {
				hello.Origin.ID = m.ID
			}
			_, err := b.Authenticate(t.Context(), hello, iothub.UserName{ID: m.ID})
			if (err == nil) != tc.ok {
				t.Errorf("got %v, want accepted %v", err, tc.ok)
			}
		})
	}
}

func TestTheGraceAfterAJumpEnds(t *testing.T) {
	t.Parallel()
	b := openAt(t, testNow)
	m := b.ensure(t, "filter")
	old := mint(t, m.ID.Resource(testHub), m.Key, testNow.Add(3*time.Hour)) // outlives the grace on the old clock
	hello := mqtt.Hello{ClientID: m.ID.String(), Password: old, Origin: mqtt.Origin{ID: m.ID}}
	b.clock.pass(time.Minute)
	b.clock.set(testNow.AddDate(0, 0, 3))
	if _, err := b.Authenticate(t.Context(), hello, iothub.UserName{ID: m.ID}); err != nil {
		t.Errorf("just after the jump: %v", err)
	}
	b.clock.pass(hopAge + time.Minute)
	if _, err := b.Authenticate(t.Context(), hello, iothub.UserName{ID: m.ID}); err == nil {
		t.Error("an hour after the jump: accepted")
	}
}

func TestTheHubsCertificateIsJudgedByHubTime(t *testing.T) {
	t.Parallel()
	renewed := testBuilt.AddDate(0, 6, 0)
	tests := map[string]struct {
		device   time.Time
		from     time.Time
		name     string
		stranger bool
		ok       bool
	}{
		"valid now": {testNow, renewed, testHub, false, true},
		"board without a clock, certificate of before": {time.Unix(5, 0), testBuilt.AddDate(0, -6, 0), testHub, false, true},
		"board without a clock, certificate of later":  {time.Unix(5, 0), renewed, testHub, false, true},
		"not yet valid by a clock that can be right":   {testNow, testNow.AddDate(0, 1, 0), testHub, false, false},
		"expired":                                       {testNow, testNow.AddDate(-2, 0, 0), testHub, false, false},
		"board without a clock, another name":           {time.Unix(5, 0), renewed, "evil.example.net", false, false},
		"board without a clock, another authority":      {time.Unix(5, 0), renewed, testHub, true, false},
		"valid now, another authority":                  {testNow, renewed, testHub, true, false},
		"board without a clock, expired at build time":  {time.Unix(5, 0), testBuilt.AddDate(-2, 0, 0), testHub, false, false},
		"valid now, another name":                       {testNow, renewed, "evil.example.net", false, false},
		"board without a clock, valid from build to it": {time.Unix(5, 0), testBuilt, testHub, false, true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := openAt(t, tc.device)
			cert, roots := certtest.Between(t, tc.name, tc.from, tc.from.AddDate(1, 0, 0))
			if tc.stranger {
				_, roots = certtest.Between(t, tc.name, tc.from, tc.from.AddDate(1, 0, 0))
			}
			l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			go func() {
				if c, err := l.Accept(); err == nil {
					_, _ = io.Copy(io.Discard, c)
					_ = c.Close()
				}
			}()
			raw, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			client := tls.Client(raw, b.Clock().TLS(&tls.Config{RootCAs: roots, ServerName: testHub}))
			err = client.HandshakeContext(t.Context())
			_ = raw.Close()
			if (err == nil) != tc.ok {
				t.Errorf("got %v, want accepted %v", err, tc.ok)
			}
			if tc.ok && b.Clock().Now().Before(tc.from) {
				t.Errorf("hub time %v is before the accepted certificate's %v", b.Clock().Now(), tc.from)
			}
		})
	}
}
