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
	srv := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/1.1 only: a WebSocket needs it
		ErrorLog:          slog.NewLogLogger(b.cfg.Logger.Handler(), slog.LevelDebug),
	}
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
	if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil {
		return nil
	}
	return err
}

// methodCall is POST /twins/{device}[/modules/{module}]/methods as the SDKs' invokeMethod sends it.
func (b *Broker) methodCall(w http.ResponseWriter, r *http.Request, origin mqtt.Origin) {
	caller, err := iothub.ParseID(r.Header.Get("x-ms-edge-moduleId"))
	if err != nil || !caller.IsModule() {
		answer(w, http.StatusBadRequest, messageBody("header x-ms-edge-moduleId: want {device}/{module}"))
		return
	}
	if caller.Device != b.cfg.Device || !origin.ID.IsZero() && origin.ID != caller {
		b.cfg.Logger.Warn("method call refused", "identity", origin.ID.String(), "other", caller.String())
		answer(w, http.StatusUnauthorized, messageBody("the caller is not who it says it is"))
		return
	}
	if err := b.cfg.AuthorizeHTTP(r.Context(), caller, iothub.Secret(r.Header.Get("Authorization"))); err != nil {
		answer(w, http.StatusUnauthorized, messageBody(err.Error()))
		return
	}
	target, err := iothub.NewID(r.PathValue("device"), r.PathValue("module"))
	if err != nil {
		answer(w, http.StatusBadRequest, messageBody(err.Error()))
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, iothub.MaxMethodRequest))
	if err != nil {
		answer(w, http.StatusRequestEntityTooLarge, messageBody("method request: "+err.Error()))
		return
	}
	req, err := iothub.ParseMethodRequest(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	result, err := b.Call(r.Context(), target, req)
	var no *iothub.Error
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
