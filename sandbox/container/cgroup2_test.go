package container_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestOnCgroup2 runs the other tests once more where cgroup2 is all there is: in
// a mount namespace of their own. On a host whose controllers belong to version 1
// that proves the code path, the device filter and recovery, and that missing
// controllers are no failure; the limits themselves need a host or a board with
// version 2.
func TestOnCgroup2(t *testing.T) {
	const inside = "SANDPIPER_TEST_CGROUP2"
	if os.Getenv(inside) != "" {
		return // that is where we are
	}
	if r := newRuntime(t); r.Probe().Cgroup == "v2" {
		return // all of them ran there
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "private", "/bin/sh", "-c",
		`mount -t cgroup2 none /sys/fs/cgroup && exec "$0" -test.run '^Test' -test.v`, exe)
	cmd.Env = append(os.Environ(), inside+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "cgroup v2") {
		t.Errorf("on cgroup2: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "LACK OF") || strings.Contains(line, "cgroup v2") {
			t.Log(strings.TrimSpace(line))
		}
	}
}
