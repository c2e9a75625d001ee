package container_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRecoverClearsWhatADeadAgentLeft(t *testing.T) {
	t.Parallel()
	dir := newStateDir(t)
	r := openRuntime(t, dir)
	// One instance, so that the groups are there, and parts of others: a half-made
	// state, a state of nonsense, a mounted root, a group with a live process.
	s := spec(t, "whole")
	s.Args = []string{"/bin/sleep", "1000"}
	i, err := r.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Start(); err != nil {
		t.Fatal(err)
	}
	merged := filepath.Join(dir, "roots", "mounted", "merged")
	for _, d := range []string{filepath.Join(dir, "instances", "half"), filepath.Join(dir, "instances", "nonsense"), merged} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "instances", "nonsense", "state.json"), []byte("{]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // one on top of the other
		if err := unix.Mount("tmpfs", merged, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	stray := exec.Command("/bin/sleep", "1000")
	if err := stray.Start(); err != nil {
		t.Fatal(err)
	}
	for _, g := range groups(dir) {
		group := filepath.Join(g, "stray")
		if err := os.Mkdir(group, 0o755); err != nil {
			t.Fatal(err)
		}
		if filepath.Base(filepath.Dir(g)) == "cpuset" {
			continue // takes no process before it has processors
		}
		if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(statusPid(stray.Process.Pid)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := openRuntime(t, dir).Recover(t.Context())
	if err != nil || len(found) != 1 || found[0].ID() != "whole" {
		t.Fatalf("got %v, %v, want the one whole instance", found, err)
	}
	if err := stray.Wait(); err == nil {
		t.Error("the stray process was not killed")
	}
	if found[0].Pid() == 0 {
		t.Error("the whole instance was killed")
	}
	if err := found[0].Destroy(); err != nil {
		t.Error(err)
	}
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestStateDirMustBeReachable(t *testing.T) {
	t.Parallel()
	needRoot(t)
	hidden := filepath.Join(openDir(t), "hidden")
	if err := os.Mkdir(hidden, 0o700); err != nil {
		t.Fatal(err)
	}
	want := "sandboxes: modules cannot reach " + hidden + "/run, because " + hidden + " is not searchable by others; chmod o+x it or choose another run_dir"
	if _, err := newAt(filepath.Join(hidden, "run")); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
