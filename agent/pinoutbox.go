package agent

import (
	"context"
	"log/slog"
)

const (
	maxPinQueue   = 4096 // samples that wait for the store
	maxPinMessage = 1000 // samples in one message: with long names still below the 256 KiB that the hub takes
)

// pinOutbox keeps samples that the store does not take at the moment, the newest of them; the first that is left says how many are
// gone before it. They are in memory: an agent that ends loses what no store took.
type pinOutbox struct {
	module string
	send   func(context.Context, []pinSample) error
	log    *slog.Logger
	list   []pinSample
	ill    bool
}

func (m *pinModule) outbox(p pinPublish) *pinOutbox {
	send := func(ctx context.Context, list []pinSample) error { return m.send(ctx, p.Output, p.Encoding, list) }
	return &pinOutbox{module: m.name, send: send, log: m.a.log}
}

// flush stores what waits, in the order in which it came.
func (o *pinOutbox) flush(ctx context.Context) {
	for len(o.list) > 0 {
		n := min(len(o.list), maxPinMessage)
		if err := o.send(ctx, o.list[:n]); err != nil {
			o.keep(ctx, err)
			return
		}
		o.list = o.list[:copy(o.list, o.list[n:])]
	}
	o.ill = false
}

// keep bounds what waits.
func (o *pinOutbox) keep(ctx context.Context, err error) {
	if !o.ill && ctx.Err() == nil {
		o.log.Warn("readings not stored, they are kept and tried again", "module", o.module, "err", err)
	}
	o.ill = true
	gone := len(o.list) - maxPinQueue
	if gone <= 0 {
		return
	}
	lost := uint64(gone)
	for i := range o.list[:gone] {
		lost += o.list[i].Lost
	}
	o.list = o.list[:copy(o.list, o.list[gone:])]
	o.list[0].Lost += lost
}
