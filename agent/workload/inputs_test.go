package workload

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
)

func (b *bed) deliver(t *testing.T, input string, m message.Message) <-chan error {
	t.Helper()
	d := delivery{input, m, make(chan error, 1)}
	select {
	case b.broker.inputs <- d:
	case <-t.Context().Done():
	}
	return d.result
}

func TestInputsComeOneAtATimeAndAreAcknowledged(t *testing.T) {
	t.Parallel()
	b := serve(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got, ended := make(chan Input), make(chan error, 1)
	refuse := errors.New("not this one")
	go func() {
		ended <- b.module.Receive(ctx, 0, func(in Input) error {
			got <- in
			if in.Name == "bad" {
				return refuse
			}
			return nil
		})
	}()
	from := message.Message{Source: iothub.ID{Device: "edge1", Module: "sensor"}, Accepted: time.Unix(1700000000, 0).UTC(), Body: []byte("21.5"), Bag: iothub.Bag{{Key: "a", Value: "1"}, {Key: "a", Value: "2"}}}
	result := b.deliver(t, "in1", from)
	in := <-got
	if in.Name != "in1" || in.From != from.Source || !in.Accepted.Equal(from.Accepted) || string(in.Body()) != "21.5" || in.Text == nil {
		t.Errorf("got %+v, want the message", in)
	}
	if in.Properties["a"] != "1" || in.Properties[iothub.PropSourceModule] != "sensor" {
		t.Errorf("properties: got %v", in.Properties)
	}
	if err := <-result; err != nil {
		t.Errorf("acknowledged: got %v, want nil", err)
	}
	result = b.deliver(t, "bad", from)
	<-got
	if err := <-ended; !errors.Is(err, refuse) {
		t.Errorf("receive: got %v, want %v", err, refuse)
	}
	if err := <-result; err == nil {
		t.Error("a message whose stream ended counts as acknowledged")
	}
}

func TestAnInputThatIsNotAcknowledgedComesAgain(t *testing.T) {
	t.Parallel()
	b := serve(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ids := make(chan string)
	go func() {
		_ = b.module.stream(ctx, "/v1/messages/inputs?ackTimeoutInSeconds=1", func(doc json.RawMessage) error {
			var in Input
			if err := json.Unmarshal(doc, &in); err != nil {
				return err
			}
			ids <- in.ID
			return nil
		})
	}()
	result := b.deliver(t, "in1", message.Message{Source: filter})
	first := <-ids
	if err := <-result; !errors.Is(err, errNotAcked) {
		t.Errorf("got %v, want %v", err, errNotAcked)
	}
	if status, _, _ := b.ask(t, "POST", "/v1/messages/inputs/"+first+"/ack", ""); status != 404 {
		t.Errorf("late ack: got %d, want 404", status)
	}
	result = b.deliver(t, "in1", message.Message{Source: filter})
	second := <-ids
	if status, _, _ := b.ask(t, "POST", "/v1/messages/inputs/"+first+"/ack", ""); status != 404 {
		t.Errorf("ack of the first while the second is in flight: got %d, want 404", status)
	}
	if status, _, _ := b.ask(t, "POST", "/v1/messages/inputs/"+second+"/ack", ""); status != 204 {
		t.Errorf("ack: got %d, want 204", status)
	}
	if err := <-result; err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

func TestBodiesOfInputsKeepTheirBytes(t *testing.T) {
	t.Parallel()
	typed := iothub.Bag{{Key: iothub.PropContentType, Value: typeJSON}}
	tests := map[string]struct {
		bag  iothub.Bag
		body string
		want string // the member
	}{
		"JSON":               {typed, `{"a":1}`, `"body":{"a":1}`},
		"JSON without type":  {nil, `{"a":1}`, `"text":"{\"a\":1}"`},
		"typed but not JSON": {typed, `{`, `"text":"{"`},
		"binary":             {nil, "\xff\x00", `"base64":"/wA="`},
		"empty":              {nil, "", `"text":""`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			doc, err := json.Marshal(newInput("1", "in", message.Message{Source: filter, Bag: tc.bag, Body: []byte(tc.body)}))
			if err != nil || !strings.Contains(string(doc), tc.want) {
				t.Errorf("got %s, %v, want %s in it", doc, err, tc.want)
			}
			var in Input
			if err := json.Unmarshal(doc, &in); err != nil || string(in.Body()) != tc.body {
				t.Errorf("read back: got %q, %v, want %q", in.Body(), err, tc.body)
			}
		})
	}
}
