package hub

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Event is one line of the hub's event stream. Shard and Offset together are unique and never given twice.
type Event struct {
	Shard      int               `json:"shard"`
	Offset     uint64            `json:"offset"`
	Enqueued   time.Time         `json:"enqueuedTime"`
	Device     string            `json:"deviceId"`
	Module     string            `json:"moduleId,omitempty"`
	Kind       string            `json:"kind"` // telemetry, will, twinChange, lifeCycle, connectionState
	System     map[string]string `json:"systemProperties,omitempty"`
	Properties map[string]string `json:"properties,omitempty"`
	Body       json.RawMessage   `json:"body,omitempty"`       // when it is JSON
	BodyBase64 []byte            `json:"bodyBase64,omitempty"` // when it is not
}

// EventQuery says which events to read. The zero value is all telemetry there is.
type EventQuery struct {
	Device string    // empty: any
	Module string    // empty: any; needs no Device
	Since  time.Time // zero: the oldest there is
	From   uint64    // first offset, of each shard; 0: by Since
	Follow bool      // go on with new events
	All    bool      // also what the hub itself has to tell: twin changes, life cycle, connections

	Next map[int]uint64 // by shard: the first offset, instead of From and Since
}

func (q EventQuery) values() url.Values {
	v := url.Values{}
	if q.Device != "" {
		v.Set("device", q.Device)
	}
	if q.Module != "" {
		v.Set("module", q.Module)
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	if q.From > 0 {
		v.Set("from", strconv.FormatUint(q.From, 10))
	}
	for shard, offset := range q.Next {
		v.Add("next", fmt.Sprintf("%d:%d", shard, offset))
	}
	if q.Follow {
		v.Set("follow", "true")
	}
	if q.All {
		v.Set("kind", "all")
	}
	return v
}

// Events calls fn for each event until there are no more, ctx ends, or fn fails. The events of one device come in order.
func (o *Owner) Events(ctx context.Context, q EventQuery, fn func(Event) error) error {
	resp, err := o.open(ctx, http.MethodGet, "/events", q.values(), nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	d := json.NewDecoder(bufio.NewReader(resp.Body))
	for {
		var e Event
		if err := d.Decode(&e); err != nil {
			if errors.Is(err, io.EOF) && !q.Follow || ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, io.EOF) { // a stream that is followed has no end
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read events: %w", err)
		}
		if err := fn(e); err != nil {
			return err
		}
	}
}
