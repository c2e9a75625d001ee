package workload

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/store"
)

func TestPostOutput(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		path, kind, body string
		status           int
		want             []published
	}{
		"a body as curl sends it": {
			"/v1/messages/outputs/o", typeForm, "21.5", 204, []published{{filter, "o", "", "21.5"}},
		},
		"properties in the query, a plus is a plus": {
			"/v1/messages/outputs/alert?level=a+b%20c&%24.mid=7", "", "x", 204, []published{{filter, "alert", "level=a%2Bb%20c&%24.mid=7", "x"}},
		},
		"JSON is typed so that routes can look into it": {
			"/v1/messages/outputs/o", "application/json", "{}", 204, []published{{filter, "o", "%24.ct=application%2Fjson&%24.ce=utf-8", "{}"}},
		},
		"a stated charset is the encoding": {
			"/v1/messages/outputs/o", "text/plain; charset=ISO-8859-1", "x", 204, []published{{filter, "o", "%24.ct=text%2Fplain&%24.ce=iso-8859-1", "x"}},
		},
		"the bag's own type wins": {
			"/v1/messages/outputs/o?$.ct=a", "application/json", "{}", 204, []published{{filter, "o", "%24.ct=a", "{}"}},
		},
		"what only a server may set is dropped": {
			"/v1/messages/outputs/o?$.cmid=other&$.on=else&a=1", "", "x", 204, []published{{filter, "o", "a=1", "x"}},
		},
		"an escaped output": {
			"/v1/messages/outputs/a%2Fb", "", "", 204, []published{{filter, "a/b", "", ""}},
		},
		"lines are messages": {
			"/v1/messages/outputs/o?a=1", typeNDJSON, "{\"n\":1}\n\n[2]\r\n3", 204, []published{
				{filter, "o", "a=1&%24.ct=application%2Fjson&%24.ce=utf-8", `{"n":1}`},
				{filter, "o", "a=1&%24.ct=application%2Fjson&%24.ce=utf-8", `[2]`},
				{filter, "o", "a=1&%24.ct=application%2Fjson&%24.ce=utf-8", `3`},
			},
		},
		"a bad line sends nothing": {"/v1/messages/outputs/o", typeNDJSON, "1\nnope\n3", 400, nil},
		"a bad bag":                {"/v1/messages/outputs/o?" + strings.Repeat("a&", 1025), "", "x", 400, nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := serve(t, nil)
			status, _, body := b.ask(t, "POST", tc.path, tc.body, "Content-Type", tc.kind)
			if status != tc.status {
				t.Errorf("got %d %s, want %d", status, body, tc.status)
			}
			got := b.broker.seen()
			if len(got) != len(tc.want) {
				t.Fatalf("published: got %+v, want %+v", got, tc.want)
			}
			for i := range got {
				if got[i] != tc.want[i] {
					t.Errorf("message %d: got %+v, want %+v", i, got[i], tc.want[i])
				}
			}
		})
	}
}

func TestAMessageThatIsNotStoredIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err    error
		status int
	}{
		"disk full": {store.ErrFull, 507},
		"too large": {message.ErrTooLarge, 413},
		"store":     {errors.New("closed"), 503},
		"hub error": {iothub.NewError(iothub.CodeThrottled, "slow down", time.Now()), 429},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := serve(t, nil)
			b.broker.refuse = func(n int) error {
				if n == 1 {
					return tc.err
				}
				return nil
			}
			status, _, body := b.ask(t, "POST", "/v1/messages/outputs/o", "1\n2\n3", "Content-Type", typeNDJSON)
			var said struct {
				Message string
				Stored  int
			}
			if err := json.Unmarshal([]byte(body), &said); err != nil || status != tc.status || said.Message == "" || said.Stored != 1 {
				t.Errorf("got %d %s, want %d with one stored", status, body, tc.status)
			}
		})
	}
}

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

func TestASecondStreamIsRefused(t *testing.T) {
	t.Parallel()
	b := serve(t, nil)
	for _, path := range []string{"/v1/messages/inputs", "/v1/methods", "/v1/twin/desired"} {
		first, err := b.module.request(t.Context(), http.MethodGet, path, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		var conflict *AnswerError
		if _, err := b.module.request(t.Context(), http.MethodGet, path, "", nil); !errors.As(err, &conflict) || conflict.Status != 409 {
			t.Errorf("%s: got %v, want status 409", path, err)
		}
		first.Body.Close()
	}
}

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

func TestMethods(t *testing.T) {
	t.Parallel()
	b := serve(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- b.module.Methods(ctx, func(c Call) iothub.MethodResult {
			return iothub.MethodResult{Status: 201, Payload: json.RawMessage(`{"echo":"` + c.Name + `","was":` + string(c.Payload) + `}`)}
		})
	}()
	handle := <-b.broker.handler
	result := handle(t.Context(), iothub.MethodRequest{Name: "reboot", Payload: json.RawMessage(`null`)})
	if result.Status != 201 || string(result.Payload) != `{"echo":"reboot","was":null}` {
		t.Errorf("got %d %s, want 201 and the echo", result.Status, result.Payload)
	}
	if status, _, _ := b.ask(t, "POST", "/v1/methods/made.up?status=200", "1"); status != 404 {
		t.Errorf("answer to no call: got %d, want 404", status)
	}
	cancel()
	<-ended
	if fn := <-b.broker.handler; fn != nil {
		t.Error("the handler was not taken back")
	}
}

func TestACallEndsWhenTheModuleOrTheCallerGoes(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		moduleGoes bool
		status     int
	}{"module": {true, 503}, "caller": {false, 504}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := serve(t, nil)
			streaming, closeStream := context.WithCancel(t.Context())
			calling, giveUp := context.WithCancel(t.Context())
			defer closeStream()
			defer giveUp()
			shown := make(chan struct{})
			go func() {
				_ = b.module.stream(streaming, "/v1/methods", func(json.RawMessage) error { close(shown); return nil })
			}()
			handle := <-b.broker.handler
			done := make(chan iothub.MethodResult, 1)
			go func() { done <- handle(calling, iothub.MethodRequest{Name: "x", Payload: json.RawMessage(`1`)}) }()
			<-shown
			if tc.moduleGoes {
				closeStream()
			} else {
				giveUp()
			}
			if got := <-done; got.Status != tc.status {
				t.Errorf("got %d, want %d", got.Status, tc.status)
			}
		})
	}
}

func TestCallMethod(t *testing.T) {
	t.Parallel()
	b := serve(t, nil)
	b.broker.call = func(target iothub.ID, req iothub.MethodRequest) (iothub.MethodResult, error) {
		if target.Module == "away" {
			return iothub.MethodResult{}, iothub.NewError(iothub.CodeNotOnline, "not online", time.Now())
		}
		return iothub.MethodResult{Status: 200, Payload: json.RawMessage(`"` + target.String() + " " + req.Name + `"`)}, nil
	}
	got, err := b.module.Call(t.Context(), iothub.ID{Module: "other"}, iothub.MethodRequest{Name: "reset"})
	if err != nil || got.Status != 200 || string(got.Payload) != `"edge1/other reset"` {
		t.Errorf("got %d %s %v", got.Status, got.Payload, err)
	}
	var away *AnswerError
	if _, err := b.module.Call(t.Context(), iothub.ID{Module: "away"}, iothub.MethodRequest{Name: "reset"}); !errors.As(err, &away) || away.Status != 404 {
		t.Errorf("away: got %v, want status 404", err)
	}
	for name, path := range map[string]string{"no target": "/v1/methods/call", "bad target": "/v1/methods/call?module=a/b"} {
		if status, _, _ := b.ask(t, "POST", path, `{"methodName":"x"}`); status != 400 {
			t.Errorf("%s: got %d, want 400", name, status)
		}
	}
	if status, _, body := b.ask(t, "POST", "/v1/methods/call?module=m", `{}`); status != 400 {
		t.Errorf("no name: got %d %s, want 400", status, body)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	b := serve(t, nil)
	if err := b.module.Health(t.Context(), Health{Note: "no sensor"}); err != nil {
		t.Fatal(err)
	}
	if got := <-b.health; got.Healthy || got.Note != "no sensor" {
		t.Errorf("got %+v, want unhealthy with a note", got)
	}
	if status, _, _ := b.ask(t, "POST", "/v1/health", ""); status != 204 {
		t.Errorf("got %d, want 204", status)
	}
	if got := <-b.health; !got.Healthy {
		t.Errorf("empty body: got %+v, want healthy", got)
	}
}

func TestStreamsEndWithTheServer(t *testing.T) {
	t.Parallel()
	b := serve(t, nil)
	ended := make(chan error, 1)
	opened, err := b.module.request(t.Context(), http.MethodGet, "/v1/messages/inputs", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 1)
		_, err := opened.Body.Read(buf)
		ended <- err
	}()
	b.stop()
	if err := <-ended; err == nil {
		t.Error("the stream is still open")
	}
	opened.Body.Close()
}

func FuzzToJSON(f *testing.F) {
	for _, doc := range []string{`{"a":[1,-2,2.5,true,null,"x"]}`, `18446744073709551615`, `{"a":{"b":{}}}`} {
		raw, err := toCBOR([]byte(doc))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte{0xf9, 0x7e, 0x00})
	f.Add([]byte{0x9f, 0x9f, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, raw []byte) {
		doc, err := toJSON(raw)
		if err != nil {
			return
		}
		again, err := toCBOR(doc)
		if err != nil {
			t.Fatalf("JSON %s made from CBOR is refused: %v", doc, err)
		}
		back, err := toJSON(again)
		if err != nil || string(back) != string(doc) {
			t.Errorf("got %s, %v, want %s", back, err, doc)
		}
	})
}
