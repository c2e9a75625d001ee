package hal

import (
	"context"
	"sync"
	"time"
)

// feedSize is how many events of a line are kept for its readers; one who falls further behind loses the oldest, counted.
const feedSize = 1024

// feed reads the edges of one line for all who watch it.
type feed struct {
	mu   sync.Mutex
	ring []Event
	next uint64        // events that came so far
	more chan struct{} // closed when another came, or none will
	err  error         // why none will
}

// Watcher is one reader of the events of a line, or of the frames that its right lets it hear.
type Watcher struct {
	feed   *feed
	pos    uint64
	seq    uint64 // of the last event that was looked at; 0 = none
	missed uint64 // lost before events that the reader does not want
	edges  string
	rx     []IDMask
}

// wants says whether an event is one of those that the reader's right covers.
func (w *Watcher) wants(e *Event) bool {
	if e.Edge == "" {
		return anyHas(w.rx, e.ID)
	}
	return w.edges == "" || w.edges == "both" || w.edges == string(e.Edge)
}

// events opens the reader that a line or a CAN interface has; only its worker calls it.
func (t *thing) events(ctx context.Context) (EdgeReader, error) {
	switch dev := t.dev.(type) {
	case nil:
		return nil, refusal(Absent, t.Name, "")
	case FrameSource:
		return dev.Frames(ctx)
	case Line:
		return dev.Edges(ctx)
	}
	return nil, refusal(Unsupported, t.Name, "events are of an input line or of CAN frames; read it")
}

// Watch starts to read the events of an input line, or the frames of a CAN resource, for a module: from the sequence number from on, if those are still kept; 0 =
// from now on.
func (s *Server) Watch(ctx context.Context, who, name string, from uint64) (*Watcher, error) {
	g, err := s.right(who, name)
	if err != nil {
		return nil, err
	}
	t := g.thing
	if !g.Read {
		return nil, s.denied(who, refusal(Denied, name, "granted to write only"))
	}
	err = t.worker.do(ctx, who, ClassRead, t.deadline(time.Now(), 0), func(ctx context.Context) error {
		s.mu.Lock()
		running, life := t.feed != nil, s.served
		s.mu.Unlock()
		if running {
			return nil
		}
		reader, err := t.events(ctx)
		if err != nil {
			return s.seen(ctx, t, err)
		}
		f := &feed{more: make(chan struct{})}
		s.mu.Lock()
		t.feed = f
		s.mu.Unlock()
		s.feeds.Go(func() {
			f.run(life, reader)
			s.mu.Lock()
			t.feed = nil
			s.mu.Unlock()
		})
		return nil
	})
	if err != nil {
		return nil, named(err, name)
	}
	s.mu.Lock()
	f := t.feed
	s.mu.Unlock()
	if f == nil {
		return nil, refusal(Absent, name, "")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	w := &Watcher{feed: f, pos: f.next, edges: g.Edges, rx: g.RX}
	for from > 0 && w.pos > f.oldestLocked() && f.ring[(w.pos-1)%feedSize].Seq >= from {
		w.pos--
	}
	switch {
	case from > 0 && w.pos < f.next: // what lies between and the first that is still kept is lost
		w.seq = f.ring[w.pos%feedSize].Seq - 1
		w.missed = w.seq - (from - 1)
	case from > 0:
		w.seq = from - 1
	case f.next > 0:
		w.seq = f.ring[(f.next-1)%feedSize].Seq
	}
	return w, nil
}

func (f *feed) oldestLocked() uint64 { return f.next - uint64(len(f.ring)) }

func (f *feed) run(ctx context.Context, reader EdgeReader) {
	var batch [64]Event
	for {
		n, err := reader.Read(ctx, batch[:])
		if err != nil && ctx.Err() != nil {
			err = ctx.Err() // it is not the line that failed
		}
		f.mu.Lock()
		for _, e := range batch[:n] {
			if len(f.ring) < feedSize {
				f.ring = append(f.ring, e)
			} else {
				f.ring[f.next%feedSize] = e
			}
			f.next++
		}
		f.err = err
		close(f.more)
		f.more = make(chan struct{})
		f.mu.Unlock()
		if err != nil {
			_ = reader.Close() // the read already said why it ends
			return
		}
	}
}

// Next waits for events and fills into with what there is. What the reader missed since the one before, in the kernel or here, is
// Lost of an event.
func (w *Watcher) Next(ctx context.Context, into []Event) (int, error) {
	for {
		w.feed.mu.Lock()
		f, n := w.feed, 0
		if oldest := f.oldestLocked(); w.pos < oldest {
			if w.seq == 0 { // nothing to count from but how many came
				w.missed += oldest - w.pos
			}
			w.pos = oldest
		}
		for ; w.pos < f.next && n < len(into); w.pos++ {
			e := f.ring[w.pos%feedSize]
			if w.seq != 0 {
				e.Lost = 0
				if e.Seq > w.seq { // else the line was opened anew
					e.Lost = e.Seq - w.seq - 1
				}
			}
			w.seq = e.Seq
			w.missed += e.Lost
			if !w.wants(&e) {
				continue
			}
			e.Lost, w.missed = w.missed, 0
			into[n] = e
			n++
		}
		more, err := f.more, f.err
		f.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}
