package mqtt

import (
	"errors"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

func TestOnlyTheOneWhoWasAskedAnswersAndOnlyOnce(t *testing.T) {
	t.Parallel()
	asked, other := iothub.ID{Device: "d", Module: "a"}, iothub.ID{Device: "d", Module: "b"}
	var calls Calls
	rid, this := calls.open(asked)
	tests := []struct {
		claim   string
		from    iothub.ID
		rid     string
		payload string
		want    error
	}{
		{"another identity", other, rid, "1", ErrNoCall},
		{"an id that nobody has", asked, "00", "1", ErrNoCall},
		{"the one asked", asked, strings.ToUpper(rid), "1", nil},
		{"the one asked, again", asked, rid, "2", ErrNoCall},
	}
	for _, tc := range tests {
		err := calls.Answered(tc.from, iothub.Publish{RequestID: tc.rid, Status: 200}, []byte(tc.payload))
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.claim, err, tc.want)
		}
	}
	if got := <-this.answer; string(got.Payload) != "1" || got.Status != 200 {
		t.Errorf("got answer %d %s, want 200 1", got.Status, got.Payload)
	}
	calls.close(rid)
	if err := calls.Answered(asked, iothub.Publish{RequestID: rid}, nil); !errors.Is(err, ErrNoCall) {
		t.Errorf("after the call: got %v, want %v", err, ErrNoCall)
	}
}

func TestAnAnswerThatIsNoJSONOrTooLongLeavesTheCallOpen(t *testing.T) {
	t.Parallel()
	id := iothub.ID{Device: "d"}
	var calls Calls
	rid, this := calls.open(id)
	for claim, payload := range map[string]string{"no JSON": "{", "too long": `"` + strings.Repeat("x", iothub.MaxMethodPayload) + `"`} {
		if err := calls.Answered(id, iothub.Publish{RequestID: rid}, []byte(payload)); err == nil || errors.Is(err, ErrNoCall) {
			t.Errorf("%s: got %v, want an error of its own", claim, err)
		}
	}
	if err := calls.Answered(id, iothub.Publish{RequestID: rid, Status: 204}, nil); err != nil {
		t.Fatalf("an empty answer: %v", err)
	}
	if got := <-this.answer; string(got.Payload) != "null" {
		t.Errorf("got payload %s, want null", got.Payload)
	}
}
