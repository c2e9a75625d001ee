package deployment

import (
	"reflect"
	"testing"
	"time"
)

func TestDockersHealthCheckIsRunInside(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options string
		want    Health
		refused string // how the refusal goes on after createOptions.Healthcheck
	}{
		"a program":     {`{"Healthcheck":{"Test":["CMD","/bin/well","-q"],"Interval":5000000000,"Timeout":2000000000,"StartPeriod":60000000000,"Retries":2}}`, Health{Command: []string{"/bin/well", "-q"}, Interval: 5 * time.Second, Timeout: 2 * time.Second, Start: time.Minute, Retries: 2}, ""},
		"a shell":       {`{"healthcheck":{"test":["CMD-SHELL","true || exit 1"]}}`, Health{Command: []string{"/bin/sh", "-c", "true || exit 1"}, Timeout: 30 * time.Second}, ""},
		"none":          {`{"Healthcheck":{"Test":["NONE"]}}`, Health{}, ""},
		"the image's":   {`{"Healthcheck":{"Interval":5000000000}}`, Health{}, ""},
		"another kind":  {`{"Healthcheck":{"Test":["curl","x"]}}`, Health{}, `.Test: "curl x"; want ["CMD", "program", ...], ["CMD-SHELL", "command"] or ["NONE"]`},
		"no program":    {`{"Healthcheck":{"Test":["CMD"]}}`, Health{}, `.Test: "CMD"; want ["CMD", "program", ...], ["CMD-SHELL", "command"] or ["NONE"]`},
		"all the time":  {`{"Healthcheck":{"Test":["CMD","x"],"Interval":1000000}}`, Health{}, `.Interval: 1000000; want a whole number from 1000000000 to 86400000000000`},
		"what is new":   {`{"Healthcheck":{"Test":["CMD","x"],"Mood":1}}`, Health{}, `.Mood: no member of a health check that is known here; want it left out`},
		"a broken list": {`{"Healthcheck":{"Test":[1]}}`, Health{}, `.Test[0]: number 1; want a string`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, _, err := withOptions(c.options)
			want := c.refused
			if want != "" {
				want = "modules.m.settings.createOptions.Healthcheck" + want
			}
			if got := refusal(t, err); got != want {
				t.Fatalf("got  %s\nwant %s", got, want)
			}
			if err == nil && !reflect.DeepEqual(m.Settings.Health, c.want) {
				t.Errorf("got %+v, want %+v", m.Settings.Health, c.want)
			}
		})
	}
}
