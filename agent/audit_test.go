package agent

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/store"
)

func newAudit(a *Agent) *audit {
	return &audit{device: "edge1", queue: a.store.Queue(), docs: a.store.Docs(), now: time.Now, logger: a.log, told: map[string]losses{}}
}

// told reads the audit messages on the system lane.
func told(t *testing.T, a *Agent) (list []auditBody) {
	t.Helper()
	items, _, err := a.store.Queue().Peek("upstream/$edgeAgent", store.Cursor{}, 100, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range items {
		m, err := message.Decode(it.Body)
		if err != nil || m.Source.String() != "edge1/$edgeAgent" {
			t.Fatalf("got %+v, %v, want a message of $edgeAgent", m, err)
		}
		var body auditBody
		if err := json.Unmarshal(m.Body, &body); err != nil {
			t.Fatal(err)
		}
		list = append(list, body)
	}
	return list
}

func TestEveryLossIsToldOnceThroughALaneThatNoRouteNames(t *testing.T) {
	t.Parallel()
	a := queueRig(t)
	u := newAudit(a)
	a.fill(t, "upstream/m", 10, 5)
	if err := u.look(t.Context()); err != nil || len(told(t, a)) != 0 {
		t.Fatalf("nothing lost: got %v, %v", told(t, a), err)
	}
	if _, err := a.purgeQueue(t.Context(), "upstream/m"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds nothing new
		if err := u.look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	got := told(t, a)
	want := lostLane{Queue: "upstream/m", Priority: 10, Source: "edge1/m", losses: losses{Purged: 5}}
	if len(got) != 1 || got[0].Event != "messagesLost" || len(got[0].Lanes) != 1 || got[0].Lanes[0] != want {
		t.Fatalf("got %+v, want one message with %+v", got, want)
	}
	again := newAudit(a) // after a restart
	raw, err := a.store.Docs().Get(auditKey)
	if err == nil {
		err = json.Unmarshal(raw, &again.told)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.fill(t, "upstream/m", 10, 2)
	if _, err := a.purgeQueue(t.Context(), "upstream/m"); err != nil {
		t.Fatal(err)
	}
	if err := again.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := told(t, a); len(got) != 2 || got[1].Lanes[0].losses != (losses{Purged: 2}) {
		t.Errorf("after a restart: got %+v, want two more told", got)
	}
}
