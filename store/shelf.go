package store

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// maxMapped is how many segments are mapped at once. With 32 MiB each, the
// tail and state.db, less than 256 MiB of address space: boards have 32 bits.
const maxMapped = 4

// shelf keeps the segments that are being read open. It opens a sealed one
// after verifying it, and closes the one that was not read for longest.
type shelf struct {
	mu     sync.Mutex
	open   []*handle // least recently used first
	sound  map[uint64]bool
	closed bool
}

// handle is one mapped segment. All fields are guarded by shelf.mu.
type handle struct {
	number uint64
	db     *bbolt.DB
	refs   int
	tail   bool // the committer writes to it: stays
	gone   bool // close it when the last reader leaves
}

// view runs fn on a segment in one read transaction. Its error is a *damage if
// the file is not what was written to it.
func (s *shelf) view(seg *segment, fn func(r *reader) error) error {
	h, err := s.borrow(seg)
	if err != nil {
		return err
	}
	defer s.giveBack(h)
	return read(h.db, seg.number, fn)
}

// read runs fn in a read transaction of db.
func read(db *bbolt.DB, number uint64, fn func(r *reader) error) (err error) {
	defer catch(&err)
	defer faults()()
	return db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketRecords)
		if b == nil {
			return damaged(0, "the segment has no records bucket")
		}
		return fn(&reader{bucket: b, number: number})
	})
}

// borrow returns the handle of a segment, opened if it must be.
func (s *shelf) borrow(seg *segment) (*handle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	i := slices.IndexFunc(s.open, func(h *handle) bool { return h.number == seg.number && !h.gone })
	if i >= 0 {
		h := s.open[i]
		s.open = append(slices.Delete(s.open, i, i+1), h)
		h.refs++
		return h, nil
	}
	if !s.sound[seg.number] {
		if err := verify(seg.path, segmentMetas); err != nil {
			return nil, missing(err)
		}
	}
	db, err := openSealed(seg.path)
	if err != nil {
		return nil, missing(err)
	}
	s.trust(seg.number)
	h := &handle{number: seg.number, db: db, refs: 1}
	s.open = append(s.open, h)
	return h, s.trimLocked()
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
func (s *shelf) trimLocked() error {
	for i := 0; len(s.open) > maxMapped && i < len(s.open); {
		h := s.open[i]
		if h.refs > 0 || h.tail {
			i++
			continue
		}
		s.open = slices.Delete(s.open, i, i+1)
		if err := h.db.Close(); err != nil {
			return fmt.Errorf("close segment: %w", err)
		}
	}
	return nil
}

func (s *shelf) giveBack(h *handle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.refs--
	if h.refs == 0 && h.gone {
		s.open = slices.DeleteFunc(s.open, func(o *handle) bool { return o == h })
		h.db.Close() // it was only read, or is damaged
	}
}

// adopt puts the committer's own mapping of the tail on the shelf, so that
// readers share it.
func (s *shelf) adopt(number uint64, db *bbolt.DB) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trust(number)
	s.open = append(s.open, &handle{number: number, db: db, tail: true})
}

// release says that the tail is written no more; its mapping serves readers
// until it is the oldest.
func (s *shelf) release(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.open {
		if h.number == number {
			h.tail = false
		}
	}
}

// drop closes a segment, now or when its last reader has left. A stuck one,
// whose writer panicked with the lock held, is left open: closing would wait for
// ever.
func (s *shelf) drop(number uint64, stuck bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sound, number)
	for i := 0; i < len(s.open); {
		h := s.open[i]
		if h.number != number {
			i++
			continue
		}
		h.gone = true
		if h.refs > 0 && !stuck {
			i++
			continue
		}
		s.open = slices.Delete(s.open, i, i+1)
		if !stuck {
			h.db.Close() // it was only read, or is damaged
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
		h.db.Close() // waits for open transactions; everything written is flushed
	}
}
