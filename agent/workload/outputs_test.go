package workload

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/agent/route"
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

func TestTheProducerIsToldWhatItsMessageWasGiven(t *testing.T) {
	t.Parallel()
	for want, promise := range map[string]route.Promise{
		"none": {}, "strict": {Sinks: 2}, "relaxed(5s)": {Sinks: 1, Durability: route.Durability{Window: 5 * time.Second}},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			b := serve(t, nil)
			b.broker.promise = promise
			for kind, body := range map[string]string{typeJSON: "{}", typeNDJSON: "1\n2"} {
				req, err := http.NewRequestWithContext(t.Context(), "POST", "http://module/v1/messages/outputs/o", strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Content-Type", kind)
				res, err := b.client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if got := res.Header.Get("Sandpiper-Durability"); res.StatusCode != 204 || got != want {
					t.Errorf("%s: got %d, %q, want 204, %q", kind, res.StatusCode, got, want)
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
