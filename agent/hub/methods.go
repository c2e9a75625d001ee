package hub

import (
	"context"
	"errors"
	"fmt"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
)

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
	c.mu.Lock()
	qos, _ := c.qos(iothub.FeatureMethods)
	conn := c.conn
	c.mu.Unlock()
	result, err := h.calls.Ask(ctx, conn, c.id, req, qos)
	switch {
	case errors.Is(err, mqtt.ErrNotSent):
		err = h.offline(c.id)
	case errors.Is(err, mqtt.ErrGone):
		err = iothub.NewError(iothub.CodeClosedRemotely, fmt.Sprintf("%s went away before it answered", c.id), h.cfg.Now())
	case errors.Is(err, mqtt.ErrNoAnswer):
		err = iothub.NewError(iothub.CodeGatewayTimeout, fmt.Sprintf("%s did not answer in time", c.id), h.cfg.Now())
	}
	return result, err
}

// answered takes a client's answer.
func (h *Hub) answered(from iothub.ID, pub iothub.Publish, payload []byte) {
	if err := h.calls.Answered(from, pub, payload); err != nil {
		h.cfg.Logger.Debug("answer to a direct method dropped", "identity", from.String(), "err", err)
	}
}
