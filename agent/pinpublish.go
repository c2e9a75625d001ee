package agent

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/hal"
)

// pinPublish is one entry of publish: what is read at a period, or what is watched, and the output it goes to.
type pinPublish struct {
	Read     []string     `json:"read"`
	Every    hal.Duration `json:"every"`    // period of Read; at least 10ms
	Deadband float64      `json:"deadband"` // a value within it of the one that was published last is left out
	AtLeast  hal.Duration `json:"at_least"` // but not for longer than this; 0 = for ever
	Batch    int          `json:"batch"`    // periods in one message; default 1

	Watch       string       `json:"watch"`
	MinInterval hal.Duration `json:"min_interval"` // of Watch: edges closer together go as one, the newest

	Output   string `json:"output"`
	Encoding string `json:"encoding"` // json (default), senml+json, senml+cbor: the body, and its content type
}

const (
	leastEvery   = 10 * time.Millisecond
	maxPinBatch  = 1000
	pinRetryTime = 5 * time.Second // until what is gone or busy is tried again
)

// parsePublish reads the list. An error names the entry.
func parsePublish(raw json.RawMessage, grants []hal.Grant) ([]pinPublish, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var list []pinPublish
	if err := dec.Decode(&list); err != nil {
		return nil, err
	}
	for i, p := range list {
		bad := func(format string, args ...any) ([]pinPublish, error) {
			return nil, fmt.Errorf("entry %d: %s", i, fmt.Sprintf(format, args...))
		}
		switch {
		case (len(p.Read) > 0) == (p.Watch != ""):
			return bad("want one of read and watch")
		case p.Output == "":
			return bad("output is missing")
		case len(p.Read) > 0 && time.Duration(p.Every) < leastEvery:
			return bad("every is %v; want at least %v", p.Every, leastEvery)
		case !slices.Contains(pinEncodings, cmp.Or(p.Encoding, pinJSON)):
			return bad("encoding %.32q; want %s", p.Encoding, strings.Join(pinEncodings, ", "))
		case p.Batch < 0 || p.Batch > maxPinBatch || p.Deadband < 0 || len(p.Read) > hal.MaxGrants:
			return bad("batch is at most %d, deadband not below 0", maxPinBatch)
		}
		for _, name := range append(slices.Clone(p.Read), p.Watch) {
			granted := name == ""
			for k := range grants {
				granted = granted || grants[k].Name == name && grants[k].Read
			}
			if !granted {
				return bad("%.40q is not in the list hal with the right to read", name)
			}
		}
		list[i].Batch = cmp.Or(p.Batch, 1)
		list[i].Encoding = cmp.Or(p.Encoding, pinJSON)
	}
	return list, nil
}

func (m *pinModule) id() iothub.ID { return iothub.ID{Device: m.a.dev.id, Module: m.name} }

// send stores samples as one message. Its creation time is the last sample's.
func (m *pinModule) send(ctx context.Context, output, encoding string, list []pinSample) error {
	body, err := encodePins(encoding, list)
	if err != nil {
		return err
	}
	made := time.UnixMilli(int64(list[len(list)-1].T * 1000)).UTC()
	bag := iothub.Bag{
		{Key: iothub.PropContentType, Value: "application/" + encoding}, {Key: iothub.PropCreated, Value: made.Format("2006-01-02T15:04:05.000Z")},
	}
	if encoding != pinCBOR {
		bag = append(bag, iothub.Property{Key: iothub.PropContentEncoding, Value: "utf-8"})
	}
	_, err = m.a.broker.Publish(ctx, m.id(), output, bag, body)
	return err
}

// pinLast is what was published last of one name.
type pinLast struct {
	value float64
	bad   string
	at    time.Time
	known bool
}

// poll reads at a fixed pace: the phase comes from the names, so that pollers are spread, and a period that was missed is left out.
func (m *pinModule) poll(ctx context.Context, p pinPublish) {
	every := time.Duration(p.Every)
	next := firstPoll(time.Now(), every, fmt.Sprint(m.name, p.Output, p.Read))
	last := make(map[string]pinLast, len(p.Read))
	box := m.outbox(p)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for periods := 0; ; {
		if late := time.Since(next); late > 0 {
			next = next.Add((late/every + 1) * every)
		}
		timer.Reset(time.Until(next))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		for _, name := range p.Read {
			if s, news := m.sample(ctx, p, name, last); news {
				box.list = append(box.list, s)
			}
		}
		if periods++; periods >= p.Batch || len(box.list) >= maxPinQueue {
			periods = 0
			box.flush(ctx)
		}
	}
}

// firstPoll is the moment in the period after now that the names say. It is of the steady clock: a device whose clock is set back by a
// year does not poll a year later.
func firstPoll(now time.Time, every time.Duration, names string) time.Time {
	h := fnv.New64a()
	_, _ = h.Write([]byte(names)) // a hash takes everything
	phase := time.Duration(h.Sum64() % uint64(every))
	wait := now.Truncate(every).Add(phase).Sub(now.Round(0))
	if wait < 0 {
		wait += every
	}
	return now.Add(wait)
}

// sample reads one value and says whether it is to be published.
func (m *pinModule) sample(ctx context.Context, p pinPublish, name string, last map[string]pinLast) (pinSample, bool) {
	v, err := m.a.hal.Read(ctx, m.name, name, hal.ClassPoll, 0)
	if ctx.Err() != nil {
		return pinSample{}, false
	}
	was, now := last[name], pinLast{value: v.Num, at: time.Now(), known: true}
	s := pinSample{N: name, U: v.Unit, T: float64(now.at.UnixMilli()) / 1000}
	switch {
	case err != nil:
		now.bad = string(hal.CodeOf(err))
	case v.Quality == hal.Bad || v.Num-v.Num != 0: // no form of a message has what is not finite
		now.bad = "invalid"
	default:
		s.V = &v.Num
	}
	s.VS = now.bad
	stale := p.AtLeast > 0 && now.at.Sub(was.at) >= time.Duration(p.AtLeast)
	moved := now.bad == "" && math.Abs(now.value-was.value) >= p.Deadband
	if was.known && was.bad == now.bad && !stale && !moved {
		return s, false
	}
	last[name] = now
	return s, true
}

// watch publishes each edge, or with a least interval the newest of those that came in it.
func (m *pinModule) watch(ctx context.Context, p pinPublish) {
	box := m.outbox(p)
	for ctx.Err() == nil {
		w, err := m.a.hal.Watch(ctx, m.name, p.Watch, 0)
		if err == nil {
			err = forward(ctx, w, p, box)
		}
		if ctx.Err() == nil && !errors.Is(err, hal.Absent) {
			m.a.log.Warn("line not watched", "module", m.name, "name", p.Watch, "err", err)
		}
		box.flush(ctx)
		pause(ctx, pinRetryTime)
	}
}

// edges is where events come from.
type edges interface {
	Next(ctx context.Context, into []hal.Event) (int, error)
}

// forward puts what comes of a line into the box until that ends, and tries again what waits there while nothing comes.
func forward(ctx context.Context, from edges, p pinPublish, box *pinOutbox) error {
	var events [64]hal.Event
	for {
		wait, stop := ctx, context.CancelFunc(func() {})
		if len(box.list) > 0 {
			wait, stop = context.WithTimeout(ctx, pinRetryTime)
		}
		n, err := from.Next(wait, events[:])
		stop()
		switch {
		case n > 0:
		case err != nil && (ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded)):
			return err
		}
		if n > 0 && p.MinInterval > 0 {
			events[0], n = newestEdge(ctx, from, events[:n]), 1
		}
		for _, e := range events[:n] {
			box.list = append(box.list, sampleOf(p.Watch, e))
		}
		box.flush(ctx)
		if n > 0 && p.MinInterval > 0 {
			pause(ctx, time.Duration(p.MinInterval))
		}
	}
}

// newest is the last of the events that came and of those that wait behind them, with all that is missing before it.
func newestEdge(ctx context.Context, from edges, came []hal.Event) (last hal.Event) {
	now, stop := context.WithCancel(ctx)
	stop() // Next takes what there is then, and waits for nothing
	var more [64]hal.Event
	lost, merged := uint64(0), uint64(0)
	for range 32 { // as much as is kept for a reader, and more
		for _, e := range came {
			last, lost, merged = e, lost+e.Lost, merged+e.Merged
		}
		n, _ := from.Next(now, more[:]) // an end comes again when it is waited for
		if came = more[:n]; n == 0 {
			break
		}
	}
	last.Lost, last.Merged = lost, merged
	return last
}

func sampleOf(name string, e hal.Event) pinSample {
	level := 0.0
	if e.Edge == hal.Rising {
		level = 1
	}
	return pinSample{N: name, V: &level, T: float64(e.Time.UnixMilli()) / 1000, Seq: e.Seq, Lost: e.Lost, Merged: e.Merged}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
