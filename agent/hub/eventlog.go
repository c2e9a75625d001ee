package hub

import (
	"context"
	"log/slog"

	"github.com/sandpiper-edge/sandpiper/agent/hub/state"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// eventLog writes the hub's own events: what happened to identities, twins and connections.
type eventLog struct {
	log    *state.Log
	logger *slog.Logger
}

// operation writes an event that says what happened, durable on return.
func (l *eventLog) operation(ctx context.Context, kind state.EventKind, id iothub.ID, generation, operation string, body object) error {
	stored := make(chan error, 1)
	if err := l.queue(ctx, kind, id, generation, operation, body, func(err error) { stored <- err }); err != nil {
		return err
	}
	return <-stored
}

func (l *eventLog) twinChanged(ctx context.Context, id iothub.ID, generation string, change object) error {
	return l.operation(ctx, state.EventTwin, id, generation, "updateTwin", change)
}

// note writes an event that nobody waits for. One that cannot be stored is logged.
func (l *eventLog) note(ctx context.Context, kind state.EventKind, id iothub.ID, generation, operation string, body object) {
	failed := func(err error) {
		if err != nil {
			l.logger.Warn("event not stored", slog.String("identity", id.String()), slog.String("event", operation), slog.Any("err", err))
		}
	}
	if err := l.queue(ctx, kind, id, generation, operation, body, failed); err != nil {
		failed(err)
	}
}

func (l *eventLog) queue(
	ctx context.Context, kind state.EventKind, id iothub.ID, generation, operation string, body object, done func(error),
) error {
	text, err := body.MarshalJSON()
	if err != nil {
		return err
	}
	bag := iothub.Bag{{Key: "opType", Value: operation}}
	return l.log.Appender().Append(ctx, state.Event{
		Device: id.Device, Module: id.Module, Kind: kind,
		Properties: bag.String(), Generation: generation, Auth: authHub, Body: text,
	}, done)
}
