package broker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// handler answers direct methods inside this process.
type handler struct {
	fn  func(ctx context.Context, req iothub.MethodRequest) iothub.MethodResult
	tag *int // identity of one registration
}

// call is a direct method that a client was asked to answer.
type call struct {
	target iothub.ID
	answer chan iothub.MethodResult // capacity 1: the first answer counts
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
			if !errors.Is(err, errNotSent) {
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

// errNotSent says that the client's connection takes nothing any more: its next one may.
var errNotSent = errors.New("method call not sent")

// ask sends the call to a connected client and waits for its answer.
func (b *Broker) ask(ctx context.Context, c *client, req iothub.MethodRequest) (iothub.MethodResult, error) {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails
	rid := hex.EncodeToString(raw[:])
	this := &call{target: c.id, answer: make(chan iothub.MethodResult, 1)}
	b.mu.Lock()
	b.calls[rid] = this
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.calls, rid)
		b.mu.Unlock()
	}()
	payload := req.Payload
	if len(payload) == 0 { // Node answers 400 by itself to an empty body
		payload = json.RawMessage("null")
	}
	qos, _ := c.session.qos(iothub.FeatureMethods)
	conn := c.connection()
	d := iothub.Delivery{Kind: iothub.MethodCall, Name: req.Name, RequestID: rid}
	if err := conn.Send(d.Topic(), payload, qos, nil); err != nil {
		return iothub.MethodResult{}, fmt.Errorf("%w: %w", errNotSent, err)
	}
	limit, cancel := context.WithTimeout(ctx, req.ResponseTimeout)
	defer cancel()
	select {
	case result := <-this.answer:
		return result, nil
	case <-conn.Done():
	case <-limit.Done():
	}
	select { // several things may have happened at once: an answer counts most
	case result := <-this.answer:
		return result, nil
	default:
	}
	switch {
	case ctx.Err() != nil:
		return iothub.MethodResult{}, ctx.Err()
	case limit.Err() != nil:
		return iothub.MethodResult{}, b.unanswered(rid)
	}
	return iothub.MethodResult{}, iothub.NewError(iothub.CodeClosedRemotely, fmt.Sprintf("Client %s disconnected before it answered", c.id), b.cfg.Now())
}

// answered takes a client's answer. Only the identity that was asked can give it.
func (b *Broker) answered(from iothub.ID, pub iothub.Publish, payload []byte) {
	b.mu.Lock()
	this := b.calls[strings.ToLower(pub.RequestID)]
	b.mu.Unlock()
	if this == nil || this.target != from {
		b.cfg.Logger.Debug("answer to no call", "identity", from.String())
		return
	}
	if len(payload) == 0 {
		payload = []byte("null")
	}
	if len(payload) > iothub.MaxMethodPayload || !json.Valid(payload) {
		b.cfg.Logger.Warn("answer to a method is no JSON or too large, dropped", "identity", from.String(), "bytes", len(payload))
		return
	}
	select {
	case this.answer <- iothub.MethodResult{Status: pub.Status, Payload: payload}:
	default: // answered before
	}
}
