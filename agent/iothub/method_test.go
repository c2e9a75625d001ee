package iothub

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestMethodRequests(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		body string
		want MethodRequest
		bad  string // part of the error
	}{
		"all members": {
			body: `{"methodName":"foo","payload":{"a":[1]},"responseTimeoutInSeconds":10,"connectTimeoutInSeconds":2}`,
			want: MethodRequest{Name: "foo", Payload: json.RawMessage(`{"a":[1]}`), ResponseTimeout: 10 * time.Second, ConnectTimeout: 2 * time.Second},
		},
		"only a name":         {body: `{"methodName":"foo"}`, want: MethodRequest{Name: "foo", Payload: null, ResponseTimeout: 30 * time.Second}},
		"everything null":     {body: `{"methodName":"foo","payload":null,"responseTimeoutInSeconds":null,"connectTimeoutInSeconds":null}`, want: MethodRequest{Name: "foo", Payload: null, ResponseTimeout: 30 * time.Second}},
		"unknown members":     {body: `{"methodName":"foo","x":{}}`, want: MethodRequest{Name: "foo", Payload: null, ResponseTimeout: 30 * time.Second}},
		"the extremes":        {body: `{"methodName":"foo","payload":0,"responseTimeoutInSeconds":300,"connectTimeoutInSeconds":300}`, want: MethodRequest{Name: "foo", Payload: json.RawMessage("0"), ResponseTimeout: 300 * time.Second, ConnectTimeout: 300 * time.Second}},
		"100 wide characters": {body: `{"methodName":"` + strings.Repeat("ä", 100) + `"}`, want: MethodRequest{Name: strings.Repeat("ä", 100), Payload: null, ResponseTimeout: 30 * time.Second}},

		"101 characters":            {body: `{"methodName":"` + strings.Repeat("x", 101) + `"}`, bad: "100 characters"},
		"no name":                   {body: `{}`, bad: "methodName"},
		"an empty name":             {body: `{"methodName":""}`, bad: "methodName"},
		"a name that is a number":   {body: `{"methodName":1}`, bad: "methodName"},
		"too short a time":          {body: `{"methodName":"x","responseTimeoutInSeconds":4}`, bad: "responseTimeoutInSeconds is 4"},
		"too long a time":           {body: `{"methodName":"x","responseTimeoutInSeconds":301}`, bad: "responseTimeoutInSeconds is 301"},
		"negative connecting":       {body: `{"methodName":"x","connectTimeoutInSeconds":-1}`, bad: "connectTimeoutInSeconds is -1"},
		"connecting too long":       {body: `{"methodName":"x","connectTimeoutInSeconds":301}`, bad: "connectTimeoutInSeconds is 301"},
		"a time that overflows":     {body: `{"methodName":"x","responseTimeoutInSeconds":9223372036854775807}`, bad: "responseTimeoutInSeconds"},
		"payload beyond 128 KiB":    {body: `{"methodName":"x","payload":"` + strings.Repeat("x", MaxMethodPayload-1) + `"}`, bad: "128 KiB"},
		"a body beyond all measure": {body: `{"methodName":"x","payload":"` + strings.Repeat("x", MaxMethodRequest) + `"}`, bad: "128 KiB"},
		"not JSON":                  {body: `foo`, bad: "invalid"},
		"not an object":             {body: `null`, bad: "methodName"},
		"empty":                     {body: ``, bad: "JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseMethodRequest([]byte(tc.body))
			if tc.bad != "" {
				if err == nil || !strings.Contains(err.Error(), tc.bad) || !reflect.DeepEqual(got, MethodRequest{}) {
					t.Fatalf("got %.200q, error %v, want an error that says %q", got.Name, err, tc.bad)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Fatalf("got %+v, error %v, want %+v", got, err, tc.want)
			}
		})
	}
}

func TestMethodRequestsPrintWholeSeconds(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]MethodRequest{
		`{"methodName":"x","payload":null}`: {Name: "x"},
		`{"methodName":"x","payload":{"a":1},"responseTimeoutInSeconds":7,"connectTimeoutInSeconds":1}`: {
			Name: "x", Payload: json.RawMessage(`{"a":1}`), ResponseTimeout: 7900 * time.Millisecond, ConnectTimeout: time.Second,
		},
	} {
		got, err := json.Marshal(r)
		if err != nil || string(got) != want {
			t.Errorf("got %s, error %v, want %s", got, err, want)
		}
		var again MethodRequest
		if err := json.Unmarshal(got, &again); err != nil || again.Name != "x" {
			t.Errorf("%s does not read back: %v", got, err)
		}
	}
	for name, r := range map[string]MethodRequest{
		"a name that is not UTF-8": {Name: "\xff"},
		"a short response time":    {Name: "x", ResponseTimeout: time.Second},
		"a negative connect time":  {Name: "x", ConnectTimeout: -1},
	} {
		if r.Validate() == nil {
			t.Errorf("%s is valid", name)
		}
	}
}

func TestMethodResultsAlwaysHaveAPayload(t *testing.T) {
	t.Parallel()
	got, err := json.Marshal(MethodResult{Status: 200})
	if want := `{"status":200,"payload":null}`; err != nil || string(got) != want {
		t.Errorf("got %s, error %v, want %s", got, err, want)
	}
}

func FuzzMethodRequest(f *testing.F) {
	for _, s := range []string{
		`{"methodName":"foo","payload":{"a":[1]},"responseTimeoutInSeconds":10,"connectTimeoutInSeconds":2}`,
		`{"methodName":"ä","payload": null }`, `{"METHODNAME":"x","payload":1e400}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := ParseMethodRequest(body)
		if err != nil {
			if !reflect.DeepEqual(r, MethodRequest{}) {
				t.Fatalf("got %+v beside error %v", r, err)
			}
			return
		}
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > MaxMethodPayload {
			return // printing escapes characters and may lengthen a text that was just short enough
		}
		again, err := ParseMethodRequest(text)
		if err != nil || again.Name != r.Name || again.ResponseTimeout != r.ResponseTimeout || again.ConnectTimeout != r.ConnectTimeout {
			t.Fatalf("%q parses to %+v, prints %q, parses to %+v, error %v", body, r, text, again, err)
		}
	})
}
