package identity

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/certtest"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// registry is a scripted REST interface of a hub: it checks credentials by its own clock and keeps module keys.
type registry struct {
	device iothub.Key
	now    time.Time

	mu     sync.Mutex
	keys   map[string]string // by module: primary key, base64
	calls  []string
	answer func(w http.ResponseWriter, req *http.Request) bool // says the answer instead; false = go on
	peer   string                                              // common name of the last client certificate
}

func (h *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	call := req.Method + " " + req.URL.Path
	if match := req.Header.Get("If-Match"); match != "" {
		call += " " + match
	}
	h.calls = append(h.calls, call)
	w.Header().Set("Date", h.now.UTC().Format(http.TimeFormat))
	if len(req.TLS.PeerCertificates) > 0 {
		h.peer = req.TLS.PeerCertificates[0].Subject.CommonName
	}
	if h.answer != nil && h.answer(w, req) {
		return
	}
	if why := h.refuse(req); why != "" {
		http.Error(w, `{"Message":"ErrorCode:Unauthorized;`+why+`"}`, http.StatusUnauthorized)
		return
	}
	name, isModule := strings.CutPrefix(req.URL.Path, "/devices/edge1/modules/")
	_, exists := h.keys[name]
	switch {
	case !isModule:
		_, _ = w.Write([]byte("[]"))
	case req.Method == http.MethodDelete && !exists:
		http.Error(w, `{"Message":"ErrorCode:ModuleNotFound;no such module"}`, http.StatusNotFound)
	case req.Method == http.MethodDelete:
		delete(h.keys, name)
		w.WriteHeader(http.StatusNoContent)
	case exists && req.Header.Get("If-Match") != `"*"`:
		http.Error(w, `{"Message":"ErrorCode:ModuleAlreadyExistsOnDevice;it exists"}`, http.StatusConflict)
	default:
		var body hubModule
		if err := json.NewDecoder(req.Body).Decode(&body); err != nil || body.ModuleID != name || body.Authentication.Type != "sas" || body.ManagedBy != "IotEdge" {
			http.Error(w, `{"Message":"ErrorCode:Argument;bad body"}`, http.StatusBadRequest)
			return
		}
		h.keys[name] = body.Authentication.SymmetricKey.Primary
		body.GenerationID = "638000000000000000"
		_ = json.NewEncoder(w).Encode(body)
	}
}

func (h *registry) refuse(req *http.Request) string {
	if len(req.TLS.PeerCertificates) > 0 {
		return ""
	}
	token, err := iothub.ParseToken(iothub.Secret(req.Header.Get("Authorization")))
	if err != nil {
		return "token does not parse"
	}
	audience, err := token.Audience()
	switch {
	case err != nil || !audience.Is(testHub, iothub.ID{Device: testDevice}):
		return "audience"
	case !token.Verify(h.device):
		return "signature"
	case token.Expired(h.now):
		return "expired"
	case req.URL.Query().Get("api-version") != iothub.APIVersion || req.Header.Get("Request-Id") == "":
		return "api-version or request id"
	}
	return ""
}

// take returns the calls since the last take.
func (h *registry) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := h.calls
	h.calls = nil
	return out
}

func (h *registry) set(name, key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keys[name] = key
}

func (h *registry) get(name string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keys[name]
}

// hubbed opens a registry against a scripted hub whose certificate names testHub.
func hubbed(t *testing.T, edit func(*Config)) (*bed, *registry) {
	t.Helper()
	hub := &registry{device: iothub.NewKey(), now: testNow, keys: map[string]string{}}
	server := httptest.NewUnstartedServer(hub)
	cert, roots := certtest.Between(t, testHub, testBuilt, testBuilt.AddDate(1, 0, 0))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	b := open(t, func(c *Config) {
		c.Credential = Credential{Key: hub.device}
		c.Address = server.Listener.Addr().String()
		c.TLS = &tls.Config{RootCAs: roots}
		if edit != nil {
			edit(c)
		}
	})
	t.Cleanup(b.http.CloseIdleConnections)
	return b, hub
}

func sync1(t *testing.T, b *bed) {
	t.Helper()
	if err := b.Sync(t.Context()); err != nil {
		t.Fatalf("sync: %v", err)
	}
}

const filterPath = "/devices/edge1/modules/filter"

func TestSyncCreatesModulesWithTheKeysMadeHere(t *testing.T) {
	t.Parallel()
	b, hub := hubbed(t, nil)
	m := b.ensure(t, "filter")
	b.ensure(t, iothub.EdgeAgent)
	sync1(t, b)
	if got, want := hub.take(), []string{"PUT /devices/edge1/modules/$edgeAgent", "PUT " + filterPath}; !slices.Equal(got, want) {
		t.Errorf("calls: got %q, want %q", got, want)
	}
	if got, want := hub.get("filter"), m.Key.Text(); got != want {
		t.Errorf("key on the hub: got %q, want ours", got)
	}
	now, _ := b.Module("filter")
	if !now.OnHub || now.Generation != m.Generation {
		t.Errorf("got OnHub %v generation %s, want true and the local %s", now.OnHub, now.Generation, m.Generation)
	}
	sync1(t, b)
	sync1(t, b.again(t, nil))
	if got := hub.take(); len(got) != 0 {
		t.Errorf("calls when all is there: got %q, want none", got)
	}
}

func TestSyncSetsOurKeyWhereTheHubHasAnother(t *testing.T) {
	t.Parallel()
	b, hub := hubbed(t, nil)
	hub.set("filter", iothub.NewKey().Text())
	m := b.ensure(t, "filter")
	sync1(t, b)
	if got, want := hub.take(), []string{"PUT " + filterPath, "PUT " + filterPath + ` "*"`}; !slices.Equal(got, want) {
		t.Errorf("calls: got %q, want %q", got, want)
	}
	if got, want := hub.get("filter"), m.Key.Text(); got != want {
		t.Errorf("key on the hub: got %q, want ours", got)
	}
}

func TestSyncNoticesAHubThatChoseAKeyItself(t *testing.T) {
	t.Parallel()
	b, hub := hubbed(t, nil)
	hub.answer = func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = w.Write([]byte(`{"authentication":{"symmetricKey":{"primaryKey":"b3RoZXI="}}}`))
		return true
	}
	b.ensure(t, "filter")
	if err := b.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("got %v, want an error that names the other key", err)
	}
	if got := hub.take(); len(got) != 2 || !strings.HasSuffix(got[1], `"*"`) {
		t.Errorf("calls: got %q, want the second with If-Match", got)
	}
}

func TestSyncGoesOnBehindAModuleThatFails(t *testing.T) {
	t.Parallel()
	b, hub := hubbed(t, nil)
	hub.answer = func(w http.ResponseWriter, req *http.Request) bool {
		if strings.HasSuffix(req.URL.Path, "/a") {
			http.Error(w, `{"Message":"ErrorCode:ThrottlingException;slow down"}`, http.StatusTooManyRequests)
			return true
		}
		return false
	}
	b.ensure(t, "a")
	b.ensure(t, "b")
	err := b.Sync(t.Context())
	var status *StatusError
	if !errors.As(err, &status) || status.Status != http.StatusTooManyRequests || !strings.Contains(err.Error(), "edge1/a") {
		t.Errorf("got %v, want status 429 for edge1/a", err)
	}
	if m, _ := b.Module("b"); !m.OnHub {
		t.Error("module b was not created")
	}
	hub.take()
	_ = b.Sync(t.Context())
	if got, want := hub.take(), []string{"PUT /devices/edge1/modules/a"}; !slices.Equal(got, want) {
		t.Errorf("second sync: got %q, want %q", got, want)
	}
}

func TestAWrongClockIsSetByTheHubsAnswer(t *testing.T) {
	t.Parallel()
	for name, device := range map[string]time.Time{
		"no clock at all (Azure/iotedge#6421)":      time.Unix(100, 0),
		"days behind after a cut (iotedge#3982)":    testNow.AddDate(0, 0, -5),
		"a month ahead, and still in the same year": testNow.AddDate(0, 1, 0),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hand := &dial{now: device}
			b, hub := hubbed(t, func(c *Config) { c.Now = hand.read })
			b.ensure(t, "filter")
			sync1(t, b)
			if got := b.Clock().Now(); got.Sub(testNow).Abs() > time.Minute {
				t.Errorf("hub time: got %v, want %v", got, testNow)
			}
			secret, _, err := b.Password(iothub.ID{Device: testDevice, Module: "filter"})
			if err != nil {
				t.Fatal(err)
			}
			token, err := iothub.ParseToken(secret)
			if err != nil || token.Expired(hub.now) || token.Expiry().Sub(hub.now) > 2*TokenLife {
				t.Errorf("token minted after that: %v, %v, want about %v", token, err, hub.now.Add(TokenLife))
			}
		})
	}
}

func TestARefusedDeviceIsToldWhatToDo(t *testing.T) {
	t.Parallel()
	b, hub := hubbed(t, nil)
	hub.device = iothub.NewKey()
	b.ensure(t, "filter")
	err := b.Sync(t.Context())
	if err == nil || !strings.Contains(err.Error(), "check its key") {
		t.Errorf("got %v, want advice", err)
	}
	if got := hub.take(); len(got) != 1 {
		t.Errorf("calls: got %q, want one: the clocks agree, so there is no reason to ask twice", got)
	}
}

func TestPurgedModulesAreDeletedOnTheHub(t *testing.T) {
	t.Parallel()
	for name, onHub := range map[string]bool{"it is there": true, "it is not": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, hub := hubbed(t, nil)
			b.ensure(t, "filter")
			if onHub {
				sync1(t, b)
			}
			for _, act := range []error{b.Remove(t.Context(), "filter"), b.Purge(t.Context(), "filter")} {
				if act != nil {
					t.Fatal(act)
				}
			}
			hub.take()
			sync1(t, b.again(t, nil))
			if got, want := hub.take(), []string{"DELETE " + filterPath + ` "*"`}; !slices.Equal(got, want) {
				t.Errorf("calls: got %q, want %q", got, want)
			}
			if keys, _ := b.docs.Keys(modulePrefix); len(keys) != 0 {
				t.Errorf("documents left: %q", keys)
			}
		})
	}
}

func TestAModuleMadeAnewDuringTheCallIsNotOnTheHub(t *testing.T) {
	t.Parallel()
	b, hub := hubbed(t, nil)
	b.ensure(t, "filter")
	once := true
	hub.answer = func(http.ResponseWriter, *http.Request) bool {
		if once {
			once = false
			if err := b.Remove(t.Context(), "filter"); err != nil {
				t.Error(err)
			}
			if _, err := b.Ensure(t.Context(), "filter"); err != nil {
				t.Error(err)
			}
		}
		return false
	}
	sync1(t, b)
	anew, _ := b.Module("filter")
	if anew.OnHub {
		t.Error("the new identity is marked as on the hub, which has the old key")
	}
	sync1(t, b)
	if got, want := hub.get("filter"), anew.Key.Text(); got != want {
		t.Error("key on the hub is not the new one")
	}
}

func TestRefusedWritesTheModulesKeyAgain(t *testing.T) {
	t.Parallel()
	b, hub := hubbed(t, nil)
	m := b.ensure(t, "filter")
	sync1(t, b)
	hub.set("filter", iothub.NewKey().Text())
	if err := b.Refused(t.Context(), m.ID); err != nil {
		t.Fatal(err)
	}
	if got, want := hub.get("filter"), m.Key.Text(); got != want {
		t.Error("key on the hub is not ours")
	}
	if err := b.Refused(t.Context(), b.ID()); err != nil {
		t.Errorf("device: %v", err)
	}
	if err := b.Refused(t.Context(), iothub.ID{Device: testDevice, Module: "ghost"}); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown module: got %v, want %v", err, ErrUnknown)
	}
}

func TestAnX509DeviceShowsItsCertificate(t *testing.T) {
	t.Parallel()
	pair, _ := certtest.New(t, testDevice)
	b, hub := hubbed(t, func(c *Config) { c.Credential = Credential{Certificate: &pair} })
	m := b.ensure(t, "filter")
	sync1(t, b)
	if hub.peer != testDevice {
		t.Errorf("client certificate: got %q, want %q", hub.peer, testDevice)
	}
	secret, cert, err := b.Password(b.ID())
	if err != nil || secret != "" || cert != &pair {
		t.Errorf("device's credential: got %v %v %v, want the pair", secret, cert, err)
	}
	if secret, cert, err := b.Password(m.ID); err != nil || secret == "" || cert != nil {
		t.Errorf("module's credential: got %v %v %v, want a token", secret, cert, err)
	}
}

func TestWithoutAHubNothingIsAsked(t *testing.T) {
	t.Parallel()
	b := open(t, func(c *Config) { c.Credential, c.HTTP = Credential{}, &http.Client{Transport: noNetwork{}} })
	m := b.ensure(t, "filter")
	sync1(t, b)
	if _, _, err := b.Password(m.ID); !errors.Is(err, ErrNoCredential) {
		t.Errorf("password: got %v, want %v", err, ErrNoCredential)
	}
	if err := errors.Join(b.Remove(t.Context(), "filter"), b.Purge(t.Context(), "filter")); err != nil {
		t.Fatal(err)
	}
	if keys, _ := b.docs.Keys(modulePrefix); len(keys) != 0 {
		t.Errorf("documents left: %q", keys)
	}
}

type noNetwork struct{}

func (noNetwork) RoundTrip(req *http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("the network was used: %s", req.URL)
}
