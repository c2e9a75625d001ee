package hub_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/hub"
	"github.com/sandpiper-edge/sandpiper/agent/hub/hubtest"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
)

// exported writes an export of messages from first to last of one module.
func exported(t *testing.T, head message.ExportHeader, key iothub.Key, first, last int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := message.NewExportWriter(&out, head)
	if err != nil {
		t.Fatal(err)
	}
	for n := first; n <= last; n++ {
		m, err := message.FromPublish(iothub.ID{Device: head.Device, Module: "filter"}, iothub.Bag{{Key: "$.mid", Value: fmt.Sprint(n)}}, []byte("{}"), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Add(message.Exported{Sink: "upstream/filter", Priority: 10, Seq: uint64(n), Body: m.Append(nil)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(message.SignWithKey(key)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// logged lists the message ids of a device in the hub's log, in order.
func logged(t *testing.T, h *hubtest.Hub, device string) (ids []string) {
	t.Helper()
	if err := h.Owner.Events(t.Context(), hub.EventQuery{Device: device}, func(e hub.Event) error {
		ids = append(ids, e.Module+" "+e.System["$.mid"])
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestAnExportIsTakenOnceHoweverOftenItComes(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	cs := register(t, h, "edge1", "")
	head := message.ExportHeader{ID: "1", Device: "edge1", Hub: h.Host, Store: "s1"}
	for i, c := range []struct {
		raw            []byte
		messages, news uint64
	}{
		{exported(t, head, cs.Key, 1, 5), 5, 5},
		{exported(t, head, cs.Key, 1, 5), 5, 0}, // replayed
		{exported(t, head, cs.Key, 3, 8), 6, 3}, // made again before the receipt was there
	} {
		took, err := h.Owner.Import(t.Context(), bytes.NewReader(c.raw))
		if err != nil {
			t.Fatalf("import %d: %v", i, err)
		}
		r, err := message.ParseReceipt(took.Receipt)
		if err != nil || r.Verify(message.VerifyWithKeys(cs.Key)) != nil {
			t.Fatalf("import %d: got receipt %s, %v, want one that verifies", i, took.Receipt, err)
		}
		if len(r.Lanes) != 1 || r.Lanes[0].Messages != c.messages || r.Lanes[0].New != c.news || r.Export != "1" || r.Device != "edge1" {
			t.Errorf("import %d: got %+v, want %d messages, %d new", i, r, c.messages, c.news)
		}
	}
	want := []string{"filter 1", "filter 2", "filter 3", "filter 4", "filter 5", "filter 6", "filter 7", "filter 8"}
	if got := logged(t, h, "edge1"); strings.Join(got, ",") != strings.Join(want, ",") {
		t.Errorf("log: got %q, want %q", got, want)
	}
}

func TestAnExportOfSomebodyElseIsRefusedWhole(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	cs := register(t, h, "edge1", "")
	other := register(t, h, "edge2", "")
	good := message.ExportHeader{ID: "1", Device: "edge1", Hub: h.Host, Store: "s1"}
	elsewhere, ghost := good, good
	elsewhere.Hub, ghost.Device = "other.example.net", "ghost"
	for name, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"signed by another device": {exported(t, good, other.Key, 1, 2), "signature is not valid"},
		"for another hub":          {exported(t, elsewhere, cs.Key, 1, 2), "other.example.net"},
		"of a device unknown here": {exported(t, ghost, cs.Key, 1, 2), "not registered"},
		"cut":                      {exported(t, good, cs.Key, 1, 2)[:100], "ends too early"},
		"something else":           {[]byte("PK\x03\x04"), "does not begin as one"},
	} {
		if _, err := h.Owner.Import(t.Context(), bytes.NewReader(c.raw)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
		}
	}
	if got := append(logged(t, h, "edge1"), logged(t, h, "ghost")...); len(got) != 0 {
		t.Errorf("log: got %q, want nothing", got)
	}
}
