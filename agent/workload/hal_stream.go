package workload

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// halBeat is how long a stream of events is silent at most: a module that hears nothing for longer has lost the agent.
const halBeat = 10 * time.Second

// eventsHal streams the edges of a line, or the frames of a CAN interface: one document each, and {"beat":true} in between.
func (k *socket) eventsHal(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	from := uint64(0)
	if text := r.URL.Query().Get("from"); text != "" {
		var err error
		if from, err = strconv.ParseUint(text, 10, 64); err != nil {
			failHal(w, hal.Errorf(hal.Invalid, "from: %.32q is no sequence number", text))
			return
		}
	}
	watcher, err := k.cfg.Hal.Watch(r.Context(), k.caller.ID.Module, name, from)
	if err != nil {
		failHal(w, err)
		return
	}
	kind := "events of " + name
	ctx, s, opened := k.open(w, r, kind)
	if !opened {
		return
	}
	defer k.close(s, kind)
	var events [64]hal.Event
	var doc []byte
	for ctx.Err() == nil {
		wait, cancel := context.WithTimeout(ctx, halBeat)
		n, err := watcher.Next(wait, events[:])
		beat := wait.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case n == 0 && beat:
			err = s.write([]byte(`{"beat":true}`))
		case errors.Is(err, context.Canceled): // the agent ends, and its successor goes on
			return
		case err != nil && ctx.Err() == nil:
			_ = s.write(appendError(nil, err)) // the last document says why
			return
		case s.feed.cbor:
			for i := range events[:n] {
				if err = s.write(appendEvent(nil, &events[i])); err != nil {
					return
				}
			}
			continue
		default:
			doc = doc[:0] // many lines in one write: a module that is fast gets all of a burst at once
			for i := range events[:n] {
				if i > 0 {
					doc = append(doc, '\n')
				}
				doc = appendEvent(doc, &events[i])
			}
			err = s.write(doc)
		}
		if err != nil {
			return
		}
	}
}

// appendEvent writes an event as JSON.
func appendEvent(b []byte, e *hal.Event) []byte {
	b = append(b, `{"seq":`...)
	b = strconv.AppendUint(b, e.Seq, 10)
	b = append(b, `,"lost":`...)
	b = strconv.AppendUint(b, e.Lost, 10)
	if e.Edge != "" {
		b = append(b, `,"merged":`...)
		b = strconv.AppendUint(b, e.Merged, 10)
		b = append(b, `,"edge":"`...)
		b = append(b, e.Edge...)
	} else {
		b = append(b, `,"id":`...)
		b = strconv.AppendUint(b, uint64(e.ID), 10)
		b = append(b, `,"data":"`...)
		b = hex.AppendEncode(b, e.Data)
	}
	b = append(b, `","mono":`...)
	b = strconv.AppendInt(b, e.Mono, 10)
	b = append(b, `,"time":"`...)
	b = e.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	return append(b, `"}`...)
}

func appendError(b []byte, err error) []byte {
	r := refusalOf(err)
	b = append(b, `{"error":{"code":"`...)
	b = append(b, r.Code...)
	b = append(b, `","name":"`...)
	b = append(b, r.Name...) // names and codes need no escape
	return append(b, `"}}`...)
}

// halStep is one operation of a batch: value writes, w or r transfers, a name alone reads.
type halStep struct {
	halOp
	Name  string       `json:"name"`
	Value *float64     `json:"value"`
	For   hal.Duration `json:"for"`
	Fence uint64       `json:"fence"`
}

func (o halStep) step() hal.Step {
	one := hal.Step{Name: o.Name, Value: o.Value, For: time.Duration(o.For), Fence: o.Fence}
	if o.Value == nil && (o.W != nil || o.R != 0 || o.Fn != "" || o.Data != nil) {
		op := o.op()
		one.Op = &op
	}
	return one
}

// halOutcome is what one operation of a batch gave.
type halOutcome struct {
	Value   *float64    `json:"value,omitempty"`
	Unit    string      `json:"unit,omitempty"`
	Mono    int64       `json:"mono,omitempty"`
	Quality hal.Quality `json:"quality,omitempty"`
	Fence   uint64      `json:"fence,omitempty"`
	R       hexBytes    `json:"r,omitempty"`
}

func (k *socket) batchHal(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Ops      []halStep    `json:"ops"`
		Deadline hal.Duration `json:"deadline"`
	}
	k.halDocument(w, r, &req, func() {
		steps := make([]hal.Step, len(req.Ops))
		for i, o := range req.Ops {
			steps[i] = o.step()
		}
		done, err := k.cfg.Hal.Batch(r.Context(), k.caller.ID.Module, steps, time.Duration(req.Deadline))
		if err != nil {
			failHal(w, err)
			return
		}
		list := make([]halOutcome, len(done))
		for i, d := range done {
			list[i] = halOutcome{Fence: d.Fence, R: d.Data}
			if steps[i].Value == nil && steps[i].Op == nil {
				v := d.Value
				list[i].Value, list[i].Unit, list[i].Mono, list[i].Quality = &v.Num, v.Unit, v.Mono, v.Quality
			}
		}
		k.answerHal(w, r, map[string]any{"ops": list})
	})
}
