package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// What a caller decides on. All other errors are of the machine: they name the
// step that went wrong.
var (
	// ErrFull: the disk, or the part of it that the store may use, is full. What
	// is stored is safe; acknowledgements and expiry make room.
	ErrFull = errors.New("store is full")
	// ErrClosed: the store is closed, or closes.
	ErrClosed = errors.New("store is closed")
	// ErrReadOnly: the file system takes no writes.
	ErrReadOnly = errors.New("file system is read-only")
	// ErrTooLarge: a message is above MaxBody, or a document above MaxDoc.
	ErrTooLarge = errors.New("too large for the store")
	// ErrDamaged: the disk did not keep a document.
	ErrDamaged = errors.New("damaged on disk")
	// ErrLocked: another process has the store open.
	ErrLocked = errors.New("store is in use by another process")
	// ErrNewer: a newer program wrote the store.
	ErrNewer = errors.New("store was written by a newer program")
)

const (
	// A segment is in memory until it is sealed, and there may be three of them,
	// so the default is the smallest that takes a body of MaxBody.
	defaultSegmentBytes = 4 * MaxBody
	maxJournal          = 16 << 20
	defaultMinFree      = 64 << 20
	// minBytes is the smallest MaxBytes: four segments of the smallest size that
	// holds a body of MaxBody.
	minBytes = 4 * 4 * MaxBody
)

// Config of a Store. Only Dir is needed.
type Config struct {
	// Dir is the store's folder, made with mode 0700 if it is not there.
	Dir string
	// MaxBytes is what messages may take on disk, journals included. Default: a quarter of the
	// partition; at least 8 MiB. Beyond it producers get ErrFull. Documents, up to
	// 64 MiB, are not counted.
	MaxBytes int64
	// MinFree is how many bytes of the partition messages leave free, whatever
	// MaxBytes says. Default: 64 MiB, or an eighth of a partition under 512 MiB.
	MinFree int64
	// SegmentBytes is the size of a journal, and about that of a segment. Two or
	// three of them are on disk and, as far as they are used, in memory. Default: 2
	// MiB, which is the least: a body must fit four times. At most 16 MiB and a
	// quarter of MaxBytes.
	SegmentBytes int64
	// Logger gets damage, fullness and recovery. Default: discard.
	Logger *slog.Logger
	// Now is the wall clock. Default: time.Now.
	Now func() time.Time
}

func (c Config) withDefaults(partition int64) (Config, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = max(partition/4, minBytes)
	}
	if c.MaxBytes < minBytes {
		return c, fmt.Errorf("MaxBytes is %d: it must be at least %d", c.MaxBytes, minBytes)
	}
	if c.MinFree == 0 {
		c.MinFree = min(defaultMinFree, partition/8)
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = defaultSegmentBytes
	}
	if c.SegmentBytes < 4*MaxBody || c.SegmentBytes > c.MaxBytes/4 || c.SegmentBytes > maxJournal {
		return c, fmt.Errorf("SegmentBytes is %d: it must be %d to %d and at most a quarter of MaxBytes",
			c.SegmentBytes, 4*MaxBody, maxJournal)
	}
	return c, nil
}

// Store is an open store. It holds its folder's lock until Close.
type Store struct {
	dir   *dir
	state *state
	docs  *Docs
	queue *Queue
	io    *counters

	recovered bool // state.db was made anew

	stop chan struct{} // closed by Close: Run is to end
	done chan struct{} // closed when Run has ended

	mu      sync.Mutex
	running bool
	closed  bool
}

// Open opens the store in cfg.Dir, or makes it. It verifies before it trusts:
// damaged files are put aside as *.bad-N, logged and counted in [Usage], and the
// store opens with what is left. So an error means that the folder cannot be
// used at all: ErrLocked, ErrNewer, ErrReadOnly, ErrFull, or one of the machine.
// There is no way to get a store that keeps messages in memory only.
func Open(cfg Config) (*Store, error) {
	s, err := open(cfg, realMedium{})
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", cfg.Dir, err)
	}
	return s, nil
}

func open(cfg Config, m medium) (*Store, error) {
	if cfg.Dir == "" {
		return nil, errors.New("no folder is given")
	}
	d, err := openDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s, err := openIn(d, cfg, m)
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return s, nil
}

func openIn(d *dir, cfg Config, m medium) (*Store, error) {
	_, partition, err := d.space()
	if err != nil {
		return nil, err
	}
	if cfg, err = cfg.withDefaults(partition); err != nil {
		return nil, err
	}
	s := &Store{dir: d, io: &counters{}, stop: make(chan struct{}), done: make(chan struct{})}
	var made bool
	if s.state, made, s.recovered, err = openState(d, cfg.Logger, s.io); err != nil {
		return nil, err
	}
	s.docs = &Docs{state: s.state}
	s.queue = newQueue(s, cfg, m)
	if err := s.queue.load(); err != nil {
		return nil, errors.Join(err, s.state.close())
	}
	s.state.vouch = s.queue.ledger.storedSoFar
	if _, segments, _ := s.queue.ledger.pending(); made && !s.recovered && segments > 0 {
		s.recovered = true
		cfg.Logger.Error("state.db is missing; messages are delivered again, documents are made anew", "file", d.state())
	}
	s.queue.tail.highest = max(s.queue.tail.highest, s.queue.ledger.highest())
	s.queue.inbox = newInbox(s.queue.tail.highest + 1)
	s.queue.tail.tell()
	return s, nil
}

func newQueue(s *Store, cfg Config, m medium) *Queue {
	ledger := newLedger()
	t := &tail{
		dir: s.dir, ledger: ledger, io: s.io, closed: make(chan struct{}, 1),
		segmentBytes: cfg.SegmentBytes, limit: cfg.MaxBytes, minFree: cfg.MinFree,
	}
	t.journals = &journals{medium: m, folder: s.dir.journals(), io: s.io, ledger: ledger, log: cfg.Logger, room: t.room}
	return &Queue{
		dir: s.dir, state: s.state, ledger: ledger, shelf: &shelf{}, clock: newClock(cfg.Now),
		log: cfg.Logger, io: s.io, keeper: newKeeper(), closed: make(chan struct{}), medium: m, tail: t,
	}
}

// Docs returns the documents.
func (s *Store) Docs() *Docs { return s.docs }

// Queue returns the messages.
func (s *Store) Queue() *Queue { return s.queue }

// Run commits what is handed over, until ctx ends or the store is closed; then
// it stores what it was handed before, writes the cursors and returns nil. It
// runs once: after it the queue takes no more. On a closed store it returns nil
// at once.
func (s *Store) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.running || s.closed {
		defer s.mu.Unlock()
		if s.closed {
			return nil
		}
		return errors.New("run store: it runs already")
	}
	s.running = true
	s.mu.Unlock()
	defer close(s.done)

	work, end := context.WithCancel(ctx)
	defer end()
	stopped := make(chan struct{})
	go func() { // passes Close on
		defer close(stopped)
		select {
		case <-s.stop:
			end()
		case <-work.Done():
		}
	}()
	keeping, endKeeping := context.WithCancel(context.WithoutCancel(ctx))
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		s.queue.keep(keeping)
	}()
	sealing, endSealing := context.WithCancel(context.WithoutCancel(ctx))
	sealed := make(chan struct{})
	go func() {
		defer close(sealed)
		s.queue.sealAll(sealing)
	}()
	s.queue.commitAll(work)
	endSealing()
	<-sealed
	endKeeping()
	<-kept
	<-stopped
	if err := s.queue.save(); err != nil {
		return fmt.Errorf("end store: %w", err)
	}
	return nil
}

// Close ends Run, writes what is to be remembered, and gives the folder free.
// Records that were handed over while Run never ran are refused with ErrClosed.
// A second Close does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	running := s.running
	s.mu.Unlock()

	close(s.stop)
	if running {
		<-s.done
	}
	close(s.queue.closed)
	s.queue.inbox.close()
	if b := s.queue.inbox.take(); b != nil {
		b.refuse()
	}
	err := s.queue.tail.finish()
	err = errors.Join(err, s.queue.save())
	s.queue.files.Lock() // waits for a repair
	defer s.queue.files.Unlock()
	s.queue.shelf.close()
	if err = errors.Join(err, s.queue.closeJournals(), s.state.close(), s.dir.close()); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// refuse calls everybody back with ErrClosed.
func (b *batch) refuse() {
	for i := range b.records {
		if done := b.records[i].done; done != nil {
			done(ErrClosed)
		}
	}
}

// Usage returns the store in numbers.
func (s *Store) Usage() Usage {
	free, _, err := s.dir.space()
	if err != nil {
		free = 0 // it is a gauge: nothing depends on it
	}
	pending, segments, lost := s.queue.ledger.pending()
	return Usage{
		Held: s.queue.ledger.bytesHeld(), Pending: pending, Limit: s.queue.tail.limit, Free: free,
		Segments: segments, Waiting: s.queue.inbox.waiting(),
		Records: s.io.records.Load(), Commits: s.io.commits.Load(),
		Flushes: s.io.flushes.Load(), Written: s.io.written.Load(),
		DamagedFiles: s.io.damaged.Load(), DamagedRecords: lost, DamagedDocuments: s.io.documents.Load(),
		Recovered: s.recovered, Full: s.queue.refuses(pending), Failing: s.queue.mood.Load() == failing,
	}
}

// closeJournals closes the journals of the drafts and the free ones.
func (q *Queue) closeJournals() error {
	err := q.tail.journals.close()
	for _, d := range q.ledger.drafts() {
		d.release()
		if cerr := d.journal.Close(); !d.journal.failed {
			err = errors.Join(err, cerr)
		}
	}
	return err
}

// drafts returns the drafts that there are.
func (g *ledger) drafts() (all []*draft) {
	defer g.locked()()
	for _, seg := range g.segments {
		if d := seg.where().draft; d != nil {
			all = append(all, d)
		}
	}
	return append(all, g.released...)
}
