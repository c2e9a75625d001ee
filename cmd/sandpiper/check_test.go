package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/checkup"
)

func TestCheckNamesEachAreaAndFailsWhenNoAgentRuns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	check := func(text string, args ...string) (int, string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		code := run(t.Context(), append([]string{"--run-dir", filepath.Join(dir, "run"), "check", "--config", config}, args...), strings.NewReader(""), &out, &errs)
		return code, out.String() + errs.String()
	}
	here := fmt.Sprintf("state_dir = %q\nrun_dir = %q\n", dir, dir)
	code, out := check(here)
	for _, area := range []string{"configuration", "kernel", "clock", "disk", "keys", "watchdog", "link", "agent", "network"} {
		if !strings.Contains(out, " "+area+" ") {
			t.Errorf("nothing of %s in\n%s", area, out)
		}
	}
	if code != 1 || !strings.Contains(out, "bad      agent          no agent answers at") || !strings.Contains(out, "-> start it") {
		t.Errorf("got %d, want 1 and the remedy in\n%s", code, out)
	}
	code, out = check(here, "--json")
	var list []checkup.Finding
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 1 || len(list) < 9 {
		t.Errorf("got %d, %v, %d findings", code, err, len(list))
	}
	if code, out = check("[store]\nmax_bites = 1\n"); code != 1 || !strings.Contains(out, "config.toml:2: unknown key") {
		t.Errorf("got %d, %s", code, out)
	}
	if code, out = check(here + "[device]\nhub = \"h.example.test\"\nid = \"e\"\ncertificate = \"/nowhere.pem\"\nprivate_key = \"/nowhere.key\"\n"); code != 1 || !strings.Contains(out, "bad      configuration  the device's credential: ") {
		t.Errorf("got %d, %s", code, out)
	}
}

func TestCheckSaysWhichConfigurationItReads(t *testing.T) {
	t.Parallel()
	d := startDevice(t)
	other := d.write("other.toml", fmt.Sprintf("state_dir = %q\nrun_dir = %q\n", d.path("state"), d.path("run")))
	wrong := d.write("wrong.toml", "stat = 1\n")
	own := d.path("config.toml")
	for name, c := range map[string]struct {
		args []string
		says []string
	}{
		"that of the agent": {
			[]string{"--run-dir", d.path("run"), "check"},
			[]string{"ok       configuration  read from " + own + ", as the running agent does", "ok       agent "},
		},
		"one that is named, whose run_dir leads to the agent": {
			[]string{"check", "--config", own},
			[]string{"ok       configuration  read from " + own + "\n", "ok       agent "},
		},
		"one that is not the agent's": {
			[]string{"check", "--config", other},
			[]string{"warning  configuration  read from " + other + ", but the agent at " + d.path("run") + " reads " + own, "leave out --config"},
		},
		"one that is wrong": {
			[]string{"--run-dir", d.path("run"), "check", "--config", wrong},
			[]string{"read from " + wrong, "bad      configuration  " + "configuration: " + wrong + ":1: unknown key \"stat\""},
		},
		"none that anybody names": {
			[]string{"--run-dir", d.path("nowhere"), "check"},
			[]string{"/etc/sandpiper/config.toml", "no agent answers that could read another"},
		},
	} {
		var out, errs bytes.Buffer
		run(t.Context(), c.args, strings.NewReader(""), &out, &errs)
		for _, says := range c.says {
			if !strings.Contains(out.String(), says) {
				t.Errorf("%s: got\n%s%swant %q", name, out.String(), errs.String(), says)
			}
		}
	}
}
