package main

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"

	"github.com/cockroachdb/pebble"
	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/sandpiper-edge/sandpiper/store"
)

// engine is one way to make records durable.
type engine interface {
	// append returns when all bodies are on the disk. It may be called by many at once.
	append(bodies ...[]byte) error
	close() error
}

// engines are ours and its peers, each opened in a folder of its own.
var engines = map[string]func(dir string) (engine, error){
	"ours": openOurs, "rawlog": openRawlog, "sqlite": openSQLite, "pebble": openPebble,
}

// oursEngine is the product's store with one sink.
type oursEngine struct {
	store *store.Store
	ended chan error
}

const benchSink = "upstream/m0"

func openOurs(dir string) (engine, error) {
	s, err := store.Open(store.Config{Dir: dir, MaxBytes: 8 << 30})
	if err != nil {
		return nil, err
	}
	e := &oursEngine{store: s, ended: make(chan error, 1)}
	go func() { e.ended <- s.Run(context.Background()) }()
	return e, nil
}

func (e *oursEngine) append(bodies ...[]byte) error {
	recs := make([]store.Record, len(bodies))
	for i, b := range bodies {
		recs[i] = store.Record{Body: b, Entries: []store.Entry{{Sink: benchSink}}}
	}
	return e.store.Queue().Append(context.Background(), recs...)
}

func (e *oursEngine) close() error { return errors.Join(e.store.Close(), <-e.ended) }

// group commits whatever has queued while the commit before ran: what every peer without a group commit of its own gets.
type group struct {
	commit func(bodies [][]byte) error
	wake   chan struct{} // capacity 1
	ended  chan struct{}

	mu   sync.Mutex
	next *batch
}

type batch struct {
	bodies [][]byte
	done   chan struct{}
	err    error
}

func newGroup(commit func([][]byte) error) *group {
	g := &group{commit: commit, wake: make(chan struct{}, 1), ended: make(chan struct{}), next: &batch{done: make(chan struct{})}}
	go g.run()
	return g
}

func (g *group) run() {
	defer close(g.ended)
	for range g.wake {
		g.mu.Lock()
		b := g.next
		g.next = &batch{done: make(chan struct{}), bodies: make([][]byte, 0, len(b.bodies))}
		g.mu.Unlock()
		if len(b.bodies) > 0 {
			b.err = g.commit(b.bodies)
		}
		close(b.done)
	}
}

func (g *group) append(bodies ...[]byte) error {
	g.mu.Lock()
	b := g.next
	b.bodies = append(b.bodies, bodies...)
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
	<-b.done
	return b.err
}

func (g *group) stop() { close(g.wake); <-g.ended }

// rawlog is the floor: frames with a checksum, written behind one another into a file that was zero-filled before, and one fdatasync
// for each commit. It indexes nothing, expires nothing and forgets what it wrote when it comes round.
type rawlog struct {
	*group
	f   *os.File
	at  int64
	seq uint64
	buf []byte
}

// rawlogBytes is the size of the file.
const rawlogBytes = 64 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func openRawlog(dir string) (engine, error) {
	f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	zero := make([]byte, 1<<20)
	for at := int64(0); at < rawlogBytes; at += int64(len(zero)) {
		if _, err := f.WriteAt(zero, at); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	if err := f.Sync(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l := &rawlog{f: f}
	l.group = newGroup(l.write)
	return l, nil
}

func (l *rawlog) write(bodies [][]byte) error {
	l.buf = l.buf[:0]
	for _, b := range bodies {
		l.seq++
		start := len(l.buf)
		l.buf = binary.LittleEndian.AppendUint32(l.buf, uint32(len(b)))
		l.buf = append(l.buf, 0, 0, 0, 0)
		l.buf = binary.LittleEndian.AppendUint64(l.buf, l.seq)
		l.buf = append(l.buf, b...)
		binary.LittleEndian.PutUint32(l.buf[start+4:], crc32.Checksum(l.buf[start+8:], castagnoli))
	}
	if l.at+int64(len(l.buf)) > rawlogBytes {
		l.at = 0
	}
	if _, err := l.f.WriteAt(l.buf, l.at); err != nil {
		return err
	}
	l.at += int64(len(l.buf))
	return unix.Fdatasync(int(l.f.Fd()))
}

func (l *rawlog) close() error { l.stop(); return l.f.Close() }

// sqliteEngine is a table in a database in WAL mode with synchronous=FULL: durable when the transaction ends.
type sqliteEngine struct {
	*group
	db   *sql.DB
	conn *sql.Conn
}

func openSQLite(dir string) (engine, error) {
	db, err := sql.Open("sqlite", filepath.Join(dir, "queue.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if _, err := conn.ExecContext(ctx, "CREATE TABLE q(seq INTEGER PRIMARY KEY, body BLOB NOT NULL)"); err != nil {
		return nil, errors.Join(err, conn.Close(), db.Close())
	}
	e := &sqliteEngine{db: db, conn: conn}
	e.group = newGroup(e.write)
	return e, nil
}

func (e *sqliteEngine) write(bodies [][]byte) error {
	ctx := context.Background()
	tx, err := e.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	insert, err := tx.PrepareContext(ctx, "INSERT INTO q(body) VALUES(?)")
	for _, b := range bodies {
		if err == nil {
			_, err = insert.ExecContext(ctx, b)
		}
	}
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func (e *sqliteEngine) close() error { e.stop(); return errors.Join(e.conn.Close(), e.db.Close()) }

// pebbleEngine is an LSM tree with pebble.Sync; it groups commits itself.
type pebbleEngine struct {
	db *pebble.DB

	mu  sync.Mutex
	seq uint64
}

// silent keeps pebble's events out of the table.
type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, args ...any) {
	pebble.DefaultLogger.Fatalf(format, args...)
}

func openPebble(dir string) (engine, error) {
	db, err := pebble.Open(dir, &pebble.Options{Logger: silent{}})
	return &pebbleEngine{db: db}, err
}

func (e *pebbleEngine) append(bodies ...[]byte) error {
	b := e.db.NewBatch()
	defer b.Close()
	for _, body := range bodies {
		e.mu.Lock()
		e.seq++
		key := binary.BigEndian.AppendUint64(nil, e.seq)
		e.mu.Unlock()
		if err := b.Set(key, body, nil); err != nil {
			return err
		}
	}
	return b.Commit(pebble.Sync)
}

func (e *pebbleEngine) close() error { return e.db.Close() }
