package hub

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
)

// maxBody bounds the body of a REST request, in bytes: the largest is a deployment.
const maxBody = 4 << 20

// stopGrace is how long requests under way may take when the hub stops.
const stopGrace = 5 * time.Second

// serveHTTPS serves REST, MQTT over WebSocket, events and bundles until ctx ends.
func (h *Hub) serveHTTPS(ctx context.Context) error {
	srv := &http.Server{
		Handler:           h.routes(ctx),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/1.1 only: a WebSocket needs it
		ErrorLog:          slog.NewLogLogger(h.cfg.Logger.Handler(), slog.LevelDebug),
	}
	cfg := h.tls.Clone()
	cfg.NextProtos = []string{"http/1.1"}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			_ = srv.Close() // what was asked and not answered is asked again
		}
	})
	err := srv.Serve(tls.NewListener(h.httpsL, cfg))
	if !stop() {
		<-stopped
	}
	h.sockets.Wait()
	if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil {
		return nil //nolint:nilerr // the hub stops
	}
	return err
}

// routes are the real service's paths, and ours: /events, /imports and /bundles/.
func (h *Hub) routes(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(iothub.WebSocketPath, mqtt.WebSocket(func(nc net.Conn, _ *http.Request) {
		h.sockets.Add(1) // the HTTP server does not wait for connections it has handed over
		defer h.sockets.Done()
		h.server.ServeConn(ctx, nc, mqtt.Origin{Label: "websocket"})
	}))
	if h.bundles != nil {
		mux.Handle("GET /bundles/", http.StripPrefix("/bundles/", bundles(h.bundles)))
	}
	for pattern, act := range map[string]action{
		"PUT /devices/{device}":                            {RightRegistryWrite, h.putIdentity},
		"GET /devices/{device}":                            {RightRegistryRead, h.getIdentity},
		"DELETE /devices/{device}":                         {RightRegistryWrite, h.deleteIdentity},
		"GET /devices":                                     {RightRegistryRead, h.listDevices},
		"GET /devices/{$}":                                 {RightRegistryRead, h.listDevices},
		"PUT /devices/{device}/modules/{module}":           {RightRegistryWrite, h.putIdentity},
		"GET /devices/{device}/modules/{module}":           {RightRegistryRead, h.getIdentity},
		"DELETE /devices/{device}/modules/{module}":        {RightRegistryWrite, h.deleteIdentity},
		"GET /devices/{device}/modules":                    {RightRegistryRead, h.listModules},
		"GET /twins/{device}":                              {RightServiceConnect, h.getTwin},
		"PATCH /twins/{device}":                            {RightServiceConnect, h.patchTwin},
		"PUT /twins/{device}":                              {RightServiceConnect, h.putTwin},
		"GET /twins/{device}/modules/{module}":             {RightServiceConnect, h.getTwin},
		"PATCH /twins/{device}/modules/{module}":           {RightServiceConnect, h.patchTwin},
		"PUT /twins/{device}/modules/{module}":             {RightServiceConnect, h.putTwin},
		"POST /twins/{device}/methods":                     {RightServiceConnect, h.callMethod},
		"POST /twins/{device}/modules/{module}/methods":    {RightServiceConnect, h.callMethod},
		"POST /devices/{device}/applyConfigurationContent": {RightRegistryWrite, h.applyConfiguration},
		"POST /devices/query":                              {RightRegistryRead, h.query},
		"GET /statistics/devices":                          {RightRegistryRead, h.statistics},
		"GET /events":                                      {RightServiceConnect, h.streamEvents},
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { h.handle(w, r, maxBody, act) })
	}
	mux.HandleFunc("POST /imports", func(w http.ResponseWriter, r *http.Request) {
		h.handle(w, r, maxImport, action{RightServiceConnect, h.importQueue})
	})
	return mux
}

// action is one REST operation and the right it needs.
type action struct {
	right Right
	do    func(w http.ResponseWriter, r *http.Request, id iothub.ID) error
}

// handle checks who asks, for what identity, and answers errors in the service's shape.
func (h *Hub) handle(w http.ResponseWriter, r *http.Request, limit int64, act action) {
	r.Body = http.MaxBytesReader(w, r.Body, limit)
	id, err := pathID(r)
	if err == nil {
		err = h.authorize(r, act.right, id)
	}
	if err == nil {
		err = act.do(w, r, id)
	}
	if err == nil {
		return
	}
	no, definite := errors.AsType[*iothub.Error](err)
	if !definite {
		code := iothub.CodeInternal
		if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
			code, err = iothub.CodeInvalid, tooLarge
		} else if r.Context().Err() == nil {
			h.cfg.Logger.Error("request not answered", "path", r.URL.Path, "err", err)
		}
		no = iothub.NewError(code, err.Error(), h.cfg.Now())
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(no.Status())
	_, _ = w.Write(no.RESTBody()) // the asker may be gone
}

// pathID reads the identity that a path names; the zero ID for paths that name none.
func pathID(r *http.Request) (iothub.ID, error) {
	device, module := r.PathValue("device"), r.PathValue("module")
	if device == "" {
		return iothub.ID{}, nil
	}
	id, err := iothub.NewID(device, module)
	if err != nil {
		return id, iothub.NewError(iothub.CodeInvalid, err.Error(), time.Now())
	}
	return id, nil
}

// authorize judges who asks: a policy with the right, or a device that manages its own modules and nothing else.
func (h *Hub) authorize(r *http.Request, right Right, id iothub.ID) error {
	who, err := h.gate.call(r.Context(), r.Header.Get("Authorization"), id.Device, r.TLS)
	if err != nil {
		return err
	}
	own := who.device != "" && who.device == id.Device && strings.HasPrefix(r.URL.Path, "/devices/"+r.PathValue("device")+"/modules")
	if !who.may(right) && !own {
		return h.gate.refuse("the credential does not allow that")
	}
	return nil
}

// ifMatch is the etag a request insists on, without its quotes; "" = none.
func ifMatch(r *http.Request) string { return strings.Trim(r.Header.Get("If-Match"), `"`) }

// reply writes a JSON document.
func reply(w http.ResponseWriter, etag string, doc any) error {
	raw, err := marshal(doc)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if etag != "" {
		w.Header().Set("ETag", `"`+etag+`"`)
	}
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(raw) // the asker may be gone
	return nil
}

// read reads a JSON body.
func (h *Hub) read(r *http.Request, into any) error {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return h.invalid("body: " + err.Error())
	}
	return nil
}

func (h *Hub) invalid(why string) error { return iothub.NewError(iothub.CodeInvalid, why, h.cfg.Now()) }
