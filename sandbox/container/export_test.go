package container

import "time"

// WithoutOverlay makes r behave as on a kernel without overlayfs.
func (r *Runtime) WithoutOverlay() { r.features.Overlay = false }

// RestartDelays are the warden's pauses when the agent dies n times, each time
// after living that long.
func RestartDelays(lived time.Duration, n int) []time.Duration {
	var all []time.Duration
	w := &warden{}
	for range n {
		w.born = time.Now().Add(-lived)
		all = append(all, w.delay())
	}
	return all
}

// WithoutEntry makes r behave as on a kernel before 5.12.
func (r *Runtime) WithoutEntry() { r.quick = false }
