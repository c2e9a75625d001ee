package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// MaxManifest bounds a manifest sent over the socket, in bytes.
const MaxManifest = 4 << 20

// ErrNotFound is returned by a func of [Config] when the named module or twin is not there.
var ErrNotFound = errors.New("not found")

// ErrRefused is wrapped by a func of [Config] when what is asked must not be done now.
var ErrRefused = errors.New("refused")

// Config of a Server. Every func may be called from several goroutines at once.
type Config struct {
	Status     func(ctx context.Context) (Status, error)
	Verb       func(ctx context.Context, verb, module string) error // start, stop, restart, pause or resume; returns when done
	Exec       func(ctx context.Context, module string, want ExecRequest, with Streams) (code int, err error)
	Effective  func(ctx context.Context, module string) (Effective, error)
	Why        func(ctx context.Context, module string) (Reason, error)
	Stats      func(ctx context.Context, module string) ([]Usage, error) // "" = of every running module
	Logs       func(ctx context.Context, module string, want LogRequest, w io.Writer) error
	Twin       func(ctx context.Context, module string) (Twin, error)
	Plan       func(ctx context.Context, manifest []byte) (Plan, error)
	Apply      func(ctx context.Context, manifest []byte) (Plan, error)
	Deployment func(ctx context.Context) (json.RawMessage, error)
	Queue      QueueFuncs
	Images     ImageFuncs
	Metrics    func(w io.Writer) error // text format of Prometheus
	Hal        http.Handler            // pins and sensors, below /v1/hal and /hal/; nil = this device has none
	Logger     *slog.Logger            // default: discard
}

// Server answers on the control socket.
type Server struct {
	cfg Config
	mux *http.ServeMux
}

// New returns a Server; it owns no goroutine before [Server.Serve].
func New(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, mux: http.NewServeMux()}
	s.mux.HandleFunc("GET /status", s.status)
	s.mux.HandleFunc("POST /modules/{module}/{verb}", s.verb)
	s.mux.HandleFunc("POST /modules/{module}/exec", s.exec)
	s.mux.HandleFunc("POST /modules/{module}/effective", func(w http.ResponseWriter, r *http.Request) {
		doc, err := s.cfg.Effective(r.Context(), r.PathValue("module"))
		s.answer(w, doc, err)
	})
	s.mux.HandleFunc("GET /modules/{module}/logs", s.logs)
	s.mux.HandleFunc("GET /modules/{module}/why", func(w http.ResponseWriter, r *http.Request) {
		doc, err := s.cfg.Why(r.Context(), r.PathValue("module"))
		s.answer(w, doc, err)
	})
	s.mux.HandleFunc("GET /stats", func(w http.ResponseWriter, r *http.Request) {
		doc, err := s.cfg.Stats(r.Context(), r.URL.Query().Get("module"))
		s.answer(w, doc, err)
	})
	s.mux.HandleFunc("GET /twins/{module}", s.twin)
	s.mux.HandleFunc("GET /deployment", s.deployment)
	s.mux.HandleFunc("POST /deployment/plan", func(w http.ResponseWriter, r *http.Request) { s.manifest(w, r, s.cfg.Plan) })
	s.mux.HandleFunc("POST /deployment", func(w http.ResponseWriter, r *http.Request) { s.manifest(w, r, s.cfg.Apply) })
	s.queueRoutes()
	s.imageRoutes()
	if cfg.Hal != nil {
		s.mux.Handle("/v1/hal", cfg.Hal)
		s.mux.Handle("/v1/hal/", cfg.Hal)
		s.mux.Handle("/hal/", cfg.Hal)
	}
	s.mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		var text bytes.Buffer
		if err := s.cfg.Metrics(&text); err != nil {
			s.answer(w, nil, err)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = w.Write(text.Bytes()) // the asker may be gone
	})
	return s
}

// Listen opens the control socket at path with mode 0600, in place of one left by a dead agent.
func Listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(path, 0o600)
}

// Serve answers until ctx ends, then waits up to a second for answers under way.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.mux,
		ReadHeaderTimeout: 5 * time.Second,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if srv.Shutdown(last) != nil {
			srv.Close()
		}
	}()
	err := srv.Serve(&peerListener{Listener: l, logger: s.cfg.Logger})
	if errors.Is(err, http.ErrServerClosed) {
		<-stopped
		return nil
	}
	return err
}

// peerListener drops connections of anybody but root and the agent's own user.
type peerListener struct {
	net.Listener
	logger *slog.Logger
}

func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(c)
		if err == nil && (uid == 0 || uid == uint32(os.Geteuid())) {
			return c, nil
		}
		l.logger.Warn("control connection refused", "uid", uid, "err", err)
		c.Close()
	}
}

func peerUID(c net.Conn) (uint32, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("%T is not a unix connection", c)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, credErr); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	doc, err := s.cfg.Status(r.Context())
	s.answer(w, doc, err)
}

func (s *Server) verb(w http.ResponseWriter, r *http.Request) {
	verb := r.PathValue("verb")
	switch verb {
	case "start", "stop", "restart", "pause", "resume":
	default:
		s.answer(w, nil, fmt.Errorf("verb %q: want start, stop, restart, pause or resume: %w", verb, ErrNotFound))
		return
	}
	s.answer(w, struct{}{}, s.cfg.Verb(r.Context(), verb, r.PathValue("module")))
}

func (s *Server) twin(w http.ResponseWriter, r *http.Request) {
	doc, err := s.cfg.Twin(r.Context(), r.PathValue("module"))
	s.answer(w, doc, err)
}

func (s *Server) deployment(w http.ResponseWriter, r *http.Request) {
	doc, err := s.cfg.Deployment(r.Context())
	s.answer(w, doc, err)
}

func (s *Server) manifest(w http.ResponseWriter, r *http.Request, act func(context.Context, []byte) (Plan, error)) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxManifest))
	if err != nil {
		s.answer(w, nil, fmt.Errorf("read manifest: %w", err))
		return
	}
	doc, err := act(r.Context(), body)
	s.answer(w, doc, err)
}

// words are what an error says, without its kind, which is for programs.
func words(err error) string {
	message := err.Error()
	for _, kind := range []error{ErrNotFound, ErrRefused} {
		message = strings.TrimSuffix(message, ": "+kind.Error())
	}
	return message
}

func (s *Server) answer(w http.ResponseWriter, doc any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		code := http.StatusInternalServerError
		switch {
		case errors.Is(err, ErrNotFound):
			code = http.StatusNotFound
		case errors.Is(err, ErrRefused):
			code = http.StatusConflict
		}
		w.WriteHeader(code)
		doc = fault{Message: words(err)} // the code of the answer says what kind it is
	}
	if err := json.NewEncoder(w).Encode(doc); err != nil {
		s.cfg.Logger.Debug("control answer not delivered", "err", err)
	}
}
