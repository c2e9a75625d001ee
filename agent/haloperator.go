package agent

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// halHandler is what the operator's socket answers about pins: the API of modules for an operator who is granted everything, the
// record, the leases, and the outside world of a simulated board.
func (a *Agent) halHandler() http.Handler {
	if a.hal == nil {
		return nil
	}
	mux := http.NewServeMux()
	pins := a.workload.Operator()
	mux.Handle("/v1/hal", pins)
	mux.Handle("/v1/hal/", pins)
	mux.HandleFunc("GET /hal/log", func(w http.ResponseWriter, _ *http.Request) { answerHal(w, a.hal.Log()) })
	mux.HandleFunc("GET /hal/leases", func(w http.ResponseWriter, _ *http.Request) { answerHal(w, a.hal.Leases()) })
	mux.HandleFunc("POST /hal/sim/{name}", a.simulate)
	return mux
}

func answerHal(w http.ResponseWriter, doc any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(doc) // the asker may be gone
}

func refuseHal(w http.ResponseWriter, code hal.Code, detail string) {
	w.WriteHeader(code.Status())
	answerHal(w, map[string]any{"error": map[string]any{"code": code, "detail": detail}})
}

// simulate is the world around a simulated board: {"value":1} drives an input, {"nack":3}, {"stuck":"2s"}, {"gone":true} break a resource
// and {} mends it.
func (a *Agent) simulate(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Value *float64     `json:"value"`
		Nack  int          `json:"nack"`
		Stuck hal.Duration `json:"stuck"`
		Gone  bool         `json:"gone"`
	}
	if a.sim == nil {
		refuseHal(w, hal.Unsupported, `the board is real; a simulated one is backend = "sim"`)
		return
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&in); err != nil {
		refuseHal(w, hal.Invalid, err.Error())
		return
	}
	if in.Value != nil {
		a.sim.Set(r.PathValue("name"), *in.Value)
	} else {
		a.sim.Fail(r.PathValue("name"), hal.Fault{Nack: in.Nack, Stuck: time.Duration(in.Stuck), Gone: in.Gone})
	}
	w.WriteHeader(http.StatusNoContent)
}
