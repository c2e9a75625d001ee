package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/agent/route"
	"github.com/sandpiper-edge/sandpiper/store"
)

// evictPace is how often a full store is looked for messages that its routes let go.
const evictPace = time.Second

// evictor makes room in a full store from the lanes whose routes let messages go: all but the newest of each key, then the oldest of the
// lowest priority, no more at a time than one file of the store holds. A route that says neither loses nothing: a full store refuses
// its publish.
type evictor struct {
	queue  *store.Queue
	usage  func() store.Usage
	rules  func() []route.Rule
	logger *slog.Logger

	mu      sync.Mutex
	evicted map[string]uint64 // since the agent started, by sink and priority
}

// Run looks until ctx ends.
func (e *evictor) Run(ctx context.Context) error {
	pace := time.NewTicker(evictPace)
	defer pace.Stop()
	for {
		select {
		case <-pace.C:
		case <-ctx.Done():
			return nil
		}
		if !e.usage().Full {
			continue
		}
		if n, err := e.makeRoom(ctx); err != nil && ctx.Err() == nil {
			e.logger.Warn("no room made in the full store", "err", err)
		} else if n > 0 {
			e.logger.Warn("messages were evicted from the full store", "messages", n)
		}
	}
}

// makeRoom looks through every lane that a rule with a key fills.
func (e *evictor) makeRoom(ctx context.Context) (total int, err error) {
	var lanes []string
	for _, q := range e.queue.Stats() {
		if q.Messages > 0 && (len(lanes) == 0 || lanes[len(lanes)-1] != q.Sink) {
			lanes = append(lanes, q.Sink)
		}
	}
	for _, r := range e.rules() {
		if r.Terms.Eviction.Key == "" {
			continue
		}
		for _, sink := range lanes {
			if !fills(r, sink) {
				continue
			}
			n, err := e.sweep(ctx, sink, r)
			total += n
			if err != nil {
				return total, fmt.Errorf("queue %s: %w", sink, err)
			}
		}
	}
	if total > 0 {
		return total, nil // look first whether that was enough
	}
	return e.oldest(ctx, lanes)
}

// oldest lets go of as many bytes as a file of the store holds, the oldest of the lowest priority first.
func (e *evictor) oldest(ctx context.Context, lanes []string) (total int, err error) {
	room := int64(2 << 20) // see store.Config.SegmentBytes
	for priority := route.Lowest; priority >= 0 && room > 0 && ctx.Err() == nil; priority-- {
		for {
			var batch []store.Item
			for _, sink := range lanes {
				items, err := e.head(sink, uint8(priority))
				if err != nil {
					return total, fmt.Errorf("queue %s: %w", sink, err)
				}
				batch = append(batch, items...)
			}
			sort.Slice(batch, func(i, j int) bool { return batch[i].Seq < batch[j].Seq })
			n := 0
			for ; n < len(batch) && room > 0; n++ {
				room -= int64(len(batch[n].Body))
				if err := e.queue.Ack(batch[n].Sink, batch[n]); err != nil {
					return total, err
				}
				e.evict(batch[n].Sink, batch[n].Priority, 1)
			}
			if total += n; n == 0 || room <= 0 || ctx.Err() != nil {
				break
			}
		}
	}
	return total, ctx.Err()
}

// head is the oldest messages of a lane, if a rule of that priority lets them go.
func (e *evictor) head(sink string, priority uint8) (list []store.Item, err error) {
	if !slices.ContainsFunc(e.rules(), func(r route.Rule) bool {
		return r.Terms.Eviction.OldestFirst && r.Priority == priority && fills(r, sink)
	}) {
		return nil, nil
	}
	for after := (store.Cursor{}); len(list) == 0; {
		items, next, err := e.queue.Peek(sink, after, lookBatch, 1<<20)
		if err != nil || len(items) == 0 || items[0].Priority > priority {
			return nil, err
		}
		after = next
		for _, it := range items {
			if it.Priority == priority {
				list = append(list, it)
			}
		}
	}
	return list, nil
}

func (e *evictor) evict(sink string, priority uint8, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.evicted[fmt.Sprintf("%s %d", sink, priority)] += uint64(n)
}

// fills tells whether a rule puts messages into a lane.
func fills(r route.Rule, sink string) bool {
	if r.Route.Sink.Upstream() {
		return strings.HasPrefix(sink, toHub)
	}
	return sink == "modules/"+r.Route.Sink.Module+"/inputs/"+r.Route.Sink.Input
}

// newest remembers the newest message of each key that was seen in a lane, in a bounded space: a module chooses its keys. When it is full
// it begins anew, so that of two messages of one key the older stays if too many other keys stand between them.
type newest struct {
	seen map[string]store.Item // without bodies
	held int                   // bytes, about
}

// What newest holds at the most, and what an entry takes besides its key, in bytes.
const (
	newestMost  = 4 << 20
	newestEntry = 200
)

// replace takes a message and returns the one whose place it takes.
func (n *newest) replace(key string, it store.Item) (older store.Item, there bool) {
	it.Body = nil
	if older, there = n.seen[key]; !there {
		if n.held += len(key) + newestEntry; n.seen == nil || n.held > newestMost {
			n.seen, n.held = map[string]store.Item{}, len(key)+newestEntry
		}
		key = strings.Clone(key) // it may be a part of the message
	}
	n.seen[key] = it
	return older, there
}

// sweep lets go of every message of a lane behind which a newer one has the same key. What the queue hands out at once is bounded, so a
// long lane is swept in several rounds.
func (e *evictor) sweep(ctx context.Context, sink string, r route.Rule) (total int, err error) {
	var known newest
	for after := (store.Cursor{}); ctx.Err() == nil; {
		items, next, err := e.queue.Peek(sink, after, lookBatch, 1<<20)
		if err != nil || len(items) == 0 {
			return total, err
		}
		after = next
		var old []store.Item
		for _, it := range items {
			m, err := message.Decode(it.Body)
			if err != nil || it.Priority != r.Priority {
				continue
			}
			key, ok := m.Bag.Get(r.Terms.Eviction.Key)
			if !ok {
				continue
			}
			if older, there := known.replace(key, it); there {
				old = append(old, older)
			}
		}
		if err := e.queue.Ack(sink, old...); err != nil {
			return total, err
		}
		if len(old) > 0 {
			total += len(old)
			e.evict(sink, r.Priority, len(old))
		}
	}
	return total, ctx.Err()
}

// count is how many messages of a sink and priority were evicted since the agent started.
func (e *evictor) count(lane string) uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.evicted[lane]
}
