package workload

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/store"
)

func TestTwin(t *testing.T) {
	t.Parallel()
	b := serve(t, nil)
	ctx := t.Context()
	doc, err := b.module.Twin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	sameJSON(t, string(doc), `{"desired":{"$version":1},"reported":{"$version":1}}`)
	if v, err := b.module.Report(ctx, json.RawMessage(`{"speed":9007199254740993e-4,"n":1}`)); err != nil || v != 2 {
		t.Errorf("report: got %d, %v, want version 2", v, err)
	}
	var limit *AnswerError
	if _, err := b.module.Report(ctx, json.RawMessage(`{"a.b":1}`)); !errors.As(err, &limit) || limit.Status != 400 {
		t.Errorf("bad key: got %v, want status 400", err)
	}
	if _, err := b.module.Report(ctx, json.RawMessage(`nope`)); !errors.As(err, &limit) || limit.Status != 400 {
		t.Errorf("not JSON: got %v, want status 400", err)
	}
	raw, err := cbor.Marshal(map[string]any{"n": nil, "big": uint64(1 << 51)})
	if err != nil {
		t.Fatal(err)
	}
	if status, _, body := b.ask(t, "PATCH", "/v1/twin", string(raw), "Content-Type", typeCBOR); status != 204 {
		t.Errorf("CBOR patch: got %d %s, want 204", status, body)
	}
	status, kind, body := b.ask(t, "GET", "/v1/twin", "", "Accept", "application/cbor;q=0.9, */*")
	var out struct {
		Reported map[string]any `cbor:"reported"`
	}
	if err := cbor.Unmarshal([]byte(body), &out); err != nil || status != 200 || kind != typeCBOR {
		t.Fatalf("got %d %s, %v, want CBOR", status, kind, err)
	}
	if n, gone := out.Reported["n"]; gone || out.Reported["big"] != uint64(1<<51) {
		t.Errorf("got %v %v, want big and no n", out.Reported, n)
	}
}

func TestAReportThatIsNotDurableIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	b := serve(t, nil)
	b.docs.mu.Lock()
	b.docs.fail = store.ErrFull
	b.docs.mu.Unlock()
	var full *AnswerError
	if _, err := b.module.Report(t.Context(), json.RawMessage(`{"a":1}`)); !errors.As(err, &full) || full.Status != 503 {
		t.Errorf("got %v, want status 503", err)
	}
}

func TestDesiredIsStreamed(t *testing.T) {
	t.Parallel()
	b := serve(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	patches := make(chan string)
	ended := make(chan error, 1)
	watch := func(since int64) {
		ended <- b.module.Desired(ctx, since, func(p json.RawMessage) error {
			patches <- string(p)
			return nil
		})
	}
	go watch(0)
	if _, err := b.twins.SetDesired(ctx, filter, json.RawMessage(`{"a":1,"b":2}`)); err != nil {
		t.Fatal(err)
	}
	sameJSON(t, <-patches, `{"a":1,"b":2,"$version":2}`)
	if _, err := b.twins.SetDesired(ctx, filter, json.RawMessage(`{"a":5}`)); err != nil {
		t.Fatal(err)
	}
	sameJSON(t, <-patches, `{"a":5,"b":null,"$version":3}`)
	if _, err := b.twins.SetDesired(ctx, iothub.ID{Device: "edge1", Module: "other"}, json.RawMessage(`{"secret":1}`)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	ctx = t.Context()
	ctx, cancel = context.WithCancel(ctx)
	go watchAgain(ctx, b, patches, ended)
	sameJSON(t, <-patches, `{"a":5,"b":null,"$version":3}`)
	cancel()
	<-ended
}

// watchAgain opens the stream with since=2; the one before may need a moment to be gone.
func watchAgain(ctx context.Context, b *bed, patches chan string, ended chan error) {
	for {
		err := b.module.Desired(ctx, 2, func(p json.RawMessage) error {
			patches <- string(p)
			return nil
		})
		var conflict *AnswerError
		if !errors.As(err, &conflict) || conflict.Status != 409 {
			ended <- err
			return
		}
	}
}
