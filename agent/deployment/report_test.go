package deployment

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
)

var up = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

func report(t testing.TB) AgentReport {
	t.Helper()
	lives := map[string]Life{"filter": {
		Status: RuntimeRunning, Description: "running", ImageHash: "sha256:00", Restarts: 1,
		Started: up.Add(90 * time.Second).In(time.FixedZone("x", 3600)), Exited: up.Add(time.Minute), Restarted: up.Add(90 * time.Second),
	}}
	r := NewAgentReport(Build{"1.0.0", "7", "abc"}, Platform{"linux", "x86_64", "1.0.0"}, parseAgent(t, azure), lives, up)
	r.LastDesiredVersion, r.LastDesiredStatus = 4, StatusOf(nil)
	return r
}

func indented(t testing.TB, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", " "); err != nil {
		t.Fatal(err)
	}
	return out.String() + "\n"
}

func TestAgentReport(t *testing.T) {
	t.Parallel()
	r := report(t)
	golden(t, "agentreport.golden", indented(t, r))
	if strings.Contains(indented(t, r), "pa55") {
		t.Error("the report holds a registry's password")
	}
	golden(t, "emptyreport.golden", indented(t, NewAgentReport(Build{}, Platform{}, Agent{}, nil, up)))
}

func TestLongOptionsAreReportedInPieces(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("ä", 1030)
	got := reportSettings("x", "", text)
	if joined := got["createOptions"] + got["createOptions01"] + got["createOptions02"]; joined != text || len(got) != 5 {
		t.Errorf("got %d members, want the text in three pieces", len(got))
	}
}

func TestDifferenceSaysOnlyWhatChanged(t *testing.T) {
	t.Parallel()
	r := report(t)
	apply := func(section json.RawMessage, r AgentReport, want string) json.RawMessage {
		t.Helper()
		patch, changed, err := Difference(section, r)
		if err != nil || changed != (want != "{}") || string(patch) != want {
			t.Errorf("got %s, %v, %v, want %s", patch, changed, err, want)
		}
		doc, err := twin.ParsePatch(section)
		if err != nil {
			t.Fatal(err)
		}
		more, err := twin.ParsePatch(patch)
		if err != nil {
			t.Fatal(err)
		}
		return json.RawMessage(printed(twin.Merge(doc, more)))
	}
	section, changed, err := Difference([]byte(`{"other":{"kept":1}}`), r)
	if err != nil || !changed {
		t.Fatalf("first report: %v", err)
	}
	section = json.RawMessage(`{"other":{"kept":1},` + string(section[1:]))
	section = apply(section, r, "{}")
	m := r.Modules["filter"]
	m.RuntimeStatus, m.ExitCode = RuntimeBackoff, 3
	r.Modules["filter"] = m
	section = apply(section, r, `{"modules":{"filter":{"exitCode":3,"runtimeStatus":"backoff"}}}`)
	delete(r.Modules, "filter")
	r.LastDesiredStatus = StatusOf(errors.New("disk full"))
	section = apply(section, r, `{"lastDesiredStatus":{"code":500,"description":"disk full"},"modules":{"filter":null}}`)
	if !strings.Contains(string(section), `"other":{"kept":1}`) {
		t.Errorf("a member of someone else is gone: %s", section)
	}
}

func TestStatusOf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		want DesiredStatus
	}{
		"applied":          {nil, DesiredStatus{200, ""}},
		"refused":          {&Error{Path: "a", Why: "b", Want: "c", Code: 412}, DesiredStatus{412, "a: b; want c"}},
		"refused, wrapped": {fmt.Errorf("deploy: %w", &Error{Path: "a", Why: "b", Code: 400}), DesiredStatus{400, "deploy: a: b"}},
		"failed":           {errors.New("x"), DesiredStatus{500, "x"}},
		"failed at length": {errors.New(strings.Repeat("x", 5000)), DesiredStatus{500, strings.Repeat("x", 1000) + "…"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := StatusOf(c.err); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestHubReport(t *testing.T) {
	t.Parallel()
	r := NewHubReport(Build{"1.0.0", "", ""})
	r.LastDesiredVersion, r.LastDesiredStatus = 3, StatusOf(nil)
	r.Clients[ClientKey(iothub.ID{Device: "edge1", Module: "filter"})] = NewClient(true, up)
	r.Clients[ClientKey(iothub.ID{Device: "ed.ge1", Module: "$edgeAgent"})] = NewClient(false, up)
	golden(t, "hubreport.golden", indented(t, r))
	patch, _, err := Difference([]byte(`{}`), r)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := twin.ParsePatch(patch)
	if err != nil {
		t.Fatal(err)
	}
	if err := twin.Validate(twin.Reported, doc); err != nil {
		t.Errorf("the report is no legal twin: %v", err)
	}
}
