package agent

import (
	"github.com/sandpiper-edge/sandpiper/agent/control"
)

// transfer is the image that arrives now, or nil.
func (a *Agent) transfer() *control.Transfer {
	p, ok := a.images.Fetching()
	if !ok {
		return nil
	}
	return &control.Transfer{
		Reference: p.Reference, Image: p.Image, Phase: string(p.Phase), Bytes: p.Done, Total: p.Total, Received: p.Received,
		Rate: p.Rate, LeftSeconds: int64(p.Left.Seconds()),
	}
}
