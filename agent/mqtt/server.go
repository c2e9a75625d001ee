package mqtt

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Config of a Server. Only Handler is needed.
type Config struct {
	Handler        Handler
	TLS            *tls.Config   // used by Serve and ServeConn on connections that are not TLS yet; nil = as they come
	ConnectTimeout time.Duration // from accept to a complete and judged CONNECT, TLS handshake included; default 60 s
	KeepAliveCap   time.Duration // a longer keep-alive, or none, counts as this; default 10 min
	MaxPacket      int           // largest PUBLISH body, bytes; default 256 KiB of message + 64 KiB of topic
	Window         int           // QoS 1 publishes of one connection that may wait for Ack before its socket is not read; default 256
	WindowBytes    int           // the same in bytes of payload; one message always passes; default 1 MiB
	Outbox         int           // bytes that may wait to be written to one client; default 1 MiB
	MaxConns       int           // connections of one Serve call at a time, further ones wait in the backlog; default 1024, see boundConns
	Crowded        func(Origin)  // told when one Serve call has MaxConns; nil = not of interest
	Logger         *slog.Logger  // default: discard
}

func (c Config) withDefaults() Config {
	setDefault(&c.ConnectTimeout, 60*time.Second)
	setDefault(&c.KeepAliveCap, 10*time.Minute)
	setDefault(&c.MaxPacket, 256<<10+64<<10)
	setDefault(&c.Window, 256)
	setDefault(&c.WindowBytes, 1<<20)
	setDefault(&c.Outbox, 1<<20)
	setDefault(&c.MaxConns, 1024)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// Server runs connections and sees to it that each client id has one: the newest.
type Server struct {
	cfg Config

	mu    sync.Mutex
	conns map[string]*Conn // by client id
	// warned is when a connection that went wrong was last warned of, by the label of its origin: there are as many as listeners.
	warned map[string]time.Time
}

// New builds a server; nothing runs before Serve or ServeConn.
func New(cfg Config) (*Server, error) {
	if cfg.Handler == nil {
		return nil, errors.New("new mqtt server: no handler")
	}
	return &Server{cfg: cfg.withDefaults(), conns: map[string]*Conn{}, warned: map[string]time.Time{}}, nil
}

// acceptPause is how long Serve waits after a failed accept (no file descriptors left) before the next.
const acceptPause = 100 * time.Millisecond

// boundConns is MaxConns for a listener that belongs to one identity: that has one session, and room for those it has left behind. A module that
// opens thousands keeps itself out, and costs the agent sixteen descriptors.
const boundConns = 16

// Serve accepts from l until ctx ends, then closes l and every connection it accepted, and returns nil when all have ended. Another error
// of l is returned as it is, after the same clean-up.
func (s *Server) Serve(ctx context.Context, l net.Listener, origin Origin) error {
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	context.AfterFunc(ctx, func() { _ = l.Close() })
	defer func() {
		cancel()
		_ = l.Close()
	}()
	most := s.cfg.MaxConns
	if !origin.ID.IsZero() {
		most = min(most, boundConns)
	}
	slots := make(chan struct{}, most)
	for {
		select {
		case slots <- struct{}{}:
		default:
			if s.cfg.Crowded != nil {
				s.cfg.Crowded(origin)
			}
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
		}
		nc, err := l.Accept()
		if err == nil {
			conns.Go(func() {
				defer func() { <-slots }()
				s.ServeConn(ctx, nc, origin)
			})
			continue
		}
		<-slots
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept %s: %w", origin.Label, err)
		}
		s.cfg.Logger.Warn("accept failed, trying again", slog.String("origin", origin.Label), slog.Any("err", err))
		pause := time.NewTimer(acceptPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil
		}
	}
}

// ServeConn runs one connection until it ends, or ctx does. It closes nc.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn, origin Origin) {
	c, err := s.open(ctx, nc, origin)
	if err != nil {
		_ = nc.Close()
		level := slog.LevelDebug // somebody knocked and went
		if !errors.Is(err, io.EOF) && ctx.Err() == nil && s.mayWarn(origin.Label) {
			level = slog.LevelWarn
		}
		s.cfg.Logger.Log(ctx, level, "connection ended before CONNACK", slog.String("origin", origin.Label),
			slog.String("remote", nc.RemoteAddr().String()), slog.Any("err", err))
		return
	}
	if c == nil { // refused by the handler, which knows why
		_ = nc.Close()
		return
	}
	stop := context.AfterFunc(ctx, func() { c.Close(ErrStopped) })
	defer stop()
	c.run()
}

// warnPause is between two warnings of one origin: a client that knocks without end does not fill the log.
const warnPause = time.Second

func (s *Server) mayWarn(label string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Sub(s.warned[label]) < warnPause {
		return false
	}
	s.warned[label] = now
	return true
}

// open does everything up to the accepting CONNACK. nil, nil: refused with a code.
func (s *Server) open(ctx context.Context, raw net.Conn, origin Origin) (*Conn, error) {
	deadline := time.Now().Add(s.cfg.ConnectTimeout)
	if err := raw.SetDeadline(deadline); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	state, nc, err := s.handshake(ctx, raw)
	if err != nil {
		return nil, err
	}
	k := &clock{nc: nc}
	r := bufio.NewReaderSize(k, readBuffer)
	hello, err := s.readConnect(r)
	if errors.Is(err, errProtocol) {
		refuse(nc, BadProtocol)
	}
	if err != nil {
		return nil, err
	}
	hello.Origin, hello.TLS, hello.Remote = origin, state, nc.RemoteAddr()
	session, code := s.judge(ctx, hello)
	if code != Accepted {
		refuse(nc, code)
		return nil, nil
	}
	k.limit = min(hello.KeepAlive, s.cfg.KeepAliveCap) * 3 / 2
	if hello.KeepAlive == 0 {
		k.limit = s.cfg.KeepAliveCap * 3 / 2
	}
	k.heard = true
	c := &Conn{
		srv: s, nc: nc, hello: hello, session: session, r: r, clock: k,
		done: make(chan struct{}), written: make(chan struct{}), gone: make(chan struct{}),
		wake: make(chan struct{}, 1), room: make(chan struct{}, 1),
	}
	k.done = c.done
	if err := s.take(ctx, c); err != nil {
		c.end(err)
		refuse(nc, Unavailable)
		close(c.written)
		c.finish()
		return nil, nil
	}
	return c, nil
}

// handshake makes sure that TLS, if there is any, is done before the CONNECT, within its time-out.
func (s *Server) handshake(ctx context.Context, nc net.Conn) (*tls.ConnectionState, net.Conn, error) {
	if f, ok := nc.(*frames); ok {
		return f.tls, nc, nil
	}
	tc, ok := nc.(*tls.Conn)
	if !ok && s.cfg.TLS != nil {
		tc = tls.Server(nc, s.cfg.TLS)
	}
	if tc == nil {
		return nil, nc, nil
	}
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, nc, fmt.Errorf("TLS handshake: %w", err)
	}
	state := tc.ConnectionState()
	return &state, tc, nil
}

func (s *Server) readConnect(r *bufio.Reader) (Hello, error) {
	h, err := readHeader(r, s.cfg.MaxPacket)
	if err != nil {
		return Hello{}, fmt.Errorf("read CONNECT: %w", err)
	}
	if h.kind != kindConnect {
		return Hello{}, fmt.Errorf("packet type %d before CONNECT", h.kind)
	}
	body, err := readBody(r, h.size)
	if err != nil {
		return Hello{}, fmt.Errorf("read CONNECT: %w", err)
	}
	return parseConnect(body)
}

// judge asks the handler; one that panics is not ready.
func (s *Server) judge(ctx context.Context, hello Hello) (session Session, code Code) {
	c := &Conn{srv: s, hello: hello, closed: true}
	code = Unavailable
	c.contain("connect", func() { session, code = s.cfg.Handler.Connect(ctx, hello) })
	if code == Accepted && session == nil {
		code = Unavailable
	}
	return session, code
}

// refuse sends a CONNACK with a code and nothing more.
func refuse(nc net.Conn, code Code) {
	_ = nc.SetWriteDeadline(time.Now().Add(closeGrace))
	_, _ = nc.Write(appendConnack(nil, false, code))
}

// take makes c the connection of its client id, ends the one that was, and waits until that one's session has seen Closed.
func (s *Server) take(ctx context.Context, c *Conn) error {
	id := c.hello.ClientID
	s.mu.Lock()
	c.prev = s.conns[id]
	s.conns[id] = c
	s.mu.Unlock()
	if c.prev == nil {
		return nil
	}
	c.prev.Close(ErrReplaced)
	select {
	case <-c.prev.gone:
		c.prev = nil // or every connection a client ever had would be kept
		return nil
	case <-c.done:
		return ErrReplaced
	case <-ctx.Done():
		return fmt.Errorf("wait for the older connection: %w", ctx.Err())
	}
}

// release forgets c, unless a newer connection has taken its place.
func (s *Server) release(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns[c.hello.ClientID] == c {
		delete(s.conns, c.hello.ClientID)
	}
}
