package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/control"
)

// TestInspectTellsWhatAModuleCanReallyDo: the probes run in the sandbox of a module that was held to its grants before it began.
func TestInspectTellsWhatAModuleCanReallyDo(t *testing.T) {
	t.Parallel()
	d := startDevice(t, "[modules]\nstrict = true\n")
	image := d.bundle("m", `while :; do sleep 1; done`)
	want := withSettings(t, manifest(map[string]string{}, map[string]string{"m": image}), "m", "always", map[string]any{"data": 1 << 20})
	if _, err := d.client().Apply(t.Context(), []byte(want)); err != nil {
		t.Fatal(err)
	}
	d.untilRunning("m")
	out, errs, code := d.run("", "module", "inspect", "m", "--effective", "--json")
	if code != 0 {
		t.Fatalf("got code %d, %s%s", code, out, errs)
	}
	var doc control.Effective
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Findings) < 40 || len(doc.Drift) != 0 || doc.Module != "m" {
		t.Errorf("got %d findings and drift %v of %s, want at least 40 and none", len(doc.Findings), doc.Drift, doc.Module)
	}
	for _, f := range doc.Findings {
		if f.Probe == "write to other mounts than its own" && (!f.Allowed || f.Detail != "/data") {
			t.Errorf("got %+v, want /data: the probes do not see what the module sees", f)
		}
	}
	out, _, code = d.run("", "module", "inspect", "m", "--effective")
	if code != 0 || !strings.HasSuffix(out, "as granted\n") || !strings.Contains(out, "refused  EPERM") {
		t.Errorf("got code %d and\n%s", code, out)
	}
	if _, errs, code = d.run("", "module", "inspect", "m"); code != 2 {
		t.Errorf("without --effective: got code %d, %s, want 2", code, errs)
	}
	if _, errs, code = d.run("", "module", "inspect", "nobody", "--effective"); code != 1 || !strings.Contains(errs, "nobody") {
		t.Errorf("of a module that is not there: got code %d, %s, want 1", code, errs)
	}
}
