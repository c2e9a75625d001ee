package container_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// testLogger shows what the runtime logs as part of the test.
func testLogger(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// cleanStateDir removes a runtime's directory and fails the test for each mount,
// cgroup and process that it left.
func cleanStateDir(t *testing.T, dir string) {
	t.Helper()
	for _, l := range leftovers(t, dir) {
		t.Errorf("left behind: %s", l)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

// leftovers lists mounts, cgroups and directories of instances below dir.
func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir+"/") {
			found = append(found, "mount "+strings.TrimSpace(line))
		}
	}
	for _, g := range groups(dir) {
		found = append(found, "cgroup "+g)
	}
	for _, sub := range []string{"instances", "roots", "nodes"} {
		entries, _ := os.ReadDir(filepath.Join(dir, sub))
		for _, e := range entries {
			found = append(found, "directory "+filepath.Join(dir, sub, e.Name()))
		}
	}
	return found
}

// groups are the runtime's own groups in every hierarchy.
func groups(dir string) []string {
	name := "sandpiper-" + fmt.Sprintf("%08x", fnv32a(dir))
	found, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
	if g := "/sys/fs/cgroup/" + name; exists(g) {
		found = append(found, g)
	}
	return found
}

func fnv32a(s string) uint32 {
	h := uint32(2166136261)
	for _, b := range []byte(s) {
		h = (h ^ uint32(b)) * 16777619
	}
	return h
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
