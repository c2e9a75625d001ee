package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/sandpiper-edge/sandpiper/store"
)

// found is what a store holds.
type found struct {
	here      map[string][producers]map[uint64]bool // sink, producer: records that wait
	newest    [producers]uint64
	documents [documents]uint64
	wrong     []error // bodies that nobody sent, records out of order
	damaged   int     // documents that the store says are damaged
}

// survey reads all that a store holds and changes nothing.
func survey(s *store.Store) (*found, error) {
	f := &found{here: map[string][producers]map[uint64]bool{}}
	for _, sink := range sinks {
		var here [producers]map[uint64]bool
		var last [producers]uint64
		for p := range here {
			here[p] = map[uint64]bool{}
		}
		for at := (store.Cursor{}); ; {
			items, next, err := s.Queue().Peek(sink, at, 500, 0)
			if err != nil {
				return nil, fmt.Errorf("peek %s: %w", sink, err)
			}
			if len(items) == 0 {
				break
			}
			for _, item := range items {
				p, n, err := parse(item.Body)
				if err != nil {
					f.wrong = append(f.wrong, fmt.Errorf("%s: %w", sink, err))
					continue
				}
				if n <= last[p] {
					f.wrong = append(f.wrong, fmt.Errorf("%s: record %d of producer %d comes behind %d", sink, n, p, last[p]))
				}
				last[p], here[p][n] = n, true
				f.newest[p] = max(f.newest[p], n)
			}
			at = next
		}
		f.here[sink] = here
	}
	for d := range documents {
		value, err := s.Docs().Get(key(d))
		if errors.Is(err, store.ErrDamaged) {
			f.damaged++
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read document %d: %w", d, err)
		}
		if f.documents[d], err = version(d, value); err != nil {
			f.wrong = append(f.wrong, err)
		}
	}
	return f, nil
}

// Verdict is what a check says of a folder.
type Verdict struct {
	Lost  []string // what was promised and is not there
	Wrong []string // what no disk excuses: it does not open, it gives out what nobody sent, it does not work on
	Held  int      // messages that wait
}

func (v *Verdict) lost(format string, args ...any) {
	v.Lost = append(v.Lost, fmt.Sprintf(format, args...))
}
func (v *Verdict) wrong(err error) {
	if err != nil {
		v.Wrong = append(v.Wrong, err.Error())
	}
}

// check opens the store that a cut left, compares it with the ledger, and uses it. Lying: the disk did not keep its own
// word, so damage that is counted is no loss of the store's.
func check(dir string, ledger Ledger, lying bool) (v Verdict) {
	s, err := store.Open(config(dir))
	if err != nil {
		v.wrong(fmt.Errorf("the store does not open: %w", err))
		return v
	}
	f, err := survey(s)
	v.wrong(err)
	if f != nil {
		v.compare(f, ledger, lying)
	}
	if u := s.Usage(); u.DamagedFiles+u.DamagedRecords+u.DamagedDocuments > 0 || u.Recovered {
		v.lost("the store counts damage: %d files, %d records, %d documents, state made anew: %v", u.DamagedFiles, u.DamagedRecords, u.DamagedDocuments, u.Recovered)
	}
	v.wrong(useIt(s))
	return v
}

func (v *Verdict) compare(f *found, ledger Ledger, lying bool) {
	for _, err := range f.wrong {
		v.wrong(err)
	}
	for _, sink := range sinks {
		for p := range producers {
			v.Held += len(f.here[sink][p])
			var missing []uint64
			for n := ledger.Delivered[sink][p] + 1; n <= ledger.Stored[p]; n++ {
				if !f.here[sink][p][n] {
					missing = append(missing, n)
				}
			}
			if len(missing) > 0 {
				v.lost("%s: %d records of producer %d, from %d to %d, were stored up to %d and are lost",
					sink, len(missing), p, missing[0], missing[len(missing)-1], ledger.Stored[p])
			}
		}
	}
	for d, n := range f.documents {
		if n < ledger.Put[d] {
			v.lost("document %d is version %d, and %d was stored", d, n, ledger.Put[d])
		}
		if n > ledger.Asked[d] && !lying {
			v.wrong(fmt.Errorf("document %d is version %d, and nobody asked for more than %d", d, n, ledger.Asked[d]))
		}
	}
}

// useIt appends, delivers and stores a document: a store that survived must work on.
func useIt(s *store.Store) (err error) {
	ended := make(chan error, 1)
	go func() { ended <- s.Run(context.Background()) }()
	defer func() {
		err = errors.Join(err, s.Close(), <-ended)
		if err != nil {
			err = fmt.Errorf("the store opens and does not work: %w", err)
		}
	}()
	const sink = "probe"
	if _, err := s.Queue().Purge(context.Background(), sink); err != nil {
		return err
	}
	if err := s.Queue().Append(context.Background(), store.Record{Body: []byte("probe"), Entries: []store.Entry{{Sink: sink}}}); err != nil {
		return err
	}
	items, _, err := s.Queue().Peek(sink, store.Cursor{}, 2, 0)
	if err != nil || len(items) != 1 {
		return fmt.Errorf("%d messages of one that was appended: %w", len(items), err)
	}
	if err := s.Queue().Ack(sink, items...); err != nil {
		return err
	}
	return s.Docs().Put(context.Background(), "powercut/probe", []byte("probe"))
}
