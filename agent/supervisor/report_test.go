package supervisor

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestReportSaysOnlyWhatChanged(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``, "exit", "1", "40s")})
		pass(2 * reportPace)
		reported := func() string { return string(d.twins.Snapshot(edgeAgent).Reported) }
		for _, want := range []string{
			`"lastDesiredVersion":2`, `"lastDesiredStatus":{"code":200,"description":""}`, `"runtimeStatus":"running"`,
			`"imageHash":"sha256:x"`, `"restartCount":0`, `"systemModules":{"edgeAgent"`,
		} {
			if !strings.Contains(reported(), want) {
				t.Errorf("report lacks %s: %s", want, reported())
			}
		}
		puts := d.docs.writes()
		for range 20 {
			signal(d.s.tell)
			pass(reportPace)
		}
		if d.docs.writes() != puts {
			t.Errorf("%d writes for a report that says the same", d.docs.writes()-puts)
		}
		pass(20*time.Second - 500*time.Millisecond)
		if !strings.Contains(reported(), `"runtimeStatus":"backoff"`) && !strings.Contains(reported(), `"restartCount":1`) {
			t.Errorf("the end is not reported: %s", reported())
		}
		d.deploy(map[string]string{})
		pass(2 * reportPace)
		if !strings.Contains(reported(), `"modules":{}`) {
			t.Errorf("a removed module is still reported: %s", reported())
		}
	})
}

func TestReportTooLargeForATwinGoesWithoutItsBulk(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		modules := map[string]string{}
		for i := range 7 {
			modules[fmt.Sprintf("m%d", i)] = wanted("x", "always", `,"env":{"A":{"value":"`+strings.Repeat("v", 4090)+`"}}`, ``)
		}
		d.deploy(modules)
		pass(2 * reportPace)
		reported := string(d.twins.Snapshot(edgeAgent).Reported)
		if strings.Count(reported, `"runtimeStatus":"running"`) != 9 {
			t.Errorf("got a report of %d bytes: %.300s", len(reported), reported)
		}
	})
}
