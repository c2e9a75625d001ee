package store

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// maxMapped is how many segments are mapped at once. With at most 16 MiB each
// (64 MiB if release 0.1.0 wrote them) and state.db that is little address
// space: boards have 32 bits.
const maxMapped = 4

// shelf keeps the segments that are being read open. It opens a sealed one
// after verifying it, and closes the one that was not read for longest.
type shelf struct {
	mu     sync.Mutex
	open   []*handle // least recently used first
	sound  map[uint64]bool
	closed bool
}

// handle is one mapped segment. db and err are set when ready is closed; the
// other fields are guarded by shelf.mu.
type handle struct {
	number uint64
	ready  chan struct{}
	db     *bbolt.DB
	err    error
	refs   int
	gone   bool // close it when the last reader leaves
}

// view runs fn on a segment: on the draft, or on its file in one read transaction. Its error is a *damage if
// the file is not what was written to it.
func (s *shelf) view(seg *segment, fn func(r *reader) error) error {
	for d := seg.where().draft; d != nil; d = seg.where().draft {
		if d.enter() {
			defer d.leave()
			return fn(&reader{content: d, number: d.number})
		}
		if seg.where().draft == d {
			return nil // every lane has passed it meanwhile
		}
	}
	h, err := s.borrow(seg)
	if err != nil {
		return err
	}
	defer s.giveBack(h)
	if <-h.ready; h.err != nil {
		return h.err
	}
	return read(h.db, seg.number, fn)
}

// read runs fn in a read transaction of db.
func read(db *bbolt.DB, number uint64, fn func(r *reader) error) (err error) {
	defer catch(&err)
	defer faults()()
	return db.View(func(tx *bbolt.Tx) error {
		c, err := openContent(tx, number)
		if err != nil {
			return err
		}
		return fn(&reader{content: c, number: number})
	})
}

// borrow returns the handle of a segment. The first who asks opens it, which on
// a slow card takes a second; readers of other segments do not wait for that.
func (s *shelf) borrow(seg *segment) (*handle, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	i := slices.IndexFunc(s.open, func(h *handle) bool { return h.number == seg.number && !h.gone })
	if i >= 0 {
		h := s.open[i]
		s.open = append(slices.Delete(s.open, i, i+1), h)
		h.refs++
		s.mu.Unlock()
		return h, nil
	}
	h := &handle{number: seg.number, ready: make(chan struct{}), refs: 1}
	s.open = append(s.open, h)
	sound := s.sound[seg.number]
	s.mu.Unlock()

	h.db, h.err = openSegment(seg, sound)
	close(h.ready)
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.err != nil {
		h.gone = true // the next one tries again
	} else if !h.gone {
		s.trust(seg.number)
	}
	s.trimLocked()
	return h, nil
}

// openSegment maps a sealed segment, verified unless it is known to be sound.
func openSegment(seg *segment, sound bool) (*bbolt.DB, error) {
	path := seg.where().path
	if !sound {
		if err := verifySegment(path); err != nil {
			return nil, missing(err)
		}
	}
	db, err := openSealed(path)
	if err != nil {
		return nil, missing(err)
	}
	if err := read(db, seg.number, func(*reader) error { return nil }); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// missing makes a file that is not there damage.
func missing(err error) error {
	if os.IsNotExist(err) {
		return &damage{what: "the file is missing"}
	}
	return err
}

// openSealed maps a segment to read it. bbolt does not look at its free pages
// then.
func openSealed(path string) (db *bbolt.DB, err error) {
	defer catch(&err)
	defer faults()()
	db, err = bbolt.Open(path, fileMode, &bbolt.Options{ReadOnly: true, PageSize: pageSize, Timeout: time.Second, NoStatistics: true})
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	return db, nil
}

// trust notes that a segment was verified, or written by this process.
func (s *shelf) trust(number uint64) {
	if s.sound == nil {
		s.sound = map[uint64]bool{}
	}
	s.sound[number] = true
}

// trimLocked closes what is too much and not in use.
func (s *shelf) trimLocked() {
	for i := 0; len(s.open) > maxMapped && i < len(s.open); {
		h := s.open[i]
		if h.refs > 0 {
			i++
			continue
		}
		s.removeLocked(h)
	}
}

func (s *shelf) giveBack(h *handle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.refs--; h.refs == 0 && h.gone {
		s.removeLocked(h)
	}
}

// removeLocked takes a handle that nobody uses off the shelf.
func (s *shelf) removeLocked(h *handle) {
	s.open = slices.DeleteFunc(s.open, func(o *handle) bool { return o == h })
	if h.db != nil {
		h.db.Close() // only read
	}
}

// drop closes a segment, now or when its last reader has left.
func (s *shelf) drop(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sound, number)
	for _, h := range slices.Clone(s.open) {
		if h.number != number {
			continue
		}
		h.gone = true
		if h.refs == 0 {
			s.removeLocked(h)
		}
	}
}

// close closes everything and waits for readers to leave.
func (s *shelf) close() {
	s.mu.Lock()
	s.closed = true
	open := s.open
	s.open = nil
	s.mu.Unlock()
	for _, h := range open {
		if <-h.ready; h.db != nil {
			h.db.Close() // waits for open transactions
		}
	}
}
