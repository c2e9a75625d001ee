package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/store"
)

// queueRig is an agent of which only the queue is there.
func queueRig(t *testing.T) *Agent {
	t.Helper()
	s, err := store.Open(store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(context.Background()) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-ended); err != nil {
			t.Error(err)
		}
	})
	return &Agent{store: s, log: slog.New(slog.DiscardHandler), dev: device{hub: "hub.example.net", id: "edge1", key: iothub.Key(strings.Repeat("k", 32))}}
}

func (a *Agent) fill(t *testing.T, sink string, priority uint8, n int) {
	t.Helper()
	for i := range n {
		m, err := message.FromPublish(iothub.ID{Device: "edge1", Module: "m"}, nil, fmt.Appendf(nil, "%d", i), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := a.store.Queue().Append(t.Context(), store.Record{Body: m.Append(nil), Entries: []store.Entry{{Sink: sink, Priority: priority}}}); err != nil {
			t.Fatal(err)
		}
	}
}

func (a *Agent) left(t *testing.T, sink string) int {
	t.Helper()
	items, err := a.peekQueue(t.Context(), sink, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return len(items)
}

// receiptOf is what a hub would answer to an export.
func receiptOf(t *testing.T, raw []byte, key iothub.Key, change func(*message.Receipt)) []byte {
	t.Helper()
	e, err := message.NewExportReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	lanes := map[string]*message.ReceiptLane{}
	for {
		x, err := e.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		at := fmt.Sprint(x.Sink, x.Priority)
		if lanes[at] == nil {
			lanes[at] = &message.ReceiptLane{Sink: x.Sink, Priority: x.Priority, First: x.Seq}
		}
		lanes[at].Last, lanes[at].Messages = x.Seq, lanes[at].Messages+1
	}
	if err := e.Verify(message.VerifyWithKeys(key)); err != nil {
		t.Fatalf("export: %v", err)
	}
	r := message.Receipt{Export: e.Header.ID, Device: e.Header.Device, Hub: e.Header.Hub, Store: e.Header.Store, Imported: time.Now()}
	for _, l := range lanes {
		r.Lanes = append(r.Lanes, *l)
	}
	if change != nil {
		change(&r)
	}
	if r, err = r.Sign(message.SignWithKey(key)); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAReceiptFreesWhatTheExportHeldAndNothingElse(t *testing.T) {
	t.Parallel()
	a := queueRig(t)
	a.fill(t, "upstream/m", 10, 600)
	a.fill(t, "upstream/m", 0, 5)
	a.fill(t, "upstream/_", 10, 3)
	a.fill(t, "modules/b/inputs/in", 10, 2)
	var file bytes.Buffer
	if err := a.exportQueue(t.Context(), nil, &file); err != nil {
		t.Fatal(err)
	}
	a.fill(t, "upstream/m", 10, 7)
	if got := a.left(t, "upstream/m"); got != 612 {
		t.Errorf("an export took something: got %d left, want 612", got)
	}
	receipt := receiptOf(t, file.Bytes(), a.dev.key, nil)
	for i, want := range []int{608, 0} {
		got, err := a.takeReceipt(t.Context(), receipt)
		if err != nil || got.Messages != want {
			t.Errorf("receipt, time %d: got %+v, %v, want %d messages", i+1, got, err, want)
		}
	}
	for sink, want := range map[string]int{"upstream/m": 7, "upstream/_": 0, "modules/b/inputs/in": 2} {
		if got := a.left(t, sink); got != want {
			t.Errorf("%s: got %d left, want %d", sink, got, want)
		}
	}
}

func TestAReceiptThatIsNotForThisQueueFreesNothing(t *testing.T) {
	t.Parallel()
	a := queueRig(t)
	a.fill(t, "upstream/m", 10, 4)
	var file bytes.Buffer
	if err := a.exportQueue(t.Context(), []string{"upstream/m"}, &file); err != nil {
		t.Fatal(err)
	}
	good := receiptOf(t, file.Bytes(), a.dev.key, nil)
	for name, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"of another store":  {receiptOf(t, file.Bytes(), a.dev.key, func(r *message.Receipt) { r.Store = "other" }), "another store"},
		"of another device": {receiptOf(t, file.Bytes(), a.dev.key, func(r *message.Receipt) { r.Device = "edge2" }), "is for edge2"},
		"touched":           {bytes.Replace(good, []byte(`"last":4`), []byte(`"last":9`), 1), "signature is not valid"},
		"no receipt":        {[]byte("{}"), "version 0"},
	} {
		if _, err := a.takeReceipt(t.Context(), c.raw); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
		}
	}
	if got := a.left(t, "upstream/m"); got != 4 {
		t.Errorf("got %d left, want 4", got)
	}
	for sink, want := range map[string]string{"modules/x": "is not there", "upstream/none": "is not there"} {
		if err := a.exportQueue(t.Context(), []string{sink}, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("export of %s: got %v, want %q", sink, err, want)
		}
	}
	a.dev.hub = ""
	if err := a.exportQueue(t.Context(), nil, io.Discard); err == nil || !strings.Contains(err.Error(), "belongs to no hub") {
		t.Errorf("standalone: got %v", err)
	}
}
