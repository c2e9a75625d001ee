package workload

import (
	"net/http"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/hal"
)

// Operator is the API of pins, buses and sensors for the device's own operator, who is granted all of them; nil without a [hal] section.
func (s *Server) Operator() http.Handler {
	if s.cfg.Hal == nil {
		return nil
	}
	k := &socket{Server: s, caller: Caller{ID: iothub.ID{Module: hal.Operator}}, bodies: make(chan struct{}, maxBodies)}
	mux := http.NewServeMux()
	k.halRoutes(mux)
	return mux
}
