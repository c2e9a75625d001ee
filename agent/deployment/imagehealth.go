package deployment

import (
	"cmp"
	"time"
)

// ImageHealth is the check that an image brings (HEALTHCHECK of a Dockerfile). Zero, and what is below it, is Docker's default.
type ImageHealth struct {
	Command       []string      `json:"command"`            // run inside; exit code 0 = well
	Interval      time.Duration `json:"interval,omitempty"` // nanoseconds, as all times here
	Timeout       time.Duration `json:"timeout,omitempty"`
	Start         time.Duration `json:"start,omitempty"`
	StartInterval time.Duration `json:"startInterval,omitempty"`
	Retries       int           `json:"retries,omitempty"`
}

// Docker's defaults, in the words of HEALTHCHECK. There is no start period.
const (
	dockerInterval      = 30 * time.Second
	dockerTimeout       = 30 * time.Second
	dockerStartInterval = 5 * time.Second
	dockerRetries       = 3
	noStart             = -time.Second
)

// With is what is looked at in the end: the deployment's own checks, else the image's. The image's pace counts where Docker would
// take it and the deployment has none; it is brought within the bounds that a deployment's has.
func (h Health) With(img *ImageHealth) Health {
	var own ImageHealth
	if img != nil {
		own = *img
	}
	if !h.Checked() && !h.NoImage && len(own.Command) > 0 {
		h.Command, h.Docker = own.Command, true
	}
	if !h.Docker || !h.Checked() {
		return h
	}
	either := func(here, image, docker, least time.Duration) time.Duration {
		return min(max(cmp.Or(here, max(image, 0), docker), least), maxInterval)
	}
	h.Interval = either(h.Interval, own.Interval, dockerInterval, minInterval)
	h.Timeout = either(h.Timeout, own.Timeout, dockerTimeout, time.Millisecond)
	h.Start = either(h.Start, own.Start, noStart, noStart)
	h.StartInterval = either(h.StartInterval, own.StartInterval, dockerStartInterval, minInterval)
	h.Retries = min(cmp.Or(h.Retries, max(own.Retries, 0), dockerRetries), maxRetries)
	return h
}
