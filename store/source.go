package store

import (
	"maps"
	"slices"
	"strings"
	"sync"
)

// maxSources is how many sources are told apart; what comes from further ones
// is counted together, under the empty name.
const maxSources = 1024

// SourceStats is what one source handed over since [Open]. A record counts
// once, however many sinks it has.
type SourceStats struct {
	Source  string // [Record.Source]; empty: not named, or beyond the first 1024
	Records uint64 // made durable
	Bytes   uint64 // of their bodies
	Refused uint64 // not stored: the producer was told why
}

// sources counts by [Record.Source]. The zero value works.
type sources struct {
	mu  sync.Mutex
	all map[string]*SourceStats
}

// of returns the counters of a source, made if it must be.
func (s *sources) of(name string) *SourceStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.all[name]; ok {
		return c
	}
	if len(s.all) >= maxSources {
		name = ""
	}
	c, ok := s.all[name]
	if !ok {
		c = &SourceStats{Source: strings.Clone(name)} // name may be a piece of a large string
		if s.all == nil {
			s.all = map[string]*SourceStats{}
		}
		s.all[c.Source] = c
	}
	return c
}

// count notes what became of records that have somewhere to go.
func (s *sources) count(records []pending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range records {
		r := &records[i]
		switch {
		case r.err != nil:
			r.source.Refused++
		case r.entries > 0:
			r.source.Records++
			r.source.Bytes += uint64(r.size)
		}
	}
}

// Sources returns what every source handed over, by name.
func (q *Queue) Sources() []SourceStats {
	s := &q.inbox.sources
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]SourceStats, 0, len(s.all))
	for _, name := range slices.Sorted(maps.Keys(s.all)) {
		out = append(out, *s.all[name])
	}
	return out
}
