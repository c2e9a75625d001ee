package container_test

import (
	"sync"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox"
	"github.com/sandpiper-edge/sandpiper/sandbox/container"
	"github.com/sandpiper-edge/sandpiper/sandbox/sandboxtest"
)

// starts are the two ways a sandbox can begin.
var starts = map[string]func(*container.Runtime){
	"entry":               func(*container.Runtime) {},
	"libcontainer's init": (*container.Runtime).WithoutEntry,
}

func TestRuntimeKeepsTheContract(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for name, set := range starts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var (
				mu   sync.Mutex
				dirs = map[*testing.T]string{} // a second runtime of a test is the restarted agent's
				once sync.Once
			)
			sandboxtest.Run(t, func(t *testing.T) sandbox.Runtime {
				t.Helper()
				mu.Lock()
				defer mu.Unlock()
				dir := dirs[t]
				if dir == "" {
					dir = openDir(t)
					dirs[t] = dir
					t.Cleanup(func() { cleanStateDir(t, dir) })
				}
				r := openRuntime(t, dir)
				set(r)
				once.Do(func() { t.Log("real sandboxes: " + announce(r)) })
				return r
			})
		})
	}
}
