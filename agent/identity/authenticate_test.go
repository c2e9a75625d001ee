package identity

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
)

func mint(t *testing.T, resource string, key iothub.Key, expiry time.Time) iothub.Secret {
	t.Helper()
	token, err := iothub.MintToken(resource, "", expiry, key.Signer())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	filter, other := b.ensure(t, "filter"), b.ensure(t, "other")
	fresh := testNow.Add(time.Hour)
	good := filter.ID.Resource(testHub)
	device := iothub.ID{Device: testDevice}
	lower := strings.ReplaceAll(mint(t, good, filter.Key, fresh).Reveal(), "%2F", "%2f")
	tests := map[string]struct {
		origin iothub.ID
		client string
		user   iothub.ID
		token  iothub.Secret
		code   int // 0 = accepted
		why    string
	}{
		"the module itself":                   {filter.ID, "edge1/filter", filter.ID, mint(t, good, filter.Key, fresh), 0, ""},
		"on a listener for anybody":           {iothub.ID{}, "edge1/filter", filter.ID, mint(t, good, filter.Key, fresh), 0, ""},
		"audience is the gateway":             {filter.ID, "edge1/filter", filter.ID, mint(t, filter.ID.Resource("GW01"), filter.Key, fresh), 0, ""},
		"audience in another case":            {filter.ID, "edge1/filter", filter.ID, mint(t, "HUB.example.NET/Devices/Edge1/modules/Filter", filter.Key, fresh), 0, ""},
		"expired within the tolerance":        {filter.ID, "edge1/filter", filter.ID, mint(t, good, filter.Key, testNow.Add(-4*time.Minute)), 0, ""},
		"the device with its own key":         {iothub.ID{}, "edge1", device, mint(t, device.Resource(testHub), b.cfg.Credential.Key, fresh), 0, ""},
		"somebody else's listener":            {filter.ID, "edge1/other", other.ID, mint(t, other.ID.Resource(testHub), other.Key, fresh), iothub.CodeUnauthorized, "listener belongs to edge1/filter"},
		"the device on a module's listener":   {filter.ID, "edge1", device, mint(t, device.Resource(testHub), b.cfg.Credential.Key, fresh), iothub.CodeUnauthorized, "listener"},
		"client id of another":                {filter.ID, "edge1/other", filter.ID, mint(t, good, filter.Key, fresh), iothub.CodeUnauthorized, "client id"},
		"client id in another case":           {filter.ID, "edge1/Filter", filter.ID, mint(t, good, filter.Key, fresh), iothub.CodeUnauthorized, "client id"},
		"another module's key":                {iothub.ID{}, "edge1/filter", filter.ID, mint(t, good, other.Key, fresh), iothub.CodeToken, "not signed"},
		"another module's audience":           {filter.ID, "edge1/filter", filter.ID, mint(t, other.ID.Resource(testHub), filter.Key, fresh), iothub.CodeToken, "audience"},
		"another host's audience":             {filter.ID, "edge1/filter", filter.ID, mint(t, filter.ID.Resource("evil.example.net"), filter.Key, fresh), iothub.CodeToken, "audience"},
		"the device's audience for a module":  {filter.ID, "edge1/filter", filter.ID, mint(t, device.Resource(testHub), b.cfg.Credential.Key, fresh), iothub.CodeToken, "audience"},
		"the whole hub as audience":           {filter.ID, "edge1/filter", filter.ID, mint(t, testHub, filter.Key, fresh), iothub.CodeToken, "audience"},
		"expired":                             {filter.ID, "edge1/filter", filter.ID, mint(t, good, filter.Key, testNow.Add(-6*time.Minute)), iothub.CodeToken, "expired"},
		"no token":                            {filter.ID, "edge1/filter", filter.ID, "", iothub.CodeToken, "no token"},
		"a password that is no token":         {filter.ID, "edge1/filter", filter.ID, "hunter2", iothub.CodeToken, "parse"},
		"sr re-encoded after signing":         {filter.ID, "edge1/filter", filter.ID, iothub.Secret(lower), iothub.CodeToken, "not signed"},
		"a module that is not deployed":       {iothub.ID{}, "edge1/ghost", iothub.ID{Device: "edge1", Module: "ghost"}, mint(t, "x", filter.Key, fresh), iothub.CodeUnauthorized, "no such module"},
		"another device":                      {iothub.ID{}, "edge2", iothub.ID{Device: "edge2"}, mint(t, "x", filter.Key, fresh), iothub.CodeUnauthorized, "not served"},
		"the agent's identity with a guessed": {filter.ID, "edge1/$edgeAgent", iothub.ID{Device: "edge1", Module: "$edgeAgent"}, mint(t, "x", filter.Key, fresh), iothub.CodeUnauthorized, "listener"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			own := b.again(t, nil) // a log of its own
			hello := mqtt.Hello{
				ClientID: tc.client, Password: tc.token,
				Origin: mqtt.Origin{ID: tc.origin, Label: "netns filter"}, Remote: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711},
			}
			for range 3 {
				got, err := own.Authenticate(t.Context(), hello, iothub.UserName{ID: tc.user})
				if tc.code == 0 {
					if err != nil || got != tc.user {
						t.Fatalf("got %v, %v, want %v", got, err, tc.user)
					}
					return
				}
				var refusal *iothub.Error
				if !errors.As(err, &refusal) || refusal.Code != tc.code {
					t.Fatalf("got %v, %v, want code %d", got, err, tc.code)
				}
			}
			who := tc.origin.String()
			if tc.origin.IsZero() {
				who = "127.0.0.1:4711"
			}
			lines := own.logs.lines()
			if len(lines) != 1 || !strings.Contains(lines[0], "identity="+who) || !strings.Contains(lines[0], "claimed="+tc.user.String()) || !strings.Contains(lines[0], tc.why) {
				t.Errorf("log of three refusals: got %q, want one line with identity=%s claimed=%s and %q", lines, who, tc.user, tc.why)
			}
		})
	}
}

func TestAuthorizeHTTP(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	m := b.ensure(t, "filter")
	if err := b.AuthorizeHTTP(t.Context(), m.ID, mint(t, m.ID.Resource(testHub), m.Key, testNow.Add(time.Hour))); err != nil {
		t.Errorf("own token: %v", err)
	}
	if err := b.AuthorizeHTTP(t.Context(), m.ID, mint(t, m.ID.Resource(testHub), iothub.NewKey(), testNow.Add(time.Hour))); err == nil {
		t.Error("another key: got nil, want an error")
	}
}

func TestAMutedRefusalIsCountedInTheNextLine(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	m := b.ensure(t, "filter")
	hello := mqtt.Hello{ClientID: "edge1/filter", Origin: mqtt.Origin{ID: m.ID}}
	for range 5 {
		_, _ = b.Authenticate(t.Context(), hello, iothub.UserName{ID: m.ID})
	}
	b.clock.pass(2 * time.Minute)
	_, _ = b.Authenticate(t.Context(), hello, iothub.UserName{ID: m.ID})
	lines := b.logs.lines()
	if len(lines) != 2 || !strings.Contains(lines[1], "repeated=4") {
		t.Errorf("got %q, want a second line with repeated=4", lines)
	}
}
