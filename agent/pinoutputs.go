package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
	"github.com/sandpiper-edge/sandpiper/hal"
)

// pinAck is what is reported of an output that desired properties drive.
type pinAck struct {
	Value   float64   `json:"value"` // desired; of one that was made safe what it has now
	Time    time.Time `json:"time"`
	Status  int       `json:"status"` // as of the module API; 200 = driven
	Reason  string    `json:"reason,omitempty"`
	Version int64     `json:"version"` // of the desired properties
}

// pinDriver makes a module's outputs equal desired.outputs and acknowledges each in reported.outputs, what becomes of it later too.
type pinDriver struct {
	module  string
	hal     *hal.Server
	desired func() twin.Snapshot
	report  func(ctx context.Context, patch json.RawMessage) error
	log     *slog.Logger

	done   map[string]pinDone
	unsaid map[string]pinAck // what no twin has taken yet
	said   map[string]pinAck // the newest that one has
}

// pinDone is a value that was driven, and how often the output had been made safe in the module's place before.
type pinDone struct {
	value float64
	safe  uint64
}

func (m *pinModule) drive(ctx context.Context) {
	d := &pinDriver{module: m.name, hal: m.a.hal, log: m.a.log, desired: func() twin.Snapshot { return m.a.twins.Snapshot(m.id()) },
		report: func(ctx context.Context, patch json.RawMessage) error {
			_, err := m.a.twins.PatchReported(ctx, m.id(), patch)
			return err
		}}
	d.run(ctx, m.changed)
}

// run drives now, whenever desired properties changed, and as long as there is something to watch over or to try again. What was stored
// before a restart is applied again, with or without the hub.
func (d *pinDriver) run(ctx context.Context, changed <-chan struct{}) {
	d.done, d.unsaid, d.said = map[string]pinDone{}, map[string]pinAck{}, map[string]pinAck{}
	for {
		wait, stop := ctx, context.CancelFunc(func() {})
		if all := d.apply(ctx); !all || len(d.done) > 0 || len(d.unsaid) > 0 {
			wait, stop = context.WithTimeout(ctx, pinRetryTime)
		}
		select {
		case <-changed:
		case <-wait.Done():
		}
		stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// apply drives what is not as it is desired, and tells of what was made safe. False: something is to be tried again.
func (d *pinDriver) apply(ctx context.Context) bool {
	now := d.desired()
	var doc struct {
		Outputs map[string]*float64 `json:"outputs"`
	}
	if !now.Known {
		return true
	}
	if err := json.Unmarshal(now.Desired, &doc); err != nil {
		d.log.Warn("desired outputs not understood", "module", d.module, "err", err)
		return true
	}
	maps.DeleteFunc(d.done, func(name string, _ pinDone) bool { return doc.Outputs[name] == nil }) // which leaves it as it is
	made, all := d.madeSafe(), true
	for _, name := range slices.Sorted(maps.Keys(doc.Outputs)) {
		want, was := doc.Outputs[name], made[name]
		if want == nil {
			continue
		}
		if have, driven := d.done[name]; driven && have.value == *want {
			switch {
			case was.Safe <= have.safe:
				continue
			case !strings.HasPrefix(was.Last, hal.Unplugged) && !strings.HasPrefix(was.Last, hal.AgentMissing):
				d.done[name] = pinDone{*want, was.Safe}
				d.acknowledge(name, d.fallen(ctx, name, was.Last, now.DesiredVersion))
				continue
			}
		}
		_, err := d.hal.Write(ctx, d.module, name, *want, 0, 0)
		ack := pinAck{Value: *want, Time: pinTime(), Status: 200, Version: now.DesiredVersion}
		if err != nil {
			ack.Status, ack.Reason = hal.CodeOf(err).Status(), err.Error()
			delete(d.done, name)
			if c := hal.CodeOf(err); c != hal.Denied && c != hal.Unknown && c != hal.OutOfRange {
				all = false
			}
		} else {
			d.done[name] = pinDone{*want, was.Safe}
		}
		d.acknowledge(name, ack)
	}
	d.say(ctx)
	return all
}

// madeSafe is what of the module's outputs was made safe in its place, by name.
func (d *pinDriver) madeSafe() map[string]hal.Count {
	made := map[string]hal.Count{}
	for _, c := range d.hal.Counts() {
		if c.Who == d.module {
			made[c.Name] = c
		}
	}
	return made
}

// fallen acknowledges an output that was made safe by a rule of its owner, and stays so until something else is desired.
func (d *pinDriver) fallen(ctx context.Context, name, why string, version int64) pinAck {
	ack := pinAck{Time: pinTime(), Status: hal.LeaseLost.Status(), Reason: why, Version: version}
	if v, err := d.hal.Read(ctx, hal.Operator, name, hal.ClassRead, 0); err == nil { // its module may be granted to write only
		ack.Value = v.Num
	}
	return ack
}

// acknowledge is to be said, unless the twin has the same already: what fails again every few seconds wears out no disk.
func (d *pinDriver) acknowledge(name string, ack pinAck) {
	same := ack
	same.Time = d.said[name].Time
	if same == d.said[name] {
		delete(d.unsaid, name)
		return
	}
	d.unsaid[name] = ack
}

func (d *pinDriver) say(ctx context.Context) {
	if len(d.unsaid) == 0 || ctx.Err() != nil {
		return
	}
	patch, err := json.Marshal(map[string]any{"outputs": d.unsaid})
	if err == nil {
		err = d.report(ctx, patch)
	}
	if err != nil {
		d.log.Warn("outputs not reported, tried again", "module", d.module, "err", err)
		return
	}
	maps.Copy(d.said, d.unsaid)
	clear(d.unsaid)
}

func pinTime() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

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
