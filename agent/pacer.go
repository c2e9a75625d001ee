package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/route"
	"github.com/sandpiper-edge/sandpiper/store"
)

const (
	// pacerBytes and pacerRecords bound what is acknowledged or waits in memory: beyond them it is committed at once.
	pacerBytes   = 256 << 10
	pacerRecords = 1024
	// pacerRetry is the pause before records that were acknowledged from memory and that the disk did not take are tried again.
	pacerRetry = time.Second
	// pacerEnd bounds how long the end of the agent waits for what was acknowledged from memory.
	pacerEnd = 5 * time.Second
	// limitWindow is the window of what is strict, while the operator chose "relaxed" for a used-up budget of writes.
	limitWindow = 5 * time.Second
	// limitLinger is how long a commit waits for others at a used-up budget; it doubles with each tenth of the budget beyond it.
	limitLinger, limitLingerMost = 200 * time.Millisecond, 5 * time.Second
)

// Why a publish is not taken although the disk would take it.
var (
	errDailyWrites = errors.New("the day's budget of writes is used up (store.daily_writes); messages are taken again when the day is over")
	errMaxMessages = errors.New("as many messages are queued as may be (store.max_messages); messages are taken again when the queues drain")
)

// pacer is in front of the queue and keeps the promises of routes. Strict records go through at once. Relaxed ones are acknowledged from
// memory and committed together, at the latest when the window of the first is over; a strict one takes those before it along. It
// is also where the operator's bounds are kept that the store does not know.
type pacer struct {
	queue  *store.Queue
	logger *slog.Logger

	refusal  atomic.Pointer[error] // why nothing is taken; nil = all is
	limit    atomic.Pointer[limit] // the daily budget is used up; nil = it is not
	buffered atomic.Int64          // records in buf: 0 = nothing can be overtaken

	strict, relaxed atomic.Uint64 // records taken since the agent started

	mu    sync.Mutex // guards what follows; held while records are handed to the queue, so that none overtakes another
	buf   []paced
	bytes int
	due   time.Time
	timer *time.Timer

	failMu  sync.Mutex // guards what follows; apart, because the committer calls back while mu is held
	flight  int        // relaxed records handed to the queue and not yet on disk
	landed  chan struct{}
	stuck   []paced // relaxed records that the disk did not take
	lastErr error   // why
	lost    uint64
}

// limit is what happens at a used-up budget.
type limit struct {
	at     AtLimit
	linger time.Duration
}

// paced is a record that waits in memory. done is nil when it was acknowledged.
type paced struct {
	rec  store.Record
	done func(error)
}

func newPacer(queue *store.Queue, logger *slog.Logger) *pacer {
	return &pacer{queue: queue, logger: logger, landed: make(chan struct{}, 1)}
}

// Put hands a record over at the durability that its route asks for, and returns the one that it gets: that is another only while the
// operator's choice for a used-up budget is in force. done is called once: with nil when the record is as safe as that.
func (p *pacer) Put(rec store.Record, d route.Durability, done func(error)) route.Durability {
	if why := p.refusal.Load(); why != nil {
		done(*why)
		return d
	}
	wait := d.Window
	if l := p.limit.Load(); l != nil {
		switch {
		case l.at == AtLimitRefuse:
			done(errDailyWrites)
			return d
		case l.at == AtLimitRelaxed && !d.Relaxed():
			d = route.Durability{Window: limitWindow}
			wait = limitWindow
		case l.at == AtLimitLinger:
			wait = max(wait, l.linger)
		}
	}
	if !d.Relaxed() {
		p.strict.Add(1)
	}
	if wait == 0 && p.buffered.Load() == 0 {
		p.queue.Enqueue(rec, done)
		return d
	}
	if d.Relaxed() {
		if err := p.failing(); err != nil { // what is in memory must reach the disk first
			done(err)
			return d
		}
	}
	p.mu.Lock()
	if wait == 0 {
		p.flushLocked()
		p.queue.Enqueue(rec, done)
		p.mu.Unlock()
		return d
	}
	item := paced{rec: store.Record{Body: bytes.Clone(rec.Body), Entries: rec.Entries, Source: rec.Source}, done: done}
	if d.Relaxed() {
		item.done = nil
	}
	p.buf, p.bytes = append(p.buf, item), p.bytes+len(rec.Body)
	p.buffered.Store(int64(len(p.buf)))
	p.alarmLocked(wait)
	if p.bytes >= pacerBytes || len(p.buf) >= pacerRecords {
		p.flushLocked()
	}
	p.mu.Unlock()
	if d.Relaxed() {
		p.relaxed.Add(1)
		done(nil)
	}
	return d
}

// alarmLocked sees to it that everything is handed over within wait.
func (p *pacer) alarmLocked(wait time.Duration) {
	due := time.Now().Add(wait)
	if !p.due.IsZero() && !due.Before(p.due) {
		return
	}
	p.due = due
	if p.timer != nil {
		p.timer.Stop()
	}
	p.timer = time.AfterFunc(wait, p.flush)
}

func (p *pacer) flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flushLocked()
}

// flushLocked hands over what waits, in order.
func (p *pacer) flushLocked() {
	for _, item := range p.buf {
		p.hand(item)
	}
	clear(p.buf)
	p.buf, p.bytes, p.due = p.buf[:0], 0, time.Time{}
	p.buffered.Store(0)
}

func (p *pacer) hand(item paced) {
	if item.done != nil {
		p.queue.Enqueue(item.rec, item.done)
		return
	}
	p.failMu.Lock()
	p.flight++
	p.failMu.Unlock()
	p.queue.Enqueue(item.rec, func(err error) { p.reached(item, err) })
}

// reached is the outcome of a record that was acknowledged already.
func (p *pacer) reached(item paced, err error) {
	p.failMu.Lock()
	defer p.failMu.Unlock()
	p.flight--
	select {
	case p.landed <- struct{}{}:
	default:
	}
	switch {
	case err == nil:
		if p.flight == 0 && len(p.stuck) == 0 {
			p.lastErr = nil
		}
	case errors.Is(err, store.ErrClosed), errors.Is(err, store.ErrTooLarge):
		p.lost++
		p.logger.Error("message acknowledged from memory could not be stored and is lost", "err", err)
	default:
		if p.lastErr == nil {
			p.logger.Error("messages acknowledged from memory are not on disk yet, tried again; no more are taken so", "err", err)
		}
		p.lastErr = fmt.Errorf("messages that were acknowledged from memory wait for the disk: %w", err)
		if p.stuck = append(p.stuck, item); len(p.stuck) == 1 {
			time.AfterFunc(pacerRetry, p.again)
		}
	}
}

// again tries what the disk did not take.
func (p *pacer) again() {
	p.failMu.Lock()
	list := p.stuck
	p.stuck = nil
	p.failMu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, item := range list {
		p.hand(item)
	}
}

// failing is why nothing more is acknowledged from memory; nil = it is.
func (p *pacer) failing() error {
	p.failMu.Lock()
	defer p.failMu.Unlock()
	return p.lastErr
}

// end hands over everything and waits until it is on disk, for as long as the end of an agent may take. What comes later goes to the
// queue as it is.
func (p *pacer) end() {
	p.flush()
	patience := time.NewTimer(pacerEnd)
	defer patience.Stop()
	for {
		p.failMu.Lock()
		open := p.flight + len(p.stuck)
		p.failMu.Unlock()
		if open == 0 {
			return
		}
		select {
		case <-p.landed:
		case <-patience.C:
			p.logger.Error("messages acknowledged from memory did not reach the disk before the end", "messages", open)
			return
		}
	}
}

// Run ends with ctx, after what was acknowledged from memory has reached the disk. The store must run longer.
func (p *pacer) Run(ctx context.Context) error {
	<-ctx.Done()
	p.end()
	return nil
}
