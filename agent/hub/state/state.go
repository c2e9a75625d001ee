package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// schema is the version of the layout in this file's neighbours.
const schema = 1

// Errors of opening and writing.
var (
	ErrSchema   = errors.New("written by a newer hub")
	ErrOtherHub = errors.New("the directory belongs to another hub")
	ErrShards   = errors.New("the number of shards is fixed at creation")
	ErrDiskFull = errors.New("disk is full")
)

// record is the hub's own document. It is written once.
type record struct {
	V       int       `json:"v"`
	Schema  int       `json:"schema"`
	Shards  int       `json:"shards"`
	Created time.Time `json:"created"`
}

// State is an open store.
type State struct {
	cfg      Config
	server   *embedded
	conn     *nats.Conn // writes, gets, questions
	readConn *nats.Conn // readers: their floods must not delay an answer to a write
	docs     *Docs
	log      *Log
	presence *Presence
	bus      *Bus
	free     *freeSpace
	all      []*committer
}

// Open starts the server in cfg.Dir and makes what is missing. The caller then runs [State.Run] and ends with
// [State.Close].
func Open(ctx context.Context, cfg Config) (*State, error) {
	cfg = cfg.withDefaults()
	if _, err := HubName(cfg.Hub); err != nil {
		return nil, err
	}
	if cfg.Shards < 1 || cfg.Shards > 64 {
		return nil, fmt.Errorf("open state: %d shards: between 1 and 64 are possible", cfg.Shards)
	}
	srv, err := startEmbedded(filepath.Clean(cfg.Dir), cfg.Logger)
	if err != nil {
		return nil, err
	}
	s := &State{cfg: cfg, server: srv, free: &freeSpace{dir: cfg.Dir, min: cfg.MinFree}}
	if err := s.connect(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *State) connect(ctx context.Context) error {
	var err error
	if s.conn, err = s.dial(); err != nil {
		return err
	}
	if s.readConn, err = s.dial(); err != nil {
		return err
	}
	js, err := jetstream.New(s.conn)
	if err != nil {
		return fmt.Errorf("open state: %w", err)
	}
	n := names{hub: s.cfg.Hub}
	if err := s.checkRecord(ctx, js, n); err != nil {
		return err
	}
	if err := createStreams(ctx, js, n, s.cfg); err != nil {
		return err
	}
	readJS, err := jetstream.New(s.readConn)
	if err != nil {
		return fmt.Errorf("open state: %w", err)
	}
	live, err := js.KeyValue(ctx, n.liveBucket())
	if err != nil {
		return fmt.Errorf("open presence: %w", err)
	}
	s.build(n, readJS, live)
	return nil
}

func (s *State) dial() (*nats.Conn, error) {
	conn, err := nats.Connect("", nats.InProcessServer(s.server.server), nats.Name("hub"), nats.MaxReconnects(-1))
	if err != nil {
		return nil, fmt.Errorf("connect to state server: %w", err)
	}
	return conn, nil
}

func (s *State) build(n names, readJS jetstream.JetStream, live jetstream.KeyValue) {
	w := newWire(s.conn)
	add := func(unique bool) *committer {
		c := &committer{wire: w, queue: newQueue(), unique: unique, batches: !s.cfg.NoBatches, check: s.free.check}
		s.all = append(s.all, c)
		return c
	}
	readers := &consumers{js: readJS}
	s.docs = &Docs{conn: s.conn, names: n, shards: s.cfg.Shards, watchers: readers}
	for range s.cfg.Shards - metaShard {
		s.docs.committers = append(s.docs.committers, add(true))
	}
	s.log = &Log{names: n, shards: s.cfg.Shards, readers: readers}
	for range s.cfg.Shards {
		s.log.committers = append(s.log.committers, add(false))
	}
	s.presence = &Presence{bucket: live}
	s.bus = &Bus{conn: s.conn, names: n}
}

// checkRecord refuses a directory of another hub, another number of shards or a newer schema, before anything is made.
func (s *State) checkRecord(ctx context.Context, js jetstream.JetStream, n names) error {
	own := n.docsStream(metaShard)
	listed := js.StreamNames(ctx)
	for name := range listed.Name() {
		hub, isMeta := strings.CutSuffix(strings.TrimPrefix(name, "KV_"), "-meta")
		if isMeta && name != own {
			return fmt.Errorf("open %s: it holds hub %q, not %q; use the host name it was made with, or another directory: %w",
				s.cfg.Dir, hub, s.cfg.Hub, ErrOtherHub)
		}
	}
	if err := listed.Err(); err != nil {
		return fmt.Errorf("open state: %w", err)
	}
	if err := createStream(ctx, js, docsConfig(n, metaShard)); err != nil {
		return err
	}
	docs := &Docs{conn: s.conn, names: n, shards: s.cfg.Shards}
	doc, err := docs.Get(ctx, Key{Kind: KindRecord})
	if err != nil {
		return err
	}
	if !doc.Exists() {
		return s.writeRecord(ctx, n)
	}
	var have record
	if err := json.Unmarshal(doc.Value, &have); err != nil {
		return fmt.Errorf("read hub record: %w", err)
	}
	switch {
	case have.Schema > schema || have.V > 1:
		return fmt.Errorf("open %s: schema %d: %w", s.cfg.Dir, have.Schema, ErrSchema)
	case have.Shards != s.cfg.Shards:
		return fmt.Errorf("open %s: it has %d shards, not %d: %w", s.cfg.Dir, have.Shards, s.cfg.Shards, ErrShards)
	}
	return nil
}

func (s *State) writeRecord(ctx context.Context, n names) error {
	value, err := json.Marshal(record{V: 1, Schema: schema, Shards: s.cfg.Shards, Created: time.Now().UTC()})
	if err != nil {
		return fmt.Errorf("write hub record: %w", err)
	}
	m := nats.NewMsg(n.docsSubject(metaShard) + KindRecord)
	m.Data = value
	m.Header[headerExpect] = []string{"0"}
	if _, err := newWire(s.conn).single(ctx, m); err != nil {
		return fmt.Errorf("write hub record: %w", err)
	}
	return nil
}

// Docs are the documents.
func (s *State) Docs() *Docs { return s.docs }

// Log is the event log.
func (s *State) Log() *Log { return s.log }

// Presence says who is connected.
func (s *State) Presence() *Presence { return s.presence }

// Bus carries questions between hub processes.
func (s *State) Bus() *Bus { return s.bus }

// Writable is nil while writes can be stored; [ErrDiskFull] otherwise.
func (s *State) Writable() error { return s.free.check() }

// Run commits writes until ctx ends and what was queued by then is stored. It returns nil.
func (s *State) Run(ctx context.Context) error {
	var g errgroup.Group
	for _, c := range s.all {
		g.Go(func() error { c.run(ctx); return nil })
	}
	return g.Wait()
}

// Close ends the server. Writes must have ended: end Run first.
func (s *State) Close() error {
	for _, conn := range []*nats.Conn{s.conn, s.readConn} {
		if conn != nil {
			conn.Close()
		}
	}
	return s.server.stop()
}

// freeSpace looks at the disk, at most once a second: the server's streams do not recover by themselves from a write
// that found the disk full, so it must not come to that.
type freeSpace struct {
	dir  string
	min  int64
	next atomic.Int64 // unix nanoseconds of the next look
	full atomic.Bool
}

func (f *freeSpace) check() error {
	now := time.Now().UnixNano()
	if next := f.next.Load(); now >= next && f.next.CompareAndSwap(next, now+int64(time.Second)) {
		var st unix.Statfs_t
		err := unix.Statfs(f.dir, &st)
		f.full.Store(err == nil && int64(st.Bavail)*int64(st.Bsize) < f.min) //nolint:unconvert // int32 on some processors
	}
	if f.full.Load() {
		return fmt.Errorf("less than %d MiB left in %s: %w", f.min>>20, f.dir, ErrDiskFull)
	}
	return nil
}
