package workload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/agent/route"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
	"github.com/sandpiper-edge/sandpiper/hal"
)

// Limits of one module's socket. They bound what a hostile module can make the agent hold: four large bodies, of which
// the largest, a batch, is a megabyte, and a small one for each connection.
const (
	maxConns    = 64
	maxBodies   = 4
	maxHeader   = 64 << 10         // request line and headers; the property bag stands in the request line
	readTime    = 30 * time.Second // of a body, and of a frame that began
	writeTime   = 30 * time.Second
	idleTime    = time.Minute
	headerTime  = 10 * time.Second
	closingTime = 2 * time.Second
)

// Keys does the secret work of module identities.
type Keys interface {
	Sign(module string, data []byte) ([]byte, error)
	Seal(module, generation string, vector, plaintext []byte) ([]byte, error)
	Open(module, generation string, vector, ciphertext []byte) ([]byte, error)
}

// Authority issues certificates: chain is PEM, leaf first; key is PEM, PKCS#8.
type Authority interface {
	IssueServer(ctx context.Context, commonName, module string) (chain []byte, key iothub.Secret, expires time.Time, err error)
	IssueIdentity(ctx context.Context, module string) (chain []byte, key iothub.Secret, expires time.Time, err error)
	TrustBundle() []byte
}

// Broker carries messages and method calls, as it does for MQTT clients. Publish returns what the message was given when it is that safe. Inputs calls
// fn for one message at a time until ctx ends; a nil error of fn acknowledges it, any other brings it again.
type Broker interface {
	Publish(ctx context.Context, id iothub.ID, output string, bag iothub.Bag, body []byte) (route.Promise, error)
	Inputs(ctx context.Context, id iothub.ID, fn func(input string, m message.Message) error) error
	Call(ctx context.Context, target iothub.ID, req iothub.MethodRequest) (iothub.MethodResult, error)
	HandleMethod(id iothub.ID, fn func(ctx context.Context, req iothub.MethodRequest) iothub.MethodResult) (cancel func())
}

// Config of a Server.
type Config struct {
	Generation func(module string) (string, bool) // of a live module identity
	Keys       Keys
	Authority  Authority
	Broker     Broker
	Twins      *twin.Keeper
	Modules    func() []Module                   // for the module list; nil = an empty list
	Health     func(id iothub.ID, report Health) // told what a module says of itself; nil = not of interest
	Crowded    func(id iothub.ID)                // told when a module holds as many connections as it may; nil = not of interest
	Oversize   func(id iothub.ID)                // told when a body is larger than is taken; nil = not of interest
	Stalled    func(id iothub.ID)                // told when a body or a frame began and did not end within Patience; nil = not of interest
	Patience   time.Duration                     // for a body, and for the rest of a frame; default 30 s
	Hal        *hal.Server                       // pins and sensors; nil = this device has none
	Now        func() time.Time                  // default time.Now
	Logger     *slog.Logger                      // default: discard
}

// Server serves the sockets of all modules. Create with [New].
type Server struct {
	cfg   Config
	log   *slog.Logger
	names *ids
	turns turns // of those who ask for pins

	mu    sync.Mutex
	wakes map[*wake]struct{} // desired streams that are open
}

// New makes a server. It registers with the twins for changes of desired properties, so it is made before they are used.
func New(cfg Config) (*Server, error) {
	if cfg.Generation == nil || cfg.Keys == nil || cfg.Authority == nil || cfg.Broker == nil || cfg.Twins == nil {
		return nil, errors.New("workload server: Generation, Keys, Authority, Broker and Twins are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: cfg.Logger, names: newIDs(), wakes: map[*wake]struct{}{}}
	cfg.Twins.OnDesired(s.desiredChanged)
	return s, nil
}

// Caller is the module behind a socket: its identity, and the user ids on this host that its processes run under.
type Caller struct {
	ID       iothub.ID
	UIDBase  uint32 // first uid of the range
	UIDCount uint32 // uids in it; 0 = nobody may call
}

// socket is one module's side of the server.
type socket struct {
	*Server
	caller  Caller
	bodies  chan struct{} // capacity maxBodies: requests whose body is held
	streams streams
	inputs  inflight
	methods calls
	warned  warned
	fences  fences
	next    time.Time // of turns: when a request that came now would be due
}

// Serve answers on l for one module until ctx ends. It closes l, and returns nil when it ends with ctx.
func (s *Server) Serve(ctx context.Context, l net.Listener, caller Caller) error {
	k := &socket{Server: s, caller: caller, bodies: make(chan struct{}, maxBodies)}
	k.warned.now = s.cfg.Now
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{
		Handler:           k.handler(),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       k.patience(),
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.With("module", caller.ID.Module).Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(newDoor(l, k)) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve socket of %s: %w", caller.ID, errors.Join(err, server.Close()))
	case <-ctx.Done():
	}
	closing, done := context.WithTimeout(context.WithoutCancel(ctx), closingTime)
	defer done()
	if server.Shutdown(closing) != nil {
		_ = server.Close() // what is still open then is cut; there is nobody to tell
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve socket of %s: %w", caller.ID, err)
	}
	return nil
}

func (k *socket) handler() http.Handler {
	mux := http.NewServeMux()
	k.azureRoutes(mux)
	k.halRoutes(mux)
	mux.HandleFunc("POST /v1/messages/outputs/{output}", k.postOutput)
	mux.HandleFunc("GET /v1/messages/inputs", k.getInputs)
	mux.HandleFunc("POST /v1/messages/inputs/{id}/ack", k.postAck)
	mux.HandleFunc("GET /v1/twin", k.getTwin)
	mux.HandleFunc("PATCH /v1/twin", k.patchTwin)
	mux.HandleFunc("GET /v1/twin/desired", k.getDesired)
	mux.HandleFunc("GET /v1/methods", k.getMethods)
	mux.HandleFunc("POST /v1/methods/{rid}", k.postMethod)
	mux.HandleFunc("POST /v1/methods/call", k.callMethod)
	mux.HandleFunc("POST /v1/health", k.postHealth)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, "nothing here answers %s %.200q", r.Method, r.URL.Path)
	})
	return mux
}

func (k *socket) patience() time.Duration { return cmp.Or(k.cfg.Patience, readTime) }

// bound tells that the module ran into a bound.
func (k *socket) bound(tell func(iothub.ID)) {
	if tell != nil {
		tell(k.caller.ID)
	}
}

// refuse says no to a module that names another, and logs it with both.
func (k *socket) refuse(w http.ResponseWriter, claimed string) {
	if k.warned.first(claimed) {
		k.log.Warn("module refused", "identity", k.caller.ID.String(), "claimed", claimed, "err", "the socket belongs to another module")
	}
	fail(w, http.StatusForbidden, "forbidden: this socket belongs to module %s", k.caller.ID.Module)
}

// warned remembers what was logged within the last minute, so that a module cannot fill the log.
type warned struct {
	now  func() time.Time
	mu   sync.Mutex
	seen map[string]time.Time
}

func (w *warned) first(what string) bool {
	const quiet, most = time.Minute, 64
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	if last, ok := w.seen[what]; ok && now.Sub(last).Abs() < quiet {
		return false
	}
	if w.seen == nil || len(w.seen) >= most {
		w.seen = map[string]time.Time{}
	}
	w.seen[what] = now
	return true
}
