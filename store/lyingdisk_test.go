package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
)

// mix returns what a disk that ignores flushes may hold: of every page, what any
// of the last steps wrote.
func mix(rng *rand.Rand, past []image) image {
	now := image{}
	newest := past[len(past)-1]
	for name, b := range newest {
		file := bytes.Clone(b)
		for at := 0; at < len(file); at += pageSize {
			if rng.IntN(4) > 0 {
				continue // most pages did arrive
			}
			page := file[at:min(at+pageSize, len(file))]
			clear(page)
			if old := past[rng.IntN(len(past))][name]; at < len(old) {
				copy(page, old[at:])
			}
		}
		now[name] = file
	}
	for _, old := range past[:len(past)-1] {
		for name := range old { // a removal that did not arrive
			if now[name] == nil && rng.IntN(3) == 0 {
				now[name] = old[name]
			}
		}
	}
	return now
}

// Field reports etcd-io/bbolt#325 and #135, and cheap cards: a disk that lies
// about flushes costs messages, which are counted, but never the agent: the
// store opens, ends, and works.
func TestADiskThatIgnoresFlushesCostsMessagesOnly(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			const steps, mixes = 40, 3
			dir := t.TempDir()
			s, err := Open(crashConfig(filepath.Join(dir, "live")))
			if err != nil {
				t.Fatal(err)
			}
			s.queue.tail.segmentBytes = minSegment
			c := &scene{
				rng: rand.New(rand.NewPCG(seed, 11)), store: s,
				stored: map[string][]string{}, acked: map[string]bool{},
			}
			past := []image{takeImage(t, s.dir.path)}
			damaged := 0
			for n := range steps {
				c.step(t)
				past = append(past, takeImage(t, s.dir.path))
				past = past[max(0, len(past)-4):]
				for k := range mixes {
					place := filepath.Join(dir, fmt.Sprint(n, "-", k))
					mix(c.rng, past).write(t, place)
					damaged += c.survives(t, place)
				}
			}
			if damaged == 0 {
				t.Error("no mix did any damage: the test says nothing")
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// survives opens what a lying disk left, empties it and goes on.
func (c *scene) survives(t *testing.T, dir string) (damaged int) {
	t.Helper()
	s, stop := start(t, crashConfig(dir))
	for _, sink := range []string{"x", "y"} {
		lost := len(c.stored[sink])
		for _, body := range drain(t, s, sink) {
			if !slices.Contains(c.stored[sink], body) {
				t.Errorf("%s: got %.30q, which nobody sent", sink, body)
			}
			lost--
		}
		if lost < 0 {
			t.Errorf("%s: got %d messages more than were sent", sink, -lost)
		}
	}
	u := s.Usage()
	works(t, s)
	stop()
	return int(u.DamagedFiles + u.DamagedRecords)
}
