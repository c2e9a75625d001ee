package container

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// groupsOf are the groups of a process, by hierarchy.
func groupsOf(t *testing.T, pid int) map[string]string {
	t.Helper()
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	groups := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 {
			groups[f[1]] = f[2]
		}
	}
	return groups
}

func TestTheFirstProcessIsInItsGroupInEveryHierarchy(t *testing.T) {
	t.Parallel()
	r := groupRuntime(t)
	i, err := r.Create(t.Context(), sandbox.Spec{ID: "member", Args: []string{"/bin/true"}, IDBase: 1 << 30, Root: sandbox.Root{Kind: sandbox.HostView, Image: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := i.Destroy(); err != nil {
			t.Error(err)
		}
	}()
	want := r.cgroupOf("member")
	have := 0
	for _, h := range hierarchies() {
		if _, err := os.Stat(h + want); err != nil {
			t.Errorf("hierarchy %s: %v", h, err)
			continue
		}
		have++
	}
	in := 0
	for _, group := range groupsOf(t, i.Pid()) { // of all hierarchies, the ones that are not mounted here too
		if group == want {
			in++
		}
	}
	if in != have || in == 0 {
		t.Errorf("the process is in %d of %d groups: %v", in, have, groupsOf(t, i.Pid()))
	}
}

func TestAProcessThatWasNotBornInItsGroupIsMovedThere(t *testing.T) {
	t.Parallel()
	r := groupRuntime(t)
	wanted := r.cgroup(sandbox.Spec{ID: "moved"}, grants{})
	m, err := prepare(wanted)
	if err != nil {
		t.Fatal(err)
	}
	if m.birth == nil {
		_ = m.leave()
		t.Skip("SKIPPED FOR LACK OF CGROUP VERSION 2: no process was moved")
	}
	m.furnish(wanted.Resources, r.cfg.Logger)
	defer m.close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = m.birth.Close()
	m.birth = nil
	if err := m.move(cmd.Process.Pid); err != nil || m.err != nil {
		t.Error(err, m.err)
	}
	if got := groupsOf(t, cmd.Process.Pid)[""]; got != wanted.Path {
		t.Errorf("got %s, want %s", got, wanted.Path)
	}
	cancel()
	_ = cmd.Wait() // killed
	if err := m.leave(); err != nil {
		t.Error(err)
	}
	r.forget("moved")
}

func groupRuntime(t *testing.T) *Runtime {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED FOR LACK OF ROOT: no group was made")
	}
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // strangers must reach it
		t.Fatal(err)
	}
	r, err := New(Config{StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if r.features.Cgroup == "" {
		t.Skip("SKIPPED FOR LACK OF CGROUPS: no group was made")
	}
	return r
}

func TestEmptyGroupsOfDeadRunsAreRemoved(t *testing.T) {
	t.Parallel()
	r := groupRuntime(t)
	hierarchy := hierarchies()[0]
	name := func(what string) string {
		return filepath.Join(hierarchy, (Config{StateDir: filepath.Join(r.cfg.StateDir, what)}).withDefaults().Cgroup)
	}
	dead, used, own := name("dead"), name("used"), filepath.Join(hierarchy, r.cfg.Cgroup)
	for _, dir := range []string{dead, used, filepath.Join(used, "module"), own} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.Remove(dir) }() // the deepest first
	}
	there := func() string {
		var names []string
		for what, dir := range map[string]string{"dead": dead, "used": used, "own": own} {
			if _, err := os.Stat(dir); err == nil {
				names = append(names, what)
			}
		}
		slices.Sort(names)
		return strings.Join(names, " ")
	}
	removeDead(hierarchy, r.cfg.Cgroup, time.Now().Add(-time.Minute))
	if got := there(); got != "dead own used" {
		t.Errorf("while they are young: got %s, want all three", got)
	}
	removeDead(hierarchy, r.cfg.Cgroup, time.Now().Add(time.Minute))
	if got := there(); got != "own used" {
		t.Errorf("got %s, want own and used", got)
	}
	if found, err := r.Recover(t.Context()); err != nil || len(found) != 0 || there() != "used" {
		t.Errorf("after Recover without instances: got %s, %v, %v, want used", there(), found, err)
	}
}
