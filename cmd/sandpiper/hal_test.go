package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// tank is a simulated tank: a level sensor, a relay for the pump that a door contact follows by a wire, and a door.
const tank = `[hal]
backend = "sim"
[[hal.sensor]]
name = "level"
source = {iio = "ads1115", attr = "voltage0"}
unit = "%"
range = [0, 100]
allow = ["plant"]
[[hal.line]]
name = "pump"
chip = "pinctrl-bcm2711"
line = "GPIO17"
direction = "out"
safe = 0
max_rate = "100/s"
allow = ["valve"]
[[hal.line]]
name = "heater"
chip = "pinctrl-bcm2711"
line = "GPIO22"
direction = "out"
safe = 0
allow = ["plant"]
[[hal.line]]
name = "door"
chip = "pinctrl-bcm2711"
line = "GPIO27"
direction = "in"
allow = ["*"]
`

// hal runs a verb of hal as an operator does.
func (d *device) hal(args ...string) string {
	d.t.Helper()
	var out, errs bytes.Buffer
	if code := run(d.t.Context(), append([]string{"--run-dir", d.path("run"), "hal"}, args...), strings.NewReader(""), &out, &errs); code != 0 {
		return "error: " + errs.String()
	}
	return out.String()
}

func TestATankIsReadAndDrivenWithoutCodeAndItsPumpIsSafeWhenAModuleIsKilled(t *testing.T) {
	t.Parallel()
	d := startDevice(t, tank)
	valve := d.bundle("valve", `"$SANDPIPER" hal write pump 1 --for 1h && echo opened; while :; do sleep 0.2; done`)
	sink := d.bundle("sink", `exec "$SANDPIPER" receive`)
	doc := map[string]any{}
	if err := json.Unmarshal([]byte(manifest(map[string]string{"readings": `FROM /messages/modules/plant/* INTO BrokeredEndpoint("/modules/sink/inputs/in")`}, map[string]string{"valve": valve, "sink": sink})), &doc); err != nil {
		t.Fatal(err)
	}
	content := doc["modulesContent"].(map[string]any)
	modules := content["$edgeAgent"].(map[string]any)["properties.desired"].(map[string]any)["modules"].(map[string]any)
	modules["valve"].(map[string]any)["settings"].(map[string]any)["hal"] = []any{"pump:rw"}
	modules["plant"] = map[string]any{"type": "hal", "status": "running", "restartPolicy": "always", "settings": map[string]any{
		"hal": []any{"level", "door", "heater:rw"}, "outputs": true, "methods": true,
		"publish": []any{map[string]any{"read": []any{"level"}, "every": "100ms", "deadband": 0.5, "output": "climate"}, map[string]any{"watch": "door", "output": "events"}},
	}}
	content["plant"] = map[string]any{"properties.desired": map[string]any{"outputs": map[string]any{"heater": 1, "nothing": 1}}}
	raw, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.client().Apply(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	d.until("the shell module drives the pump", func() (bool, string) { got := d.hal("read", "pump"); return got == "1\n", got })
	d.until("desired properties drive the heater", func() (bool, string) { got := d.hal("read", "heater"); return got == "1\n", got })
	d.until("and it is acknowledged, with what is wrong", func() (bool, string) {
		twin, err := d.client().Twin(t.Context(), "plant")
		raw, _ := json.Marshal(twin) // it came as JSON
		text := string(raw)
		return err == nil && strings.Contains(text, `"heater":{"status":200`) && strings.Contains(text, `"nothing":{"reason":`), text
	})
	if got := d.hal("sim", "set", "level", "61.25"); got != "" {
		t.Errorf("sim set: %s", got)
	}
	if got := d.hal("sim", "set", "door", "1"); got != "" {
		t.Errorf("sim set: %s", got)
	}
	d.until("readings and edges arrive by their routes", func() (bool, string) {
		log := d.logs("sink")
		return strings.Contains(log, `"n":"level","u":"%","v":61.25`) && strings.Contains(log, `"n":"door","v":1`), log
	})
	if got := d.hal("leases"); !strings.Contains(got, "pump") || !strings.Contains(got, "valve") {
		t.Errorf("leases: got\n%s", got)
	}
	for verb, want := range map[string]string{
		"read nothing":                      "sandpiper: nothing: unknown: the device's configuration has no such name; known are [door heater level pump]",
		"sim set nothing 1":                 "sandpiper: nothing: unknown: ",
		"sim set pump 1":                    "sandpiper: pump: denied: it is an output or a bus",
		"sim set door x":                    `value "x": want a number`,
		"sim fail door bogus":               "want nack=3, stuck=2s, gone or none",
		"write pump 0":                      "sandpiper: pump: busy: module valve drives it",
		"write door 1":                      "sandpiper: door: denied: ",
		"write heater NaN":                  `value "NaN": want a number`,
		"sim set level Inf":                 `value "Inf": want a number`,
		"sim fail door nack=-1":             "want nack=3",
		"read " + strings.Repeat("n", 4096): `of 4096 characters is no name`,
	} {
		if got := d.hal(strings.Fields(verb)...); !strings.Contains(got, want) {
			t.Errorf("hal %s: got %s, want %q", verb, got, want)
		}
	}
	if got := d.hal("read", ""); !strings.Contains(got, "is no name") {
		t.Errorf("read of nothing: got %s", got)
	}
	for line, want := range map[string]string{"read ": "pump", "record door ": "level", "sim fail door ": "stuck="} {
		words := strings.Split("--run-dir "+d.path("run")+" __complete hal "+line, " ")
		var out, errs bytes.Buffer
		if code := run(t.Context(), words, strings.NewReader(""), &out, &errs); code != 0 || !slices.Contains(strings.Fields(out.String()), want) {
			t.Errorf("hal %s<TAB>: got %d %q, want %s among it", line, code, out.String(), want)
		}
	}
	if got := d.hal("log"); !strings.Contains(got, "write 1") {
		t.Errorf("log: got\n%s\nwant the value that was written", got)
	}
	if got := d.hal("sim", "fail", "door", "none", "--json"); !strings.Contains(got, `"name": "door"`) {
		t.Errorf("sim --json: got %s", got)
	}
	if got := d.hal("write", "pump", "0"); !strings.Contains(got, "busy") {
		t.Errorf("the operator writes what a module drives: got %s, want busy", got)
	}
	if got := d.hal("list", "--json"); !strings.Contains(got, `"name": "level"`) || !strings.Contains(got, `"rate": 100`) {
		t.Errorf("list: got %s", got)
	}

	st, err := d.client().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range st.Modules {
		if m.Name == "valve" {
			if err := syscall.Kill(m.Pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.until("the pump is made safe", func() (bool, string) { got := d.hal("log"); return strings.Contains(got, "module ended: safe"), got })

	if err := syscall.Kill(st.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.until("the next agent drives the heater again, from the stored twin", func() (bool, string) {
		now, err := d.client().Status(t.Context())
		got := d.hal("read", "heater")
		return err == nil && now.Pid != st.Pid && got == "1\n", fmt.Sprint(err, got)
	})
}
