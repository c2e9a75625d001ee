package hub

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// call is a direct method that waits for its answer.
type call struct {
	target iothub.ID
	answer chan iothub.MethodResult // capacity 1: the first answer counts
}

// call invokes a direct method: 404103 when the target does not come online within the connect time-out, 504101 when it does not
// answer within the response time-out.
func (h *Hub) call(ctx context.Context, target iothub.ID, req iothub.MethodRequest) (iothub.MethodResult, error) {
	if _, err := h.docs.identity(ctx, target); err != nil {
		return iothub.MethodResult{}, err
	}
	connect, cancel := context.WithTimeout(ctx, req.ConnectTimeout)
	defer cancel()
	for {
		h.mu.Lock()
		c, arrived := h.clients[target], h.arrived
		h.mu.Unlock()
		if c != nil {
			c.mu.Lock()
			ready := c.calls
			c.mu.Unlock()
			if ready {
				return h.ask(ctx, c, req)
			}
		}
		if req.ConnectTimeout <= 0 {
			return iothub.MethodResult{}, h.offline(target)
		}
		select {
		case <-arrived:
		case <-connect.Done():
			if ctx.Err() != nil {
				return iothub.MethodResult{}, ctx.Err()
			}
			return iothub.MethodResult{}, h.offline(target)
		}
	}
}

func (h *Hub) offline(target iothub.ID) error {
	return iothub.NewError(iothub.CodeNotOnline, fmt.Sprintf("%s is not online", target), h.cfg.Now())
}

func (h *Hub) ask(ctx context.Context, c *client, req iothub.MethodRequest) (iothub.MethodResult, error) {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails
	rid := hex.EncodeToString(raw[:])
	this := &call{target: c.id, answer: make(chan iothub.MethodResult, 1)}
	h.mu.Lock()
	h.calls[rid] = this
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.calls, rid)
		h.mu.Unlock()
	}()
	payload := req.Payload
	if len(payload) == 0 {
		payload = json.RawMessage("null")
	}
	c.mu.Lock()
	qos, _ := c.qos(iothub.FeatureMethods)
	conn := c.conn
	c.mu.Unlock()
	if err := conn.Send(iothub.Delivery{Kind: iothub.MethodCall, Name: req.Name, RequestID: rid}.Topic(), payload, qos, nil); err != nil {
		return iothub.MethodResult{}, h.offline(c.id)
	}
	wait := req.ResponseTimeout
	if wait == 0 {
		wait = iothub.DefaultResponseTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	select {
	case result := <-this.answer:
		return result, nil
	case <-conn.Done():
		return iothub.MethodResult{}, iothub.NewError(iothub.CodeClosedRemotely, fmt.Sprintf("%s went away before it answered", c.id), h.cfg.Now())
	case <-ctx.Done():
		return iothub.MethodResult{}, iothub.NewError(iothub.CodeGatewayTimeout, fmt.Sprintf("%s did not answer in %s", c.id, wait), h.cfg.Now())
	}
}

// answered takes a client's answer; only the identity that was asked can give it.
func (h *Hub) answered(from iothub.ID, pub iothub.Publish, payload []byte) {
	h.mu.Lock()
	this := h.calls[strings.ToLower(pub.RequestID)]
	h.mu.Unlock()
	if len(payload) == 0 {
		payload = []byte("null")
	}
	if this == nil || this.target != from || len(payload) > iothub.MaxMethodPayload || !json.Valid(payload) {
		h.cfg.Logger.Debug("answer of no use", "identity", from.String())
		return
	}
	select {
	case this.answer <- iothub.MethodResult{Status: pub.Status, Payload: payload}:
	default: // answered before
	}
}
