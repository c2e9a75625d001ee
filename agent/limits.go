package agent

import (
	"context"
	"math"
	"time"
)

// boundsPace is how often the store's bounds of the configuration are looked at.
const boundsPace = time.Second

// keepBounds keeps the bounds of the configuration that the store does not know itself, until ctx ends.
func (a *Agent) keepBounds(ctx context.Context) error {
	if a.cfg.Store.MaxMessages == 0 && a.cfg.Store.DailyWrites == 0 {
		return nil
	}
	pace := time.NewTicker(boundsPace)
	defer pace.Stop()
	for {
		a.lookAtBounds()
		select {
		case <-pace.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (a *Agent) lookAtBounds() {
	if most := a.cfg.Store.MaxMessages; most > 0 {
		total := int64(0)
		for _, q := range a.store.Queue().Stats() {
			total += q.Messages
		}
		was := a.pacer.refusal.Load() != nil
		if full := total >= most; full != was {
			if full {
				why := errMaxMessages
				a.pacer.refusal.Store(&why)
				a.log.Error("no more messages are taken", "messages", total, "err", why)
			} else {
				a.pacer.refusal.Store(nil)
				a.log.Info("messages are taken again", "messages", total)
			}
		}
	}
	if budget := int64(a.cfg.Store.DailyWrites); budget > 0 {
		was, now := a.pacer.limit.Load(), limitOf(a.cfg.Store.AtDailyLimit, a.wear.written(), budget)
		a.pacer.limit.Store(now)
		switch {
		case was == nil && now != nil:
			a.log.Warn("the day's budget of writes is used up", "budget", budget, "then", string(now.at))
		case was != nil && now == nil:
			a.log.Info("the day's budget of writes has room again", "budget", budget)
		}
	}
}

// limitOf is what happens when so much was written of a budget; nil = nothing yet.
func limitOf(at AtLimit, written, budget int64) *limit {
	if written < budget {
		return nil
	}
	beyond := float64(written-budget) / float64(budget)
	linger := time.Duration(float64(limitLinger) * math.Exp2(min(math.Floor(beyond*10), 10)))
	return &limit{at: at, linger: min(linger, limitLingerMost)}
}
