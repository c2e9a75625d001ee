package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// The verbs of the store against a running agent, as an operator types them.
func TestTheVerbsOfTheStoreOnARunningDevice(t *testing.T) {
	t.Parallel()
	d := startDevice(t)
	type answer struct {
		code int
		text string
	}
	typed := func(args ...string) answer {
		var out, errs bytes.Buffer
		code := run(t.Context(), append([]string{"--run-dir", d.path("run")}, args...), strings.NewReader(""), &out, &errs)
		return answer{code, out.String() + errs.String()}
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"check store", 0, "store: ok"},
		{"check store --json", 0, `"health": "ok"`},
		{"status", 0, "flash: "},
		{"metrics", 0, "sandpiper_store_records_total "},
		{"queue list", 0, "no queues"},
		{"queue peek upstream/none", 1, `queue "upstream/none" is not there`},
		{"queue peek upstream/none -n 0", 2, "want 1 to 1000"},
		{"queue purge upstream/none", 2, "--yes"},
		{"queue purge upstream/none --yes", 1, "is not there"},
		{"queue export " + d.path("stick.spx"), 1, "belongs to no hub"},
		{"queue import " + d.path("config.toml"), 1, "receipt"},
		{"queue import " + d.path("absent"), 1, "no such file"},
	} {
		if got := typed(strings.Fields(c.args)...); got.code != c.code || !strings.Contains(got.text, c.want) {
			t.Errorf("%s: got %d, %q, want %d with %q", c.args, got.code, got.text, c.code, c.want)
		}
	}
	left, err := os.ReadDir(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		if strings.Contains(e.Name(), "stick") || strings.HasPrefix(e.Name(), ".export") {
			t.Errorf("a failed export left %s behind", e.Name())
		}
	}
}
