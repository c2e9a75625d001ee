package workload

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
)

// Bounds of the time a script may take for one message. The default is what edgeHub gives an SDK.
const (
	ackDefault = 30 * time.Second
	ackMost    = time.Hour
)

// errNotAcked brings a message again.
var errNotAcked = errors.New("input was not acknowledged in time")

// Input is one message for an input of a module, as the stream of inputs shows it.
type Input struct {
	ID         string            `json:"id"` // to acknowledge it by
	Name       string            `json:"input"`
	From       iothub.ID         `json:"from"`           // who published it
	Accepted   time.Time         `json:"time"`           // when the agent took it
	Properties map[string]string `json:"properties"`     // system ones by their $.-keys; of repeated keys the first
	JSON       json.RawMessage   `json:"body,omitempty"` // exactly one of these three
	Text       *string           `json:"text,omitempty"`
	Bytes      []byte            `json:"base64,omitempty"`
}

// newInput writes a message for the stream.
func newInput(id, name string, m message.Message) Input {
	in := Input{ID: id, Name: name, From: m.Source, Accepted: m.Accepted, Properties: map[string]string{}}
	for _, p := range m.Input() {
		if _, repeated := in.Properties[p.Key]; !repeated {
			in.Properties[p.Key] = p.Value
		}
	}
	switch {
	case in.Properties[iothub.PropContentType] == typeJSON && json.Valid(m.Body):
		in.JSON = m.Body
	case utf8.Valid(m.Body):
		text := string(m.Body)
		in.Text = &text
	default:
		in.Bytes = m.Body
	}
	return in
}

// Body is the message's body, whichever member carries it. JSON is without insignificant white space.
func (in Input) Body() []byte {
	switch {
	case in.JSON != nil:
		return in.JSON
	case in.Text != nil:
		return []byte(*in.Text)
	}
	return in.Bytes
}

// inflight is the one message that waits for its acknowledgement.
type inflight struct {
	mu    sync.Mutex
	id    string
	acked chan struct{}
}

func (f *inflight) begin(id string) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.id, f.acked = id, make(chan struct{})
	return f.acked
}

// end says whether the acknowledgement came.
func (f *inflight) end() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	acked := f.id == ""
	f.id = ""
	return acked
}

func (f *inflight) ack(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if id == "" || f.id != id {
		return false
	}
	f.id = ""
	close(f.acked)
	return true
}

// getInputs streams messages for the module's inputs.
func (k *socket) getInputs(w http.ResponseWriter, r *http.Request) {
	wait, ok := seconds(w, r, "ackTimeoutInSeconds", ackDefault, ackMost)
	if !ok {
		return
	}
	ctx, s, ok := k.open(w, r, "inputs")
	if !ok {
		return
	}
	defer k.close(s, "inputs")
	err := k.cfg.Broker.Inputs(ctx, k.caller.ID, func(input string, m message.Message) error {
		return k.deliver(ctx, s, input, m, wait)
	})
	if err != nil && ctx.Err() == nil {
		k.log.Warn("stream of inputs broke", "module", k.caller.ID.Module, "err", err)
		panic(http.ErrAbortHandler) // the one way to let the client see that this is not the end of the stream
	}
}

// deliver sends one message and waits until it is acknowledged.
func (k *socket) deliver(ctx context.Context, s *stream, input string, m message.Message, wait time.Duration) error {
	id := k.names.next()
	doc, err := json.Marshal(newInput(id, input, m))
	if err != nil {
		return err
	}
	acked := k.inputs.begin(id)
	if err := s.write(doc); err != nil {
		k.inputs.end()
		return err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-acked:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	if k.inputs.end() {
		return nil // it came just now, and the client has been told so
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errNotAcked
}

func (k *socket) postAck(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if !k.inputs.ack(id) {
		fail(w, http.StatusNotFound, "message %.64q is not in flight: its time is over, or it was acknowledged before", id)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// seconds reads a time in whole seconds from the query.
func seconds(w http.ResponseWriter, r *http.Request, name string, otherwise, most time.Duration) (time.Duration, bool) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, true
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if d := time.Duration(n) * time.Second; err == nil && n > 0 && d <= most {
		return d, true
	}
	fail(w, http.StatusBadRequest, "%s is %.32q, want 1 to %d", name, text, most/time.Second)
	return 0, false
}
