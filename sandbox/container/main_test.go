package container_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/container"
)

// roles are what the test binary can be besides a test: programs in sandboxes,
// and the agent and warden processes that are killed.
var roles = map[string]func(args []string) int{
	"as-probe":  probeMain,
	"as-agent":  agentMain,
	"as-warden": wardenMain,
}

func TestMain(m *testing.M) {
	container.Init()
	if len(os.Args) > 1 {
		if role := roles[os.Args[1]]; role != nil {
			os.Exit(role(os.Args[2:])) //nolint:forbidigo // a main of its own
		}
	}
	os.Exit(m.Run()) //nolint:forbidigo // as every TestMain
}

// needRoot skips where no sandbox can be made, and says so.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED FOR LACK OF ROOT: no sandbox was made and nothing of isolation was tested; run the tests as root")
	}
}

// newRuntime makes a runtime with a state directory of the test's own, and fails
// the test if it leaves anything behind.
func newRuntime(t *testing.T) *container.Runtime {
	t.Helper()
	return openRuntime(t, newStateDir(t))
}

func newStateDir(t *testing.T) string {
	t.Helper()
	needRoot(t)
	dir := openDir(t)
	t.Cleanup(func() { cleanStateDir(t, dir) })
	return dir
}

func openRuntime(t *testing.T, dir string) *container.Runtime {
	t.Helper()
	r, err := container.New(container.Config{StateDir: dir, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func announce(r *container.Runtime) string {
	f := r.Probe()
	return fmt.Sprintf("cgroup %s, seccomp %v, degraded %q", f.Cgroup, f.Seccomp, f.Degraded)
}

func newAt(dir string) (*container.Runtime, error) {
	return container.New(container.Config{StateDir: dir})
}
