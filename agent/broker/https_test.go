package broker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt/mqtttest"
)

// browser is an HTTP client through the pipes.
func (r *rig) browser() *http.Client {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return r.https.dial(ctx) }}
	r.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// post sends a method call as a module does, caller and token as given.
func (r *rig) post(client *http.Client, path, caller, auth, body string) (status int, answer, contentType string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.ctx, http.MethodPost, "http://gw"+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", auth)
	if caller != "" {
		req.Header.Set("x-ms-edge-moduleId", caller)
	}
	resp, err := client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(bytes.TrimSpace(raw)), resp.Header.Get("Content-Type")
}

func TestMethodCallsOverHTTPS(t *testing.T) {
	t.Parallel()
	const path, good = "/twins/edge1/modules/mod2/methods", `{"methodName":"foo","payload":{"a":1},"responseTimeoutInSeconds":5,"connectTimeoutInSeconds":0}`
	tests := map[string]struct {
		path, caller, auth, body string
		http                     func(iothub.ID) error
		origin                   mqtt.Origin
		react                    string // "answer", "silence", "absent"
		status                   int
		want                     string // exact, or a part when it begins with ~
	}{
		"answered":                 {react: "answer", status: 200, want: `{"status":201,"payload":{"b":[1.0]}}`},
		"with api-version":         {path: path + "?api-version=2019-10-01", react: "answer", status: 200, want: `{"status":201,"payload":{"b":[1.0]}}`},
		"own listener":             {origin: mqtt.Origin{ID: mod1}, react: "answer", status: 200, want: `{"status":201,"payload":{"b":[1.0]}}`},
		"caller without a module":  {caller: "edge1", status: 400, want: `~{"message":"`},
		"caller of two slashes":    {caller: "edge1/mod1/x", status: 400, want: `~{"message":"`},
		"no caller":                {caller: "-", status: 400, want: `~{"message":"`},
		"bad token":                {auth: "bad", status: 401, want: `{"message":"bad token"}`},
		"caller of another device": {caller: "edge2/mod1", status: 401, want: `~{"message":"`},
		"listener of another":      {origin: mqtt.Origin{ID: mod2}, status: 401, want: `~{"message":"`},
		"identities not loaded":    {http: func(iothub.ID) error { return errors.New("not loaded") }, status: 503, want: `~{"message":"`},
		"nobody there":             {react: "absent", status: 404, want: `{"message":"Client edge1/mod2 not found"}`},
		"no such device":           {path: "/twins/edge9/methods", status: 404, want: `{"message":"Client edge9 not found"}`},
		"no answer":                {react: "silence", status: 504, want: `~{"message":"Timed out waiting for device to respond`},
		"no JSON":                  {body: "{", status: 400, want: "~"},
		"no name":                  {body: `{"payload":1}`, status: 400, want: "~methodName"},
		"time-out below 5 s":       {body: `{"methodName":"x","responseTimeoutInSeconds":1}`, status: 400, want: "~responseTimeoutInSeconds"},
		"too large":                {body: `{"methodName":"x","payload":"` + strings.Repeat("x", iothub.MaxMethodRequest) + `"}`, status: 400, want: "~"},
		"target of no known form":  {path: "/twins/edge%201/methods", status: 400, want: "~"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t, settings{http: test.http})
				if !test.origin.ID.IsZero() {
					r.stop()
					r = newRig(t, settings{origin: test.origin})
				}
				for field, otherwise := range map[*string]string{&test.path: path, &test.caller: "edge1/mod1", &test.auth: token, &test.body: good} {
					if *field == "" {
						*field = otherwise
					}
				}
				if test.caller == "-" {
					test.caller = ""
				}
				if test.react == "answer" || test.react == "silence" {
					c := r.connect(mod2)
					r.subscribe(c, methodsFilter)
					go func() {
						m, err := c.Next(r.ctx)
						if err != nil || test.react == "silence" {
							return
						}
						d, _ := iothub.ParseDelivery(m.Topic)
						_ = c.Publish(r.ctx, "$iothub/methods/res/201/?$rid="+d.RequestID, []byte(`{"b":[1.0]}`), 0)
					}()
				}
				status, got, contentType := r.post(r.browser(), test.path, test.caller, test.auth, test.body)
				part, partial := strings.CutPrefix(test.want, "~")
				if status != test.status || !partial && got != test.want || partial && !strings.Contains(got, part) {
					t.Errorf("got %d %s, want %d %s", status, got, test.status, test.want)
				}
				if strings.HasPrefix(got, "{") && (!strings.HasPrefix(contentType, "application/json") || !json.Valid([]byte(got))) {
					t.Errorf("got %s %s, want JSON and its type", contentType, got)
				}
				r.stop()
				<-time.After(time.Second) // of the bubble: net/http lingers for half of it over a body that was not read
			})
		})
	}
}

func TestADoorOfOneModuleTakesSoManyConnections(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{origin: mqtt.Origin{ID: mod1}})
		var silent []net.Conn
		for {
			mine, theirs := net.Pipe()
			silent = append(silent, mine)
			taken := make(chan struct{})
			go func() {
				select {
				case r.https.conns <- theirs:
					close(taken)
				case <-r.https.closed:
				}
			}()
			synctest.Wait()
			select {
			case <-taken:
				continue
			default:
			}
			break
		}
		if got, want := len(silent)-1, 32; got != want {
			t.Errorf("taken: got %d connections, want %d", got, want)
		}
		for _, c := range silent {
			_ = c.Close()
		}
		r.stop()
	})
}

func TestWebSocketsSpeakMQTTAndEndWithServe(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, settings{routes: []string{toHub}})
		dial := func(ctx context.Context) (net.Conn, error) {
			ws, _, err := websocket.Dial(ctx, "ws://gw/$iothub/websocket", &websocket.DialOptions{HTTPClient: r.browser(), Subprotocols: []string{"mqtt"}})
			if err != nil {
				return nil, err
			}
			return websocket.NetConn(r.ctx, ws, websocket.MessageBinary), nil
		}
		c, err := mqtttest.Dial(r.ctx, dial, options(mod1))
		if err != nil {
			t.Fatal(err)
		}
		r.publish(c, events, "over a WebSocket")
		if got := r.waiting("upstream/mod1"); len(got) != 1 {
			t.Errorf("got %q, want the message", got)
		}
		r.stop() // returns when Serve has, and the store is closed behind it
		if got := r.broker.Clients(); len(got) != 1 || got[0].Connected {
			t.Errorf("got %+v after Serve returned, want mod1 gone", got)
		}
		_ = c.Abort()
	})
}
