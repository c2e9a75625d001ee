package deployment

import (
	"math"
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
		"a program":     {`{"Healthcheck":{"Test":["CMD","/bin/well","-q"],"Interval":5000000000,"Timeout":2000000000,"StartPeriod":60000000000,"Retries":2}}`, Health{Docker: true, Command: []string{"/bin/well", "-q"}, Interval: 5 * time.Second, Timeout: 2 * time.Second, Start: time.Minute, Retries: 2}, ""},
		"a shell":       {`{"healthcheck":{"test":["CMD-SHELL","true || exit 1"]}}`, Health{Command: []string{"/bin/sh", "-c", "true || exit 1"}, Docker: true}, ""},
		"none":          {`{"Healthcheck":{"Test":["NONE"]}}`, Health{NoImage: true}, ""},
		"the image's":   {`{"Healthcheck":{"Interval":5000000000,"StartInterval":2000000000}}`, Health{Docker: true, Interval: 5 * time.Second, StartInterval: 2 * time.Second}, ""},
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

func TestAnImagesCheckStandsInWhereADeploymentSaysNothing(t *testing.T) {
	t.Parallel()
	const s = time.Second
	image := &ImageHealth{Command: []string{"i"}, Interval: 7 * s, Timeout: 8 * s, Start: 9 * s, StartInterval: 2 * s, Retries: 4}
	bare := &ImageHealth{Command: []string{"i"}}
	docker := Health{Command: []string{"i"}, Docker: true, Interval: 30 * s, Timeout: 30 * s, Start: noStart, StartInterval: 5 * s, Retries: 3}
	paced := Health{Command: []string{"i"}, Docker: true, Interval: 7 * s, Timeout: 8 * s, Start: 9 * s, StartInterval: 2 * s, Retries: 4}
	for name, c := range map[string]struct {
		here  Health
		image *ImageHealth
		want  Health
	}{
		"nobody has one":               {Health{Interval: s}, nil, Health{Interval: s}},
		"Docker's zeros":               {Health{}, bare, docker},
		"what is below zero is zero":   {Health{}, &ImageHealth{Command: []string{"i"}, Interval: -1, Timeout: -1, Start: -1, StartInterval: -1, Retries: -1}, docker},
		"the image's pace":             {Health{}, image, paced},
		"the bounds of a deployment's": {Health{}, &ImageHealth{Command: []string{"i"}, Interval: 1, StartInterval: 1, Retries: math.MaxInt}, Health{Command: []string{"i"}, Docker: true, Interval: s, Timeout: 30 * s, Start: noStart, StartInterval: s, Retries: maxRetries}},
		"another pace":                 {Health{Interval: 3 * s, Retries: 1}, image, Health{Command: []string{"i"}, Docker: true, Interval: 3 * s, Timeout: 8 * s, Start: 9 * s, StartInterval: 2 * s, Retries: 1}},
		"not wanted":                   {Health{NoImage: true}, image, Health{NoImage: true}},
		"a check of its own":           {Health{TCP: "127.0.0.1:1"}, image, Health{TCP: "127.0.0.1:1"}},
		"Docker's, without a pace":     {Health{Docker: true, Command: []string{"d"}}, image, Health{Command: []string{"d"}, Docker: true, Interval: 7 * s, Timeout: 8 * s, Start: 9 * s, StartInterval: 2 * s, Retries: 4}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := c.here.With(c.image); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}
