package container

import "time"

// WithoutOverlay makes r behave as on a kernel without overlayfs.
func (r *Runtime) WithoutOverlay() { r.features.Overlay = false }

// RecordPatience is how long a lost exit is looked for.
const RecordPatience = recordPatience

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

// Passable is what of a message to the service manager is passed on.
var Passable = passable
