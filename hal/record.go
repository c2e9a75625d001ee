package hal

import (
	"bytes"
	"context"
	"sync"
	"time"
)

// maxTape bounds what waits for a recorder that is slow, in bytes; what comes meanwhile is counted as lost.
const maxTape = 256 << 10

// tape is where the workers put what they did, while somebody records.
type tape struct {
	began time.Time
	wake  chan struct{} // capacity 1

	mu   sync.Mutex
	list []Record
	size int
	lost uint64
}

// put takes records that belong together, or counts them.
func (k *tape) put(list ...Record) {
	k.mu.Lock()
	defer k.mu.Unlock()
	size := 0
	for i := range list {
		size += 256 + len(list[i].W) + len(list[i].R)
	}
	if k.size+size > maxTape {
		k.lost += uint64(len(list))
		return
	}
	list[0].Lost += k.lost
	k.lost = 0
	k.list, k.size = append(k.list, list...), k.size+size
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *tape) take() []Record {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := k.list
	k.list, k.size = nil, 0
	return list
}

func (k *tape) now() int64 { return max(time.Since(k.began).Microseconds(), 0) }

// recorded puts a read or a write of a value where somebody records it.
func (t *thing) recorded(op string, v float64, err error) {
	if k := t.tape.Load(); k != nil {
		k.value(t.Name, op, v, err)
	}
}

// value puts a read or a write of a value.
func (k *tape) value(name, op string, v float64, err error) {
	r := Record{T: k.now(), Name: name, Op: op, V: v}
	if v-v != 0 { // JSON has no such number
		r.V, r.Err = 0, Broken
	}
	if err != nil {
		r.Err = CodeOf(err)
	}
	k.put(r)
}

// transfer puts operations that ran together. The buffers are the device's to use again.
func (k *tape) transfer(name string, ops []Op, err error) {
	list := asked(name, ops)
	for i := range list {
		list[i].T, list[i].W, list[i].R = k.now(), bytes.Clone(ops[i].Write), bytes.Clone(ops[i].Data)
	}
	if err != nil {
		list[len(list)-1].Err = CodeOf(err)
	}
	k.put(list...)
}

// events puts what is seen of a line or an interface, until ctx or the feed ends.
func (k *tape) events(ctx context.Context, name string, w *Watcher) {
	var batch [64]Event
	for {
		n, err := w.Next(ctx, batch[:])
		for _, e := range batch[:n] {
			r := Record{T: max(e.Time.Sub(k.began).Microseconds(), 0), Name: name, Op: opEdge, Seq: e.Seq, Edge: e.Edge, Merged: e.Merged, Lost: e.Lost}
			if e.Edge == "" {
				r.Op, r.ID, r.R = opFrame, e.ID, bytes.Clone(e.Data)
			}
			k.put(r)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			k.put(Record{T: k.now(), Name: name, Op: opEdge, Err: CodeOf(err)})
			return
		}
	}
}

// Record gives out what is read, written and transferred on resources, whoever does it, and the events of those that have some, until
// ctx ends. A resource is recorded by one at a time. out is called from here, first with nothing as soon as nothing is missed any more;
// began is what the times of the records count from.
func (s *Server) Record(ctx context.Context, began time.Time, names []string, out func([]Record) error) error {
	k := &tape{began: began, wake: make(chan struct{}, 1)}
	var watches sync.WaitGroup
	ctx, stop := context.WithCancel(ctx)
	defer func() { stop(); watches.Wait() }()
	for _, name := range names {
		t := s.things[name]
		switch {
		case t == nil:
			return s.unknown(name)
		case t.Kind == KindNode:
			return refusal(Unsupported, name, "what goes over a device node is not seen here")
		case !t.tape.CompareAndSwap(nil, k):
			return refusal(Busy, name, "it is being recorded already")
		}
		defer t.tape.Store(nil)
		if t.Kind != KindCAN && (t.Kind != KindLine || t.Line.Direction != In) {
			continue
		}
		w, err := s.Watch(ctx, Operator, name, 0)
		if err != nil {
			return err
		}
		watches.Go(func() { k.events(ctx, name, w) })
	}
	if err := out(nil); err != nil {
		return err
	}
	for ctx.Err() == nil {
		select {
		case <-k.wake:
		case <-ctx.Done():
			watches.Wait()
		}
		if list := k.take(); len(list) > 0 {
			if err := out(list); err != nil {
				return err
			}
		}
	}
	return nil
}
