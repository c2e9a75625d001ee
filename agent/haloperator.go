package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
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
	mux.HandleFunc("GET /hal/record", a.recordHal)
	mux.HandleFunc("POST /hal/sim/{name}", a.simulate)
	return mux
}

func answerHal(w http.ResponseWriter, doc any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(doc) // the asker may be gone
}

func refuseHal(w http.ResponseWriter, code hal.Code, name, detail string) {
	w.WriteHeader(code.Status())
	answerHal(w, map[string]any{"error": map[string]any{"code": code, "name": name, "detail": detail}})
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
		refuseHal(w, hal.Unsupported, r.PathValue("name"), `the board is real; a simulated one is backend = "sim"`)
		return
	}
	name := r.PathValue("name")
	list := a.hal.List("")
	nth := slices.IndexFunc(list, func(s hal.Status) bool { return s.Name == name })
	if nth < 0 {
		refuseHal(w, hal.Unknown, name, "the device's configuration has no such name; `sandpiper hal list` has them all")
		return
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&in); err != nil {
		refuseHal(w, hal.Invalid, name, err.Error())
		return
	}
	switch {
	case in.Value != nil && list[nth].Write:
		refuseHal(w, hal.Denied, name, "it is an output or a bus, which nobody drives from outside; `sandpiper hal write` drives an output")
		return
	case in.Value != nil:
		a.sim.Set(name, *in.Value)
	default:
		a.sim.Fail(name, hal.Fault{Nack: in.Nack, Stuck: time.Duration(in.Stuck), Gone: in.Gone})
	}
	w.WriteHeader(http.StatusNoContent)
}

// maxRecord is how long one recording may last.
const maxRecord = 24 * time.Hour

// recordHal streams a recording of ?name=…&name=…&for=time as it grows: the file that [hal.ReadRecording] reads.
func (a *Agent) recordHal(w http.ResponseWriter, r *http.Request) {
	var long hal.Duration
	names := r.URL.Query()["name"]
	if err := long.UnmarshalText([]byte(r.URL.Query().Get("for"))); err != nil || long <= 0 || time.Duration(long) > maxRecord || len(names) == 0 || len(names) > hal.MaxGrants {
		refuseHal(w, hal.Invalid, "record", fmt.Sprintf("want the names of 1 to %d resources, and a time up to %v", hal.MaxGrants, maxRecord))
		return
	}
	ctx, stop := context.WithTimeout(r.Context(), time.Duration(long))
	defer stop()
	began := time.Now()
	out, door := json.NewEncoder(w), http.NewResponseController(w)
	begun := false
	err := a.hal.Record(ctx, began, names, func(list []hal.Record) error {
		if !begun {
			begun = true
			if err := out.Encode(hal.Recording{Version: 1, Time: began.UTC(), Names: names}); err != nil {
				return err
			}
		}
		for i := range list {
			if err := out.Encode(&list[i]); err != nil {
				return err
			}
		}
		return door.Flush()
	})
	if fault, ok := errors.AsType[*hal.Error](err); ok && !begun {
		w.Header().Set("Content-Type", "application/json")
		refuseHal(w, fault.Code, fault.Name, fault.Detail)
	}
}
