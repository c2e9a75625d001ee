package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

func TestSourcesCountWhatWasStoredAndWhatWasRefused(t *testing.T) {
	t.Parallel()
	var s sources
	refused := fmt.Errorf("no: %w", ErrFull)
	s.count([]pending{
		{source: s.of("meter"), size: 5, entries: 2},
		{source: s.of("meter"), size: 7, entries: 1, err: refused},
		{source: s.of("pump"), size: 9, entries: 0}, // has nowhere to go
		{source: s.of("pump"), size: 3, entries: 1},
	})
	q := &Queue{inbox: newInbox(1)}
	q.inbox.sources.all = s.all
	want := []SourceStats{
		{Source: "meter", Records: 1, Bytes: 5, Refused: 1},
		{Source: "pump", Records: 1, Bytes: 3},
	}
	if got := q.Sources(); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestSourcesBeyondTheBoundAreCountedTogether(t *testing.T) {
	t.Parallel()
	var s sources
	for i := range 2 * maxSources {
		s.of(fmt.Sprint("module", i))
	}
	if len(s.all) > maxSources+1 {
		t.Errorf("%d sources are told apart, at most %d and the rest", len(s.all), maxSources)
	}
	if a, b := s.of("late"), s.of("later"); a != b || a.Source != "" {
		t.Errorf("late sources are counted under %q and %q, want one without a name", a.Source, b.Source)
	}
}

func TestAStoreTellsItsSourcesApart(t *testing.T) {
	t.Parallel()
	s, err := Open(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- s.Run(t.Context()) }()
	to := []Entry{{Sink: "up"}, {Sink: "down"}}
	if err := s.Queue().Append(t.Context(), Record{Body: []byte("four"), Entries: to, Source: "meter"}); err != nil {
		t.Fatal(err)
	}
	err = s.Queue().Append(t.Context(), Record{Body: make([]byte, MaxBody+1), Entries: to, Source: "camera"})
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large a body got %v, want %v", err, ErrTooLarge)
	}
	want := []SourceStats{{Source: "camera", Refused: 1}, {Source: "meter", Records: 1, Bytes: 4}}
	if got := s.Queue().Sources(); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
}
