package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/store"
)

const (
	// auditPace is how often the store's counts are compared with what the hub was told.
	auditPace = 5 * time.Second
	// auditKey is the document with what the hub was told.
	auditKey = "agent/audit"
	// auditLanes bounds the lanes of one audit message; the rest comes with the next.
	auditLanes = 200
)

// losses are what one lane lost, as counted since the store was made.
type losses struct {
	Expired uint64 `json:"expired,omitempty"` // its time to live was over
	Evicted uint64 `json:"evicted,omitempty"` // dropped to make room; counted since the agent started
	Damaged uint64 `json:"damaged,omitempty"` // the disk did not keep it
	Purged  uint64 `json:"purged,omitempty"`  // an operator dropped it
	Refused uint64 `json:"refused,omitempty"` // no hub can take it; counted since the agent started
}

func (l losses) minus(o losses) losses {
	return losses{less(l.Expired, o.Expired), less(l.Evicted, o.Evicted), less(l.Damaged, o.Damaged), less(l.Purged, o.Purged), less(l.Refused, o.Refused)}
}

// less is what a count has grown by. One that went back belongs to a store that was made anew: all of it is news.
func less(now, told uint64) uint64 {
	if now < told {
		return now
	}
	return now - told
}

// lostLane is one lane in an audit message.
type lostLane struct {
	Queue    string `json:"queue"`
	Priority uint8  `json:"priority"`
	Source   string `json:"source,omitempty"` // who sent them, where the lane is that of one identity
	losses
}

// auditBody is the body of an audit message.
type auditBody struct {
	Event string     `json:"event"` // "messagesLost"
	Lanes []lostLane `json:"lanes"`
}

// audit tells the hub of every message that will never reach it: what expired, was evicted, damaged or purged. It speaks as $edgeAgent,
// on a lane of its own that no route names and none can leave out. What it has told is remembered on disk, so that a loss is told once,
// or twice after a power cut, and never not at all.
type audit struct {
	device string
	queue  *store.Queue
	docs   *store.Docs
	now    func() time.Time
	logger *slog.Logger
	// refused is how many messages of a lane no hub can take, by its sink; nil = nobody counts.
	refused func() map[string]uint64
	// evicted is how many messages of a sink and priority were dropped to make room; nil = nobody counts.
	evicted func(lane string) uint64

	told map[string]losses // by sink and priority
}

// Run compares until ctx ends.
func (a *audit) Run(ctx context.Context) error {
	raw, err := a.docs.Get(auditKey)
	if err == nil && raw != nil {
		err = json.Unmarshal(raw, &a.told)
	}
	if err != nil { // then everything is told again
		a.logger.Warn("what was told of losses is not known any more, it is told again", "err", err)
	}
	if a.told == nil {
		a.told = map[string]losses{}
	}
	for key, l := range a.told {
		l.Refused, l.Evicted = 0, 0 // they are counted from the start of the agent
		a.told[key] = l
	}
	tick := time.NewTicker(auditPace)
	defer tick.Stop()
	failed := false
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if err := a.look(ctx); err != nil && ctx.Err() == nil {
			if !failed {
				a.logger.Warn("losses not told yet, tried again", "err", err)
			}
			failed = true
			continue
		}
		failed = false
	}
}

// look tells what is new, if anything is.
func (a *audit) look(ctx context.Context) error {
	body := auditBody{Event: "messagesLost"}
	next := map[string]losses{}
	var refused map[string]uint64
	if a.refused != nil {
		refused = a.refused()
	}
	for _, q := range a.queue.Stats() {
		key := fmt.Sprintf("%s %d", q.Sink, q.Priority)
		now := lossesOf(q)
		if a.evicted != nil {
			now.Evicted = a.evicted(key)
		}
		now.Refused = refused[q.Sink]
		delete(refused, q.Sink) // with the first of its lanes
		told := a.told[key]
		news := now.minus(told)
		if news == (losses{}) || len(body.Lanes) == auditLanes {
			if told != (losses{}) {
				next[key] = told
			}
			continue
		}
		next[key] = now
		body.Lanes = append(body.Lanes, lostLane{Queue: q.Sink, Priority: q.Priority, Source: a.sourceOf(q.Sink), losses: news})
	}
	if len(body.Lanes) == 0 {
		return nil
	}
	if err := a.send(ctx, body); err != nil {
		return err
	}
	for _, l := range body.Lanes {
		a.logger.Warn("messages lost", "queue", l.Queue, "priority", l.Priority, "expired", l.Expired, "evicted", l.Evicted, "damaged", l.Damaged, "purged", l.Purged)
	}
	raw, err := json.Marshal(next)
	if err != nil {
		return err
	}
	a.told = next
	return a.docs.Put(ctx, auditKey, raw)
}

func lossesOf(q store.SinkStats) losses {
	return losses{Expired: q.Expired, Damaged: q.Damaged, Purged: q.Purged}
}

// sourceOf is the identity whose messages a lane holds, "" where it holds those of many.
func (a *audit) sourceOf(sink string) string {
	module, ok := strings.CutPrefix(sink, toHub)
	switch {
	case !ok:
		return ""
	case module == "_":
		return a.device
	}
	return a.device + "/" + module
}

// send stores an audit message on the system lane; it is on disk when send returns nil.
func (a *audit) send(ctx context.Context, body auditBody) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	m, err := message.FromPublish(iothub.ID{Device: a.device, Module: deployment.EdgeAgent}, iothub.Bag{
		{Key: iothub.PropContentType, Value: "application/json"}, {Key: iothub.PropContentEncoding, Value: "utf-8"}, {Key: "sandpiper-audit", Value: body.Event},
	}, raw, a.now())
	if err != nil {
		return err
	}
	return a.queue.Append(ctx, store.Record{Body: m.Append(nil), Entries: []store.Entry{{Sink: toHub + deployment.EdgeAgent}}})
}

// refusedByHub is how many messages of each lane no hub can take.
func (a *Agent) refusedByHub() map[string]uint64 {
	counts := map[string]uint64{}
	if a.upstream == nil {
		return counts
	}
	for _, l := range a.upstream.Status() {
		lane := toHub + "_"
		if l.ID.IsModule() {
			lane = toHub + l.ID.Module
		}
		counts[lane] = l.Dropped
	}
	return counts
}
