package hub_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/hub"
	"github.com/sandpiper-edge/sandpiper/agent/hub/hubtest"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

const (
	desiredFilter = "$iothub/twin/PATCH/properties/desired/#"
	twinFilter    = "$iothub/twin/res/#"
	methodFilter  = "$iothub/methods/POST/#"
)

func TestTelemetryIsInTheLogWhenItIsAcknowledged(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	register(t, h, "edge1", "")
	c := connect(t, h, register(t, h, "edge1", "filter"))
	publish(t, c, "devices/edge1/modules/filter/messages/events/%24.mid=m1&%24.on=out&alert=a%2Fb&%24.cdid=liar/", `{"t":1}`)
	publish(t, c, "devices/edge1/modules/filter/messages/events/", "\x00\x01")
	events, err := h.Telemetry(t.Context(), "edge1")
	if err != nil || len(events) != 2 {
		t.Fatalf("got %+v, %v, want two events", events, err)
	}
	e := events[0]
	if e.Module != "filter" || e.System["$.mid"] != "m1" || e.System["$.on"] != "out" || e.Properties["alert"] != "a/b" ||
		e.System["$.cdid"] != "" || string(e.Body) != `{"t":1}` || e.Kind != "telemetry" {
		t.Errorf("first event: got %+v", e)
	}
	if string(events[1].BodyBase64) != "\x00\x01" || events[1].Offset <= e.Offset {
		t.Errorf("second event: got %+v", events[1])
	}
	publishAs := c.Publish(t.Context(), "devices/edge1/modules/other/messages/events/", []byte("{}"), 1)
	if publishAs == nil {
		t.Error("publishing as another module: got an acknowledgement, want the connection closed")
	}
}

func TestOneDevicesMessagesStayInOrderThroughCuts(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	cs := register(t, h, "edge1", "")
	const n = 200
	sent := 0
	for round := range 4 {
		c := connect(t, h, cs)
		var acks []<-chan []byte
		for range n / 4 {
			acked, err := c.Start(fmt.Sprintf("devices/edge1/messages/events/%%24.mid=%d", sent), []byte("{}"))
			if err != nil {
				t.Fatal(err)
			}
			acks = append(acks, acked)
			sent++
		}
		for i, acked := range acks {
			if _, ok := <-acked; !ok {
				t.Fatalf("round %d: message %d was not acknowledged", round, i)
			}
		}
		h.Cut()
		<-c.Ended()
		if err := h.Restore(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	events, err := h.Telemetry(t.Context(), "edge1")
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, e := range events {
		got = append(got, e.System["$.mid"])
	}
	for i := range n {
		want = append(want, fmt.Sprint(i))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %d messages %.80q, want %d in order", len(got), got, n)
	}
}

func TestDesiredPatchesAreDeliveredLiveAndAfterAnAbsence(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	cs := register(t, h, "edge1", "")
	c := connect(t, h, cs)
	subscribe(t, c, desiredFilter)
	desire(t, h, cs.ID, `{"a":1,"old":{"x":1,"y":2}}`)
	if d, body := next(t, c); d.Kind != iothub.DesiredPatch || d.Version != 2 || body != `{"$version":2,"a":1,"old":{"x":1,"y":2}}` {
		t.Errorf("live: got %+v %s", d, body)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	desire(t, h, cs.ID, `{"a":2}`)
	desire(t, h, cs.ID, `{"a":null}`)
	c = connect(t, h, cs)
	for _, want := range []string{`{"$version":3,"a":2}`, `{"$version":4,"a":null}`} {
		if _, body := next(t, c); body != want {
			t.Errorf("missed: got %s, want %s", body, want)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range 20 { // more than the ring holds
		desire(t, h, cs.ID, fmt.Sprintf(`{"n":%d,"old":{"x":null}}`, i))
	}
	c = connect(t, h, cs)
	if d, body := next(t, c); d.Version != 24 || body != `{"$version":24,"n":19,"old":{"x":null}}` {
		t.Errorf("missed beyond the ring: got %+v %s, want one difference", d, body)
	}
	desire(t, h, cs.ID, `{"n":20}`)
	if d, body := next(t, c); d.Version != 25 || body != `{"$version":25,"n":20}` {
		t.Errorf("live again: got %+v %s", d, body)
	}
}

func TestManyDesiredPatchesNeverLeaveAGap(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	cs := register(t, h, "edge1", "")
	c := connect(t, h, cs)
	subscribe(t, c, desiredFilter)
	const n = 200
	patched := make(chan struct{})
	defer func() { <-patched }()
	go func() {
		defer close(patched)
		for i := range n {
			body := json.RawMessage(fmt.Sprintf(`{"properties":{"desired":{"n":%d,"k%d":true}}}`, i, i%10))
			if _, err := h.Owner.PatchTwin(t.Context(), cs.ID, body); err != nil {
				t.Error(err)
			}
		}
	}()
	state, version := map[string]any{}, int64(1)
	for version < n+1 {
		d, body := next(t, c)
		if d.Version <= version {
			t.Fatalf("version %d after %d", d.Version, version)
		}
		version = d.Version
		if err := json.Unmarshal([]byte(body), &state); err != nil {
			t.Fatal(err)
		}
	}
	if state["n"] != float64(n-1) || len(state) != 12 {
		t.Errorf("content: got %v, want n %d and ten keys", state, n-1)
	}
}

func TestReportedPatchesAreCheckedMergedAndVersioned(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	cs := register(t, h, "edge1", "")
	c := connect(t, h, cs)
	subscribe(t, c, twinFilter)
	publish(t, c, "$iothub/twin/PATCH/properties/reported/?$rid=r1", `{"a":{"b":1}}`)
	if d, body := next(t, c); d.Kind != iothub.TwinResult || d.Status != 204 || d.RequestID != "r1" || d.Version != 2 || body != "" {
		t.Errorf("patch: got %+v %s", d, body)
	}
	publish(t, c, "$iothub/twin/PATCH/properties/reported/?$rid=r2", `{"a":[null]}`)
	d, body := next(t, c)
	var no iothub.Error
	if err := json.Unmarshal([]byte(body), &no); err != nil || d.Status != 400 || no.Code/1000 != 400 {
		t.Errorf("patch over a limit: got %+v %s", d, body)
	}
	publish(t, c, "$iothub/twin/GET/?$rid=r3", " ")
	if d, body := next(t, c); d.Status != 200 || body != `{"desired":{"$version":1},"reported":{"a":{"b":1},"$version":2}}` {
		t.Errorf("get: got %+v %s", d, body)
	}
}

func TestMethodsReachTheDeviceOrSayWhyNot(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	cs := register(t, h, "edge1", "")
	request := iothub.MethodRequest{Name: "blink", Payload: json.RawMessage(`{"times":3}`), ResponseTimeout: 5 * time.Second}
	if _, err := h.Owner.Invoke(t.Context(), cs.ID, request); code(err) != iothub.CodeNotOnline {
		t.Errorf("nobody there: got %v, want %d", err, iothub.CodeNotOnline)
	}
	if _, err := h.Owner.Invoke(t.Context(), iothub.ID{Device: "nobody"}, request); code(err) != iothub.CodeDeviceNotFound {
		t.Errorf("unknown device: got %v, want %d", err, iothub.CodeDeviceNotFound)
	}
	type answer struct {
		result iothub.MethodResult
		err    error
	}
	answers := make(chan answer, 1)
	invoke := func(r iothub.MethodRequest) {
		result, err := h.Owner.Invoke(t.Context(), cs.ID, r)
		answers <- answer{result, err}
	}
	patient := request
	patient.ConnectTimeout = 20 * time.Second
	go invoke(patient) // before the device is there
	c := connect(t, h, cs)
	subscribe(t, c, methodFilter)
	d, body := next(t, c)
	if d.Kind != iothub.MethodCall || d.Name != "blink" || body != `{"times":3}` {
		t.Errorf("call: got %+v %s", d, body)
	}
	publish(t, c, iothub.Publish{Kind: iothub.MethodResponse, Status: 207, RequestID: d.RequestID}.Topic(), `{"ok":true}`)
	if a := <-answers; a.err != nil || a.result.Status != 207 || string(a.result.Payload) != `{"ok":true}` {
		t.Errorf("answer: got %+v", a)
	}
	go invoke(request)
	next(t, c) // and no answer
	if a := <-answers; code(a.err) != iothub.CodeGatewayTimeout {
		t.Errorf("no answer: got %+v, want %d", a, iothub.CodeGatewayTimeout)
	}
	go invoke(request)
	next(t, c)
	_ = c.Abort()
	if a := <-answers; code(a.err)/1000 != 404 {
		t.Errorf("gone before its answer: got %v, want 404", a.err)
	}
}

func TestEventsCanBeFollowedFilteredAndResumed(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	register(t, h, "edge1", "")
	module := connect(t, h, register(t, h, "edge1", "m"))
	device := connect(t, h, register(t, h, "edge2", ""))
	ctx, cancel := context.WithCancel(t.Context())
	seen, ended := make(chan hub.Event, 16), make(chan error, 1)
	go func() {
		ended <- h.Owner.Events(ctx, hub.EventQuery{Follow: true}, func(e hub.Event) error { seen <- e; return nil })
	}()
	publish(t, module, "devices/edge1/modules/m/messages/events/", "1")
	publish(t, device, "devices/edge2/messages/events/", "2")
	publish(t, module, "devices/edge1/modules/m/messages/events/", "3")
	got := map[string]bool{}
	for range 3 {
		got[string((<-seen).Body)] = true
	}
	if len(got) != 3 {
		t.Errorf("followed: got %v, want three events", got)
	}
	cancel()
	<-ended
	count := func(q hub.EventQuery) (n int, last hub.Event) {
		err := h.Owner.Events(t.Context(), q, func(e hub.Event) error { n, last = n+1, e; return nil })
		if err != nil {
			t.Error(err)
		}
		return n, last
	}
	n, last := count(hub.EventQuery{Device: "edge1", Module: "m"})
	if n != 2 {
		t.Errorf("of one module: got %d, want 2", n)
	}
	if n, _ := count(hub.EventQuery{Device: "edge1", From: last.Offset}); n != 1 {
		t.Errorf("from an offset: got %d, want 1", n)
	}
	if n, _ := count(hub.EventQuery{Since: time.Now().Add(time.Hour)}); n != 0 {
		t.Errorf("since later: got %d, want none", n)
	}
	if n, _ := count(hub.EventQuery{Device: "edge2", All: true}); n < 3 {
		t.Errorf("all kinds: got %d, want life cycle and connection too", n)
	}
}
