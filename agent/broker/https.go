package broker

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
)

// serveHTTPS answers on port 443: MQTT over WebSocket, and direct methods that modules call on each other.
func (b *Broker) serveHTTPS(ctx context.Context, l net.Listener, origin mqtt.Origin) error {
	mux := http.NewServeMux()
	mux.Handle(iothub.WebSocketPath, mqtt.WebSocket(func(nc net.Conn, _ *http.Request) { b.server.ServeConn(ctx, nc, origin) }))
	mux.HandleFunc("POST /twins/{device}/methods", func(w http.ResponseWriter, r *http.Request) { b.methodCall(w, r, origin) })
	mux.HandleFunc("POST /twins/{device}/modules/{module}/methods", func(w http.ResponseWriter, r *http.Request) { b.methodCall(w, r, origin) })
	var busy handling
	srv := &http.Server{
		Handler:           busy.around(mux),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/1.1 only: a WebSocket needs it
		ErrorLog:          slog.NewLogLogger(b.cfg.Logger.Handler(), slog.LevelDebug),
	}
	l = limit(l, connections(origin), func() { b.cfg.Crowded(origin.ID) })
	if b.cfg.TLS != nil {
		cfg := b.cfg.TLS.Clone()
		cfg.NextProtos = []string{"http/1.1"}
		l = tls.NewListener(l, cfg)
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		_ = srv.Close() // connections that were taken over for a WebSocket end with ctx by themselves
	})
	err := srv.Serve(l)
	if !stop() {
		<-stopped
	}
	_ = srv.Close()
	busy.wait()
	if ctx.Err() == nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

const (
	// bodyTimeout is how long the body of a method call may take.
	bodyTimeout = 30 * time.Second
	// maxRequests is how many requests and WebSocket connections one door has at a time.
	maxRequests = 1024
)

// handling is the requests under way. net/http does not wait for those that were taken over for a WebSocket.
type handling struct {
	mu      sync.Mutex // guards what follows
	count   int
	stopped bool
	idle    chan struct{} // closed by the last one after wait was called
}

// around counts what h handles; there is a limit, and nothing new once wait was called.
func (g *handling) around(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		if g.stopped || g.count >= maxRequests {
			g.mu.Unlock()
			answer(w, http.StatusServiceUnavailable, messageBody("too many requests at a time"))
			return
		}
		g.count++
		g.mu.Unlock()
		defer g.done()
		h.ServeHTTP(w, r)
	})
}

func (g *handling) done() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count--
	if g.count == 0 && g.idle != nil {
		close(g.idle)
	}
}

// wait returns when nothing is under way any more. It is called once.
func (g *handling) wait() {
	g.mu.Lock()
	g.stopped = true
	if g.count == 0 {
		g.mu.Unlock()
		return
	}
	g.idle = make(chan struct{})
	g.mu.Unlock()
	<-g.idle
}

// methodCall is POST /twins/{device}[/modules/{module}]/methods as the SDKs' invokeMethod sends it.
func (b *Broker) methodCall(w http.ResponseWriter, r *http.Request, origin mqtt.Origin) {
	caller, err := iothub.ParseID(r.Header.Get(iothub.HeaderEdgeModule))
	if err != nil || !caller.IsModule() {
		answer(w, http.StatusBadRequest, messageBody("header x-ms-edge-moduleId: want {device}/{module}"))
		return
	}
	if caller.Device != b.cfg.Device || !origin.ID.IsZero() && origin.ID != caller {
		b.cfg.Logger.Warn("method call refused", "identity", origin.ID.String(), "other", caller.String())
		answer(w, http.StatusUnauthorized, messageBody("the caller is not who it says it is"))
		return
	}
	var no *iothub.Error
	switch err := b.cfg.AuthorizeHTTP(r.Context(), caller, iothub.Secret(r.Header.Get("Authorization"))); {
	case errors.As(err, &no):
		answer(w, http.StatusUnauthorized, messageBody(no.Message))
		return
	case err != nil: // not now: SDKs come back after this one
		b.cfg.Logger.Warn("method call put off", "identity", caller.String(), "err", err)
		answer(w, http.StatusServiceUnavailable, messageBody("not ready"))
		return
	}
	target, err := iothub.NewID(r.PathValue("device"), r.PathValue("module"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	door := http.NewResponseController(w)
	_ = door.SetReadDeadline(time.Now().Add(bodyTimeout)) // a door without deadlines cannot be slow
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, iothub.MaxMethodRequest))
	if err != nil {
		http.Error(w, "method request: "+err.Error(), http.StatusBadRequest)
		return
	}
	_ = door.SetReadDeadline(time.Time{})
	req, err := iothub.ParseMethodRequest(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	result, err := b.Call(r.Context(), target, req)
	switch {
	case err == nil:
		raw, err := json.Marshal(result)
		if err != nil {
			answer(w, http.StatusInternalServerError, messageBody(err.Error()))
			return
		}
		answer(w, http.StatusOK, raw)
	case errors.As(err, &no):
		answer(w, no.Status(), messageBody(no.Message))
	default: // the caller went away
		answer(w, http.StatusServiceUnavailable, messageBody(err.Error()))
	}
}

func messageBody(text string) []byte {
	raw, err := json.Marshal(map[string]string{"message": text})
	if err != nil {
		return []byte(`{"message":"error"}`)
	}
	return raw
}

func answer(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the caller may be gone; there is nobody else to tell
}
