package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/sandpiper-edge/sandpiper/store"
)

// config is how the store is opened, here and by whoever checks: small segments, so that many are made and removed.
func config(dir string) store.Config {
	return store.Config{Dir: dir, MaxBytes: 64 << 20, MinFree: 1, SegmentBytes: 2 << 20}
}

const (
	window = 8   // records of a producer that are not stored yet
	lag    = 300 // messages that the lagging sink leaves waiting
)

// workload is one process at work on a store.
type workload struct {
	store *store.Store
	mu    sync.Mutex
	out   io.Writer // guarded by mu: a line is whole
}

// work goes on from where a ledger ends until the context does, or the power.
func work(ctx context.Context, dir string, from Ledger, out io.Writer) error {
	s, err := store.Open(config(dir))
	if err != nil {
		return err
	}
	w := &workload{store: s, out: out}
	found, err := survey(s)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	ctx, stop := context.WithCancelCause(ctx)
	var all sync.WaitGroup
	start := func(f func() error) {
		all.Go(func() {
			if err := f(); err != nil && ctx.Err() == nil {
				w.say("E", err)
				stop(err)
			}
		})
	}
	start(func() error { return s.Run(context.WithoutCancel(ctx)) }) // until Close
	w.say("working")
	for p := range producers {
		n := max(from.Stored[p], found.newest[p])
		for _, sink := range sinks {
			n = max(n, from.Delivered[sink][p])
		}
		start(func() error { return w.produce(ctx, p, n+1) })
	}
	for d := range documents {
		start(func() error { return w.change(ctx, d, max(from.Asked[d], found.documents[d])+1) })
	}
	start(func() error { return w.consume(ctx, sinks[0], 0) })
	start(func() error { return w.consume(ctx, sinks[1], lag) })
	<-ctx.Done()
	err = s.Close()
	all.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return errors.Join(cause, err)
	}
	return err
}

func (w *workload) say(words ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintln(w.out, words...)
}

// produce hands records over, a few at a time.
func (w *workload) produce(ctx context.Context, p int, first uint64) error {
	free := make(chan struct{}, window)
	failed := make(chan error, 1)
	for n := first; ; n++ { // each turn has an n of its own
		select {
		case free <- struct{}{}:
		case err := <-failed:
			return err
		case <-ctx.Done():
			return nil
		}
		rec := store.Record{Body: body(p, n), Entries: []store.Entry{{Sink: sinks[0], Priority: uint8(p)}, {Sink: sinks[1], Priority: 4}}}
		w.store.Queue().Enqueue(rec, func(err error) {
			if err != nil {
				select {
				case failed <- fmt.Errorf("store record %d of producer %d: %w", n, p, err):
				default:
				}
				return // not stored, and nothing after it is said to be
			}
			w.say("A", p, n)
			<-free
		})
	}
}

// change stores one version of a document after the other.
func (w *workload) change(ctx context.Context, d int, n uint64) error {
	for ; ctx.Err() == nil; n++ {
		w.say("W", d, n)
		if err := w.store.Docs().Put(ctx, key(d), document(d, n)); err != nil {
			return fmt.Errorf("store document %d: %w", d, err)
		}
		w.say("P", d, n)
	}
	return nil
}

func key(d int) string { return fmt.Sprintf("powercut/%d", d) }

// consume delivers and acknowledges the messages of a sink, but leaves some waiting.
func (w *workload) consume(ctx context.Context, sink string, leave int) error {
	q := w.store.Queue()
	for {
		items, _, err := q.Peek(sink, store.Cursor{}, leave+50, 0)
		if err != nil {
			return fmt.Errorf("peek %s: %w", sink, err)
		}
		if len(items) <= leave {
			select {
			case <-q.Ready(sink):
				continue
			case <-ctx.Done():
				return nil
			}
		}
		items = items[:len(items)-leave]
		newest := map[int]uint64{}
		for _, item := range items {
			p, n, err := parse(item.Body)
			if err != nil {
				return fmt.Errorf("peek %s: %w", sink, err)
			}
			newest[p] = n
		}
		for p, n := range newest {
			w.say("D", sink, p, n)
		}
		if err := q.Ack(sink, items...); err != nil {
			return fmt.Errorf("acknowledge %s: %w", sink, err)
		}
	}
}
