package mqtt_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/coder/websocket"

	"github.com/sandpiper-edge/sandpiper/agent/certtest"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt/mqtttest"
)

func TestTLSIsTheServersOwn(t *testing.T) {
	t.Parallel()
	cert, pool := certtest.New(t, "localhost")
	r := newRecorder()
	s := newServer(t, mqtt.Config{Handler: r, TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	c, err := mqtttest.Connect(tls.Client(s.dial(mqtt.Origin{}), &tls.Config{RootCAs: pool, ServerName: "localhost"}), mqtttest.Options{ClientID: "c"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := (<-r.opened).hello.TLS; got == nil || got.ServerName != "localhost" {
		t.Errorf("TLS state: got %+v, want one with server name localhost", got)
	}
	if err := c.Publish(within(t), "t", make([]byte, 100<<10), 1); err != nil {
		t.Error(err)
	}
}

func TestPlainBytesOnATLSPort(t *testing.T) {
	t.Parallel()
	cert, _ := certtest.New(t, "localhost")
	s := newServer(t, mqtt.Config{Handler: newRecorder(), TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	if _, err := mqtttest.Connect(s.dial(mqtt.Origin{}), mqtttest.Options{ClientID: "c"}); err == nil {
		t.Error("a plain CONNECT on a TLS server: accepted")
	}
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	s := newServer(t, mqtt.Config{Handler: r})
	origin := mqtt.Origin{ID: iothub.ID{Device: "edge1", Module: "filter"}}
	mux := http.NewServeMux()
	mux.Handle(iothub.WebSocketPath, mqtt.WebSocket(func(nc net.Conn, req *http.Request) { s.ServeConn(req.Context(), nc, origin) }))
	web := httptest.NewTLSServer(mux)
	t.Cleanup(web.Close)
	t.Cleanup(s.stop)
	ctx := within(t)
	dial := func(protocol string) (*websocket.Conn, error) {
		ws, resp, err := websocket.Dial(ctx, web.URL+iothub.WebSocketPath, &websocket.DialOptions{HTTPClient: web.Client(), Subprotocols: []string{protocol}})
		if resp != nil && resp.Body != nil && err != nil {
			_ = resp.Body.Close()
		}
		return ws, err
	}
	t.Run("carries a session, and tells by which door", func(t *testing.T) {
		for _, protocol := range []string{"mqtt", "MQTT"} {
			ws, err := dial(protocol)
			if err != nil {
				t.Fatal(err)
			}
			c, err := mqtttest.Connect(websocket.NetConn(ctx, ws, websocket.MessageBinary), mqtttest.Options{ClientID: "c"})
			if err != nil {
				t.Fatal(err)
			}
			hello := (<-r.opened).hello
			if hello.TLS == nil || hello.Origin.ID != origin.ID {
				t.Errorf("hello: got %+v, want the TLS state of the request and the origin %v", hello, origin.ID)
			}
			if err := c.Publish(ctx, "t", make([]byte, 200<<10), 1); err != nil {
				t.Error(err)
			}
			_ = c.Close()
			<-r.closed
		}
	})
	t.Run("another sub-protocol is refused", func(t *testing.T) {
		if _, err := dial("chat"); err == nil {
			t.Error("accepted")
		}
	})
	t.Run("a text frame ends it", func(t *testing.T) {
		ws, err := dial("mqtt")
		if err != nil {
			t.Fatal(err)
		}
		if err := ws.Write(ctx, websocket.MessageText, connectPacket("c")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ws.Read(ctx); err == nil {
			t.Error("got an answer to a text frame")
		}
	})
}

// pipes is a listener of in-memory connections.
type pipes struct {
	backlog chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-p.backlog:
		return nc, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

func TestServeKeepsToItsNumberOfConnections(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		max    int
		origin mqtt.Origin
		want   int
	}{
		"as configured": {max: 3, want: 3},
		"sixteen where one identity alone speaks": {origin: mqtt.Origin{ID: iothub.ID{Device: "edge1", Module: "filter"}}, want: 16},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, err := mqtt.New(mqtt.Config{Handler: newRecorder(), MaxConns: tc.max})
				if err != nil {
					t.Fatal(err)
				}
				l := &pipes{backlog: make(chan net.Conn, 100), closed: make(chan struct{})}
				ctx, stop := context.WithCancel(t.Context())
				served := make(chan error, 1)
				go func() { served <- s.Serve(ctx, l, tc.origin) }()
				var clients []net.Conn // they say nothing, and hold their places until the CONNECT time-out
				for range tc.want + 5 {
					ours, theirs := net.Pipe()
					clients = append(clients, ours)
					l.backlog <- theirs
				}
				synctest.Wait()
				if got, want := len(l.backlog), 5; got != want {
					t.Errorf("waiting to be accepted: got %d, want %d", got, want)
				}
				_ = clients[0].Close()
				synctest.Wait()
				if got, want := len(l.backlog), 4; got != want {
					t.Errorf("waiting after one went: got %d, want %d", got, want)
				}
				stop()
				if err := <-served; err != nil {
					t.Error(err)
				}
				for _, nc := range clients {
					_ = nc.Close()
				}
			})
		})
	}
}
