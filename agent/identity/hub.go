package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Time-outs of one REST call: a hub over a slow radio link answers within seconds or not at all.
const (
	callTimeout = 60 * time.Second
	dialTimeout = 30 * time.Second
)

// maxAnswer is the most bytes of an answer that are read.
const maxAnswer = 64 << 10

// client is the HTTP client for the hub: its certificate is judged by hub time, and an X.509 device shows its own.
func (r *Registry) client() *http.Client {
	conf := r.clock.TLS(r.cfg.TLS)
	if cert := r.cfg.Credential.Certificate; cert != nil {
		conf.Certificates = []tls.Certificate{*cert}
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        conf,
		MaxIdleConns:           1,
		MaxResponseHeaderBytes: maxAnswer,
		IdleConnTimeout:        10 * time.Second, // calls come in bursts; a device keeps no idle connection
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if r.cfg.Address != "" {
				addr = r.cfg.Address
			}
			return dialer.DialContext(ctx, network, addr)
		},
	}
	return &http.Client{Transport: transport, Timeout: callTimeout}
}

// Sync makes the hub's registry agree with this device: it creates what is not there yet, sets our key where the hub has
// another, and deletes what was purged. It tries every module and returns all errors; call it again, with back-off, until it
// returns nil. Idempotent. Without a hub there is nothing to do.
func (r *Registry) Sync(ctx context.Context) error {
	if r.cfg.Credential.IsZero() {
		return nil
	}
	select {
	case <-r.syncing:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { r.syncing <- struct{}{} }()
	var errs []error
	entries := *r.entries.Load()
	for _, name := range sorted(entries) {
		if err := r.syncOne(ctx, name, entries[name]); err != nil {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

func (r *Registry) syncOne(ctx context.Context, name string, e entry) error {
	if e.state == gone {
		if err := r.deleteOnHub(ctx, e.ID); err != nil {
			return err
		}
		return r.settle(name, e, func() error { return r.deleteLocked(ctx, name) })
	}
	if e.OnHub {
		return nil
	}
	generation, err := r.putOnHub(ctx, e.ID, e.Key)
	if err != nil {
		return err
	}
	r.log.Info("module identity is on the hub", "identity", e.ID.String())
	e.OnHub, e.hubGeneration = true, generation
	return r.settle(name, e, func() error { return r.putLocked(ctx, name, e) })
}

// settle writes the outcome of a call to the hub, unless the identity was made anew or moved on meanwhile.
func (r *Registry) settle(name string, was entry, write func() error) error {
	r.change.Lock()
	defer r.change.Unlock()
	if now, ok := (*r.entries.Load())[name]; !ok || now.Generation != was.Generation || now.state != was.state {
		return nil
	}
	return write()
}

// Refused is told that the hub refused id's credential. The hub may have lost or replaced the module's key, or this device may
// have the wrong time; so the identity is written to the hub again, and the hub's answer sets the clock. A nil error means
// that the next attempt has a reason to go better.
func (r *Registry) Refused(ctx context.Context, id iothub.ID) error {
	if r.cfg.Credential.IsZero() {
		return ErrNoCredential
	}
	e, ok := (*r.entries.Load())[id.Module]
	if id.IsModule() && (!ok || e.ID != id || e.state == gone) {
		return fmt.Errorf("%s: %w", id, ErrUnknown)
	}
	if id.IsModule() {
		_, err := r.putOnHub(ctx, id, e.Key)
		return err
	}
	_, err := r.call(ctx, http.MethodGet, "/devices/"+url.PathEscape(id.Device)+"/modules", nil, "")
	return err
}

// hubModule is the hub's document of a module identity, the members used here.
type hubModule struct {
	DeviceID       string `json:"deviceId"`
	ModuleID       string `json:"moduleId"`
	ManagedBy      string `json:"managedBy"`
	GenerationID   string `json:"generationId,omitempty"`
	Authentication struct {
		Type         string `json:"type"`
		SymmetricKey struct {
			Primary   string `json:"primaryKey"`
			Secondary string `json:"secondaryKey"`
		} `json:"symmetricKey"`
	} `json:"authentication"`
}

// putOnHub creates or updates id on the hub with key and returns the hub's generation of it.
func (r *Registry) putOnHub(ctx context.Context, id iothub.ID, key iothub.Key) (string, error) {
	want := hubModule{DeviceID: id.Device, ModuleID: id.Module, ManagedBy: "IotEdge"}
	want.Authentication.Type = "sas"
	want.Authentication.SymmetricKey.Primary = key.Text()
	// The service wants both keys or none. The second is derived, so that there is one secret to keep.
	want.Authentication.SymmetricKey.Secondary = iothub.Key(key.Sign([]byte("secondary"))).Text()
	body, err := json.Marshal(want)
	if err != nil {
		return "", err
	}
	have, err := r.putModule(ctx, id, body, "")
	var status *StatusError
	exists := errors.As(err, &status) && (status.Status == http.StatusConflict || status.Status == http.StatusPreconditionFailed)
	otherKey := err == nil && have.Authentication.SymmetricKey.Primary != want.Authentication.SymmetricKey.Primary
	if exists || otherKey {
		have, err = r.putModule(ctx, id, body, `"*"`)
	}
	if err != nil {
		return "", fmt.Errorf("create module identity %s on the hub: %w", id, err)
	}
	if have.Authentication.SymmetricKey.Primary != want.Authentication.SymmetricKey.Primary {
		return "", fmt.Errorf("create module identity %s on the hub: it answered with another key than it was given", id)
	}
	return have.GenerationID, nil
}

func (r *Registry) putModule(ctx context.Context, id iothub.ID, body []byte, match string) (hubModule, error) {
	raw, err := r.call(ctx, http.MethodPut, modulePath(id), body, match)
	if err != nil {
		return hubModule{}, err
	}
	var have hubModule
	if err := json.Unmarshal(raw, &have); err != nil {
		return hubModule{}, fmt.Errorf("decode answer: %w", err)
	}
	return have, nil
}

// deleteOnHub deletes id; one that is not there is as good as deleted.
func (r *Registry) deleteOnHub(ctx context.Context, id iothub.ID) error {
	_, err := r.call(ctx, http.MethodDelete, modulePath(id), nil, `"*"`)
	var status *StatusError
	if err == nil || errors.As(err, &status) && status.Status == http.StatusNotFound {
		return nil
	}
	return fmt.Errorf("delete module identity %s on the hub: %w", id, err)
}

func modulePath(id iothub.ID) string {
	return "/devices/" + url.PathEscape(id.Device) + "/modules/" + url.PathEscape(id.Module)
}

// StatusError is an answer of the hub's REST interface that is not a success.
type StatusError struct {
	Status int
	Text   string // what the hub said, shortened
}

// Error prints the status and what the hub said.
func (e *StatusError) Error() string {
	if e.Status == http.StatusUnauthorized {
		return fmt.Sprintf("status 401: the hub refuses this device's own credential (%s); check its key and that it is enabled", e.Text)
	}
	return fmt.Sprintf("status %d: %s", e.Status, e.Text)
}

// call makes one request with the device's credential. When the hub refuses it and its clock is not ours, it is made once more
// with a token of the hub's time.
func (r *Registry) call(ctx context.Context, method, path string, body []byte, match string) ([]byte, error) {
	before := r.clock.Now()
	raw, err := r.once(ctx, method, path, body, match)
	var status *StatusError
	if !errors.As(err, &status) || status.Status != http.StatusUnauthorized {
		return raw, err
	}
	if moved := r.clock.Now().Sub(before).Abs(); moved < iothub.SkewTolerance {
		return raw, err
	}
	r.log.Info("hub time taken from the hub", "device_clock", r.clock.Device().UTC(), "hub_time", r.clock.Now().UTC())
	return r.once(ctx, method, path, body, match)
}

func (r *Registry) once(ctx context.Context, method, path string, body []byte, match string) ([]byte, error) {
	target := r.cfg.RegistryURL + path + "?api-version=" + iothub.APIVersion
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	if match != "" {
		req.Header.Set("If-Match", match)
	}
	req.Header.Set("Request-Id", requestID())
	if len(r.cfg.Credential.Key) > 0 {
		token, err := r.mint(r.ID(), r.cfg.Credential.Key)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", token.Reveal())
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil && resp.TLS != nil {
		if err := r.clock.Heard(ctx, at); err != nil {
			return nil, err
		}
	}
	if resp.StatusCode/100 != 2 {
		return nil, &StatusError{Status: resp.StatusCode, Text: said(raw)}
	}
	return raw, nil
}

// said is the hub's own words in an error body, or the body's beginning, in one line.
func said(raw []byte) string {
	var body struct{ Message, ExceptionMessage string }
	text := string(raw)
	if json.Unmarshal(raw, &body) == nil && body.Message != "" {
		text = body.Message
	}
	if len(text) > 200 {
		text = text[:200]
	}
	if text == "" {
		return "no reason given"
	}
	return fmt.Sprintf("%q", text)
}

// requestID is a random UUID in its usual form.
func requestID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: it ends the process instead
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
