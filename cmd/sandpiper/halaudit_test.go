package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/control"
)

func TestWhatAModuleIsRefusedOfThePinsIsToldWhereItCannotWrite(t *testing.T) {
	t.Parallel()
	d := startDevice(t, tank)
	curious := d.bundle("curious", `"$SANDPIPER" hal write door 1; "$SANDPIPER" hal read heater; "$SANDPIPER" hal log; echo asked; while :; do sleep 0.2; done`)
	doc := map[string]any{}
	if err := json.Unmarshal([]byte(manifest(nil, map[string]string{"curious": curious})), &doc); err != nil {
		t.Fatal(err)
	}
	modules := doc["modulesContent"].(map[string]any)["$edgeAgent"].(map[string]any)["properties.desired"].(map[string]any)["modules"].(map[string]any)
	modules["curious"].(map[string]any)["settings"].(map[string]any)["hal"] = []any{"door"}
	raw, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.client().Apply(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	d.until("it asks", func() (bool, string) { got := d.logs("curious"); return strings.Contains(got, "asked"), got })
	if got := d.logs("curious"); !strings.Contains(got, "denied") || !strings.Contains(got, "no such name is granted") || !strings.Contains(got, "only the operator") {
		t.Errorf("the module: got\n%s\nwant both refusals, and that the record is the operator's", got)
	}
	d.until("the agent reports it", func() (bool, string) {
		twin, err := d.client().Twin(t.Context(), "$edgeAgent")
		raw, _ := json.Marshal(twin) // it came as JSON
		text := string(raw)
		return err == nil && strings.Contains(text, `"hal":{"denied":2,"last":"`), text
	})
	d.until("and status names it", func() (bool, string) {
		st, err := d.client().Status(t.Context())
		if err != nil {
			return false, err.Error()
		}
		text := strings.Join(st.Problems, "\n")
		return strings.Contains(text, "module curious asks for pins, buses or sensors beyond what it is granted, and is refused (2 times)"), text
	})
	var metrics bytes.Buffer
	if code := run(t.Context(), []string{"--run-dir", d.path("run"), "metrics"}, strings.NewReader(""), &metrics, &metrics); code != 0 || !strings.Contains(metrics.String(), `sandpiper_hal_denied_total{module="curious",resource="door"} 1`) {
		t.Errorf("metrics: got code %d\n%s", code, metrics.String())
	}
	if got := d.hal("log"); strings.Count(got, "denied: ") != 2 || !strings.Contains(got, "heater") {
		t.Errorf("log: got\n%s\nwant both refusals", got)
	}
}

func TestAdviceOnTheBoardIsAFewLinesOfStatus(t *testing.T) {
	t.Parallel()
	for n, want := range []string{"", "advice: a\n", "advice: a\nadvice: b\n", "advice: a\nadvice: b\nadvice: c\n", "advice: a\nadvice: b\nadvice: c\nadvice: and 1 more, which `sandpiper check` lists\n"} {
		var out bytes.Buffer
		if err := printStatus(&out, control.Status{Advice: []string{"a", "b", "c", "d"}[:n]}, time.Now()); err != nil {
			t.Fatal(err)
		}
		got := ""
		for line := range strings.Lines(out.String()) {
			if strings.HasPrefix(line, "advice: ") {
				got += line
			}
		}
		if got != want {
			t.Errorf("%d lines of advice: got\n%s\nwant\n%s", n, got, want)
		}
	}
}
