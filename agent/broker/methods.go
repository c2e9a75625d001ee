package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
)

// handler answers direct methods inside this process.
type handler struct {
	fn  func(ctx context.Context, req iothub.MethodRequest) iothub.MethodResult
	tag *int // identity of one registration
}

// HandleMethod makes fn answer the direct methods of id, before any connection of id is asked, until cancel is called. The newest
// registration wins.
func (b *Broker) HandleMethod(id iothub.ID, fn func(ctx context.Context, req iothub.MethodRequest) iothub.MethodResult) (cancel func()) {
	tag := new(int)
	b.mu.Lock()
	b.handlers[id] = handler{fn: fn, tag: tag}
	b.mu.Unlock()
	b.announce()
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.handlers[id].tag == tag {
			delete(b.handlers, id)
		}
	}
}

// announce wakes callers that wait for somebody to call.
func (b *Broker) announce() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.arrived)
	b.arrived = make(chan struct{})
}

// Call calls a direct method of an identity of this device. An *iothub.Error says that nobody answered: 404103 when the target did
// not connect and subscribe within the connect time-out, 504101 when it did not answer within the response time-out, 404104 when it
// went away before. Another error is ctx's.
func (b *Broker) Call(ctx context.Context, target iothub.ID, req iothub.MethodRequest) (iothub.MethodResult, error) {
	if req.ResponseTimeout == 0 {
		req.ResponseTimeout = iothub.DefaultResponseTimeout
	}
	connect, cancel := context.WithTimeout(ctx, req.ConnectTimeout)
	defer cancel()
	for {
		b.mu.Lock()
		h, c, arrived := b.handlers[target], b.clients[target], b.arrived
		b.mu.Unlock()
		if h.fn != nil {
			return b.handle(ctx, h, req)
		}
		if c != nil && c.takesCalls() {
			result, err := b.ask(ctx, c, req)
			if !errors.Is(err, mqtt.ErrNotSent) {
				return result, err
			}
		}
		select {
		case <-arrived:
		case <-connect.Done():
			if ctx.Err() != nil {
				return iothub.MethodResult{}, ctx.Err()
			}
			return iothub.MethodResult{}, iothub.NewError(iothub.CodeNotOnline, fmt.Sprintf("Client %s not found", target), b.cfg.Now())
		}
	}
}

// handle lets a function answer. One that outlives the time-out has not answered.
func (b *Broker) handle(ctx context.Context, h handler, req iothub.MethodRequest) (iothub.MethodResult, error) {
	limit, cancel := context.WithTimeout(ctx, req.ResponseTimeout)
	defer cancel()
	result := h.fn(limit, req)
	switch {
	case ctx.Err() != nil:
		return iothub.MethodResult{}, ctx.Err()
	case limit.Err() != nil:
		return iothub.MethodResult{}, b.unanswered(req.Name)
	}
	return result, nil
}

func (b *Broker) unanswered(what string) error {
	return iothub.NewError(iothub.CodeGatewayTimeout, "Timed out waiting for device to respond to method request "+what, b.cfg.Now())
}

func (c *client) takesCalls() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls && c.conn != nil
}

// ask sends the call to a connected client and waits for its answer.
func (b *Broker) ask(ctx context.Context, c *client, req iothub.MethodRequest) (iothub.MethodResult, error) {
	qos, _ := c.session.qos(iothub.FeatureMethods)
	result, err := b.calls.Ask(ctx, c.connection(), c.id, req, qos)
	switch {
	case errors.Is(err, mqtt.ErrNoAnswer):
		err = b.unanswered(req.Name)
	case errors.Is(err, mqtt.ErrGone):
		err = iothub.NewError(iothub.CodeClosedRemotely, fmt.Sprintf("Client %s disconnected before it answered", c.id), b.cfg.Now())
	}
	return result, err
}

// answered takes a client's answer.
func (b *Broker) answered(from iothub.ID, pub iothub.Publish, payload []byte) {
	err := b.calls.Answered(from, pub, payload)
	switch {
	case err == nil:
	case errors.Is(err, mqtt.ErrNoCall): // of which a module may send any number
		b.cfg.Logger.Debug("answer to a direct method dropped", "identity", from.String(), "err", err)
	default:
		b.cfg.Logger.Warn("answer to a direct method dropped", "identity", from.String(), "err", err)
	}
}
