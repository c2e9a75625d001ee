package container_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
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

// TestWhatCannotBeClearedAwayStopsNobody: an agent that ended for it would be gone until somebody came.
func TestWhatCannotBeClearedAwayStopsNobody(t *testing.T) {
	t.Parallel()
	dir := newStateDir(t)
	openRuntime(t, dir)
	stuck := filepath.Join(dir, "roots", "stuck")
	if err := os.MkdirAll(stuck, 0o711); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(stuck)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const immutable = 0x10 // FS_IMMUTABLE_FL of linux/fs.h
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, immutable); err != nil {
		t.Skipf("SKIPPED FOR LACK OF FILES THAT NOBODY REMOVES below %s: %v", dir, err)
	}
	defer func() {
		if err := errors.Join(unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0), os.Remove(stuck)); err != nil {
			t.Error(err)
		}
	}()
	if found, err := openRuntime(t, dir).Recover(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("got %v, %v, want nothing and no error", found, err)
	}
}

func TestAPausedProcessThatADeadAgentLeftIsClearedAway(t *testing.T) {
	t.Parallel()
	dir := newStateDir(t)
	r := openRuntime(t, dir)
	s := spec(t, "paused")
	s.Args = []string{"/bin/sleep", "1000"}
	i, err := r.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Start(); err != nil {
		t.Fatal(err)
	}
	p, _ := i.(sandbox.Pauser)
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "instances", "paused", "state.json")); err != nil { // it is not known any more
		t.Fatal(err)
	}
	began := time.Now()
	if found, err := openRuntime(t, dir).Recover(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("got %v, %v, want nothing and no error", found, err)
	}
	for _, g := range groups(dir) {
		if _, err := os.Stat(filepath.Join(g, "paused")); err == nil {
			t.Errorf("%s/paused is left after %s", g, time.Since(began))
		}
	}
	if err := i.Destroy(); err != nil {
		t.Error(err)
	}
}
