package agent

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/hal"
)

// pinAck is what is reported of an output that desired properties drive.
type pinAck struct {
	Value   float64   `json:"value"`
	Time    time.Time `json:"time"`
	Status  int       `json:"status"` // as of the module API; 200 = driven
	Reason  string    `json:"reason,omitempty"`
	Version int64     `json:"version"` // of the desired properties
}

// drive makes the outputs equal desired.outputs, now and whenever they change, and acknowledges each in reported.outputs. What was
// stored before a restart is applied again, with or without the hub.
func (m *pinModule) drive(ctx context.Context) {
	done := map[string]float64{}
	for {
		wait := time.Duration(0) // for ever
		if !m.apply(ctx, done) {
			wait = pinRetryTime
		}
		var again <-chan time.Time
		var timer *time.Timer
		if wait > 0 {
			timer = time.NewTimer(wait)
			again = timer.C
		}
		select {
		case <-m.changed:
		case <-again:
		case <-ctx.Done():
		}
		if timer != nil {
			timer.Stop()
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// apply drives what differs from done. False: something is to be tried again.
func (m *pinModule) apply(ctx context.Context, done map[string]float64) bool {
	now := m.a.twins.Snapshot(m.id())
	var doc struct {
		Outputs map[string]*float64 `json:"outputs"`
	}
	if !now.Known {
		return true
	}
	if err := json.Unmarshal(now.Desired, &doc); err != nil {
		m.a.log.Warn("desired outputs not understood", "module", m.name, "err", err)
		return true
	}
	acks, all := map[string]pinAck{}, true
	for _, name := range slices.Sorted(maps.Keys(doc.Outputs)) {
		want := doc.Outputs[name]
		if have, driven := done[name]; want == nil || driven && have == *want {
			continue
		}
		_, err := m.a.hal.Write(ctx, m.name, name, *want, 0, 0)
		ack := pinAck{Value: *want, Time: time.Now().UTC().Truncate(time.Millisecond), Status: 200, Version: now.DesiredVersion}
		if err != nil {
			ack.Status, ack.Reason = hal.CodeOf(err).Status(), err.Error()
			if c := hal.CodeOf(err); c != hal.Denied && c != hal.Unknown && c != hal.OutOfRange {
				all = false
			}
		} else {
			done[name] = *want
		}
		acks[name] = ack
	}
	if len(acks) == 0 || ctx.Err() != nil {
		return all
	}
	patch, err := json.Marshal(map[string]any{"outputs": acks})
	if err == nil {
		_, err = m.a.twins.PatchReported(ctx, m.id(), patch)
	}
	if err != nil {
		m.a.log.Warn("outputs not reported", "module", m.name, "err", err)
	}
	return all
}

// method answers read {"name"}, write {"name","value"} and pulse {"name","value","for"}.
func (m *pinModule) method(ctx context.Context, req iothub.MethodRequest) iothub.MethodResult {
	var in struct {
		Name  string       `json:"name"`
		Value *float64     `json:"value"`
		For   hal.Duration `json:"for"`
	}
	answer := func(status int, doc any) iothub.MethodResult {
		raw, err := json.Marshal(doc)
		if err != nil {
			return iothub.MethodResult{Status: 500}
		}
		return iothub.MethodResult{Status: status, Payload: raw}
	}
	err := json.Unmarshal(req.Payload, &in)
	if err != nil {
		return answer(400, map[string]string{"message": "payload: " + err.Error()})
	}
	switch {
	case req.Name == "read":
		var v hal.Value
		if v, err = m.a.hal.Read(ctx, m.name, in.Name, hal.ClassRead, 0); err == nil {
			return answer(200, map[string]any{"value": v.Num, "unit": v.Unit, "time": v.Time.UTC(), "quality": v.Quality})
		}
	case req.Name != "write" && req.Name != "pulse":
		return answer(404, map[string]string{"message": "unknown method; known: read, write, pulse"})
	case in.Value == nil || (req.Name == "pulse") != (in.For > 0):
		return answer(400, map[string]string{"message": "want name and value, and for a pulse the time in for"})
	default:
		if _, err = m.a.hal.Write(ctx, m.name, in.Name, *in.Value, time.Duration(in.For), 0); err == nil {
			return answer(200, map[string]any{"value": *in.Value})
		}
	}
	return answer(hal.CodeOf(err).Status(), map[string]any{"code": hal.CodeOf(err), "message": err.Error()})
}
