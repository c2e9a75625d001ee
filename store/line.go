package store

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.etcd.io/bbolt"
)

// line is the changes that wait for a commit.
type line struct {
	mu      sync.Mutex
	waiting []*change
}

func (l *line) join(c *change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, c)
}

func (l *line) take() []*change {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := l.waiting
	l.waiting = nil
	return taken
}

// change is one caller's part of a transaction. done and err are guarded by
// state.turn.
type change struct {
	write func(tx *bbolt.Tx) error
	lean  bool // it may use stateSpare
	done  bool
	err   error
}

// do makes a change durable, in one transaction with all others that wait.
func (s *state) do(write func(tx *bbolt.Tx) error) error {
	return s.join(&change{write: write, lean: true})
}

// grow is do for what takes room.
func (s *state) grow(write func(tx *bbolt.Tx) error) error { return s.join(&change{write: write}) }

func (s *state) join(c *change) error {
	s.line.join(c)
	s.turn.Lock()
	defer s.turn.Unlock()
	if !c.done { // nobody before us has taken it along
		s.commit(s.line.take())
	}
	return c.err
}

// update runs plan in a read transaction while nobody commits, and then makes
// the change that it returned durable, together with all others that wait.
func (s *state) update(plan func(tx *bbolt.Tx) (write func(tx *bbolt.Tx) error, err error)) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	tx, err := s.db.Begin(false)
	if err != nil {
		return classify(fmt.Errorf("begin: %w", err))
	}
	write, err := func() (func(tx *bbolt.Tx) error, error) {
		defer tx.Rollback() // ends a read transaction; it cannot fail
		return plan(tx)
	}()
	if err != nil || write == nil {
		return err
	}
	c := &change{write: write}
	s.commit(append(s.line.take(), c))
	return c.err
}

// commit makes the changes one transaction and tells each how it went. If there
// is no room for all it is made of those that need little.
func (s *state) commit(changes []*change) {
	err := s.try(changes)
	for _, c := range changes {
		c.done, c.err = true, err
	}
	lean := slices.DeleteFunc(changes, func(c *change) bool { return !c.lean })
	if !errors.Is(err, ErrFull) || len(lean) == 0 {
		return
	}
	s.db.MaxSize = stateMaxBytes + stateSpare
	err = s.try(lean)
	s.db.MaxSize = stateMaxBytes
	for _, c := range lean {
		c.err = err
	}
}

func (s *state) try(changes []*change) error {
	err := s.failed
	if err == nil {
		if err = s.transact(changes); err != nil && !errors.Is(err, ErrFull) && !errors.Is(err, ErrClosed) {
			// The kernel may have dropped the pages it could not write, and a later
			// flush would then succeed over a hole. Only a fresh look helps.
			s.failed = fmt.Errorf("state.db takes no more writes, restart the agent: %w", err)
			err = s.failed
		}
	}
	return err
}

func (s *state) transact(changes []*change) (err error) {
	defer catch(&err)
	defer faults()()
	if err := s.reserve(); err != nil {
		return classify(err)
	}
	tx, err := s.db.Begin(true)
	if err != nil {
		return classify(fmt.Errorf("begin: %w", err))
	}
	defer tx.Rollback() // does nothing after Commit
	for _, c := range changes {
		if err := c.write(tx); err != nil {
			return roomless(fmt.Errorf("write: %w", err))
		}
	}
	if b := tx.Bucket(bucketMeta); b != nil {
		err := putNumber(tx, keyTx, uint64(tx.ID()))
		if err == nil && s.vouch != nil {
			err = putNumber(tx, keyStored, s.vouch())
		}
		if err != nil {
			return roomless(fmt.Errorf("write: %w", err))
		}
	}
	if err := tx.Commit(); err != nil {
		return roomless(fmt.Errorf("commit: %w", err))
	}
	s.io.commit(tx)
	return nil
}
