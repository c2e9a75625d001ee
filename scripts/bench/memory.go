package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// idleModules is how many modules run while memory is measured.
const idleModules = 10

// memoryContest is what managing ten idle modules takes, in bytes: processes of the manager, shared pages by their share, without the modules.
// Warden and agent do all their work meanwhile (broker, store, an endpoint in each module); the peers only hold containers.
func (y *yard) memoryContest() (contest, error) {
	y.groupsAfter()
	raw, err := os.ReadFile(filepath.Join(filepath.Dir(y.starter), "bench-idle"))
	if err != nil {
		return contest{}, err
	}
	root := filepath.Join(y.dir, "idle")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return contest{}, err
	}
	if err := os.WriteFile(filepath.Join(root, "idle"), raw, 0o755); err != nil {
		return contest{}, err
	}
	round := 0
	in := func(measure func(dir, root string) (float64, error)) func() (float64, error) {
		return func() (float64, error) {
			round++
			dir := filepath.Join(y.dir, "memory-"+strconv.Itoa(round))
			if err := os.Mkdir(dir, 0o711); err != nil {
				return 0, err
			}
			if err := evict(append(y.programs(), filepath.Join(filepath.Dir(y.starter), "sandpiper"))...); err != nil {
				return 0, err
			}
			return measure(dir, root)
		}
	}
	c := contest{name: "agent.pss/10", unit: "bytes", better: "lower", ours: in(y.agentMemory)}
	for _, p := range []struct {
		name, program, note string
		measure             func(dir, root string) (float64, error)
	}{
		{"containerd", "containerd", "the daemon and ten shims", y.containerdMemory},
		{"podman", "podman", "ten conmons; there is no daemon, and nothing that restarts a container", y.podmanMemory},
	} {
		_, missing := y.peer(p.program)
		c.peers = append(c.peers, peer{name: p.name, missing: missing, note: p.note + "; PSS of the managers with ten idle programs, 45 s after the last of them began, programs read from disk as after a boot", run: in(p.measure)})
	}
	return c, nil
}

// settle is how long every side is left alone with its ten programs before it is measured: a newly deployed module of ours is watched for
// half a minute, and 10 seconds later the agent has given back what that needed.
const settle = 45 * time.Second

// evict writes programs out and drops them from the page cache, so that they are read as after a boot. One that was written a moment ago
// lies there in pieces of up to 2 MiB, and since Linux 6.18 each touch maps a whole piece: the same process takes 14 MB, or 22.
func evict(paths ...string) error {
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
		if err != nil {
			return fmt.Errorf("drop %s from the page cache: %w", path, err)
		}
	}
	return nil
}

// programs are the peers' program files.
func (y *yard) programs() []string {
	var all []string
	for _, pattern := range []string{"usr/bin/*", "usr/sbin/*", "usr/lib/podman/*"} {
		found, _ := filepath.Glob(filepath.Join(y.peers, pattern)) // the pattern is sound
		for _, path := range found {
			if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
				all = append(all, path)
			}
		}
	}
	return all
}

// agentMemory measures warden and agent of the device binary.
func (y *yard) agentMemory(dir, root string) (sum float64, err error) {
	bin := filepath.Dir(y.starter)
	tool := func(args ...string) error {
		if out, err := exec.Command(filepath.Join(bin, "sandpiper-bundle"), args...).CombinedOutput(); err != nil {
			return fmt.Errorf("sandpiper-bundle %s: %w: %s", args[0], err, bytes.TrimSpace(out))
		}
		return nil
	}
	key := filepath.Join(dir, "bench.key")
	if err := tool("keygen", "-o", key); err != nil {
		return 0, err
	}
	public, err := filepath.Glob(filepath.Join(dir, "*.pub"))
	if err != nil || len(public) != 1 {
		return 0, fmt.Errorf("public key: %v, %w", public, err)
	}
	modules := map[string]any{}
	for i := range idleModules {
		name := "idle" + strconv.Itoa(i)
		file := filepath.Join(dir, name+".spb")
		if err := tool("build", "-o", file, "--name", name, "--version", "1.0.0", "--sequence", "1", "--host-view", "--arg", "/app/idle", "--key", key, root); err != nil {
			return 0, err
		}
		modules[name] = map[string]any{"type": "native", "restartPolicy": "always", "settings": map[string]any{"image": "file://" + file}}
	}
	manifest, err := json.Marshal(map[string]any{"modulesContent": map[string]any{"$edgeAgent": map[string]any{"properties.desired": map[string]any{"schemaVersion": "1.1", "modules": modules}}}})
	if err != nil {
		return 0, err
	}
	config := filepath.Join(dir, "config.toml")
	run := filepath.Join(dir, "run")
	text := fmt.Sprintf("state_dir = %q\nrun_dir = %q\n[device]\ngateway = \"gateway\"\n[[bundles.trusted_keys]]\nfile = %q\n", filepath.Join(dir, "state"), run, public[0])
	if err := errors.Join(os.WriteFile(config, []byte(text), 0o600), os.WriteFile(filepath.Join(dir, "manifest.json"), manifest, 0o600)); err != nil {
		return 0, err
	}
	device := filepath.Join(bin, "sandpiper")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	warden := exec.Command(device, "agent", "--config", config)
	warden.Stderr = log
	if err := warden.Start(); err != nil {
		return 0, err
	}
	defer func() {
		err = errors.Join(err, warden.Process.Signal(syscall.SIGTERM), warden.Wait())
	}()
	ask := func(args ...string) ([]byte, error) {
		return exec.Command(device, append([]string{"--run-dir", run}, args...)...).Output()
	}
	if err := within(time.Minute, func() bool {
		_, err := ask("deploy", "apply", filepath.Join(dir, "manifest.json"))
		return err == nil
	}); err != nil {
		return 0, fmt.Errorf("agent takes no deployment: %w", err)
	}
	if err := within(time.Minute, func() bool {
		out, err := ask("module", "list", "--json")
		return err == nil && bytes.Count(out, []byte(`"pid":`)) == idleModules
	}); err != nil {
		return 0, fmt.Errorf("modules do not run: %w", err)
	}
	time.Sleep(settle)
	return pssOf(func(pid int, command string) bool {
		return pid == warden.Process.Pid || strings.HasPrefix(command, device+"\x00agent\x00--child\x00") && strings.Contains(command, run)
	}, 2)
}

// containerdMemory measures containerd and its shims, on a configuration of this run's own.
func (y *yard) containerdMemory(dir, root string) (_ float64, err error) {
	command, _ := y.peer("containerd")
	ctl, missing := y.peer("ctr")
	if missing != "" {
		return 0, errors.New(missing)
	}
	socket := filepath.Join(dir, "c.sock")
	config := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n[grpc]\naddress = %q\n", filepath.Join(dir, "root"), filepath.Join(dir, "state"), socket)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return 0, err
	}
	path := "PATH=" + strings.Join([]string{filepath.Join(y.peers, "usr/bin"), filepath.Join(y.peers, "usr/sbin"), os.Getenv("PATH")}, ":")
	daemon := command("--config", config, "--log-level", "error")
	daemon.Env = append(daemon.Env, path)
	if err := daemon.Start(); err != nil {
		return 0, err
	}
	ctr := func(args ...string) error {
		cmd := ctl(append([]string{"--address", socket}, args...)...)
		cmd.Env = append(cmd.Env, path)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("ctr %s: %w: %s", args[0], err, bytes.TrimSpace(out))
		}
		return nil
	}
	defer func() {
		for i := range idleModules {
			id := "idle" + strconv.Itoa(i)
			_ = ctr("task", "kill", "--signal", "SIGKILL", id)
			_ = within(10*time.Second, func() bool { return ctr("task", "delete", id) == nil })
			_ = ctr("container", "delete", id)
		}
		_ = daemon.Process.Signal(syscall.SIGTERM)
		_ = daemon.Wait() // how it ends does not matter
	}()
	if err := within(time.Minute, func() bool { return ctr("version") == nil }); err != nil {
		return 0, fmt.Errorf("containerd does not answer: %w", err)
	}
	for i := range idleModules {
		if err := ctr("run", "--detach", "--rootfs", root, "idle"+strconv.Itoa(i), "/idle"); err != nil {
			return 0, err
		}
	}
	time.Sleep(settle)
	return pssOf(func(pid int, command string) bool {
		return pid == daemon.Process.Pid || strings.Contains(command, "containerd-shim") && strings.Contains(command, socket)
	}, 1+idleModules)
}

// podmanMemory measures the conmons of ten containers.
func (y *yard) podmanMemory(dir, root string) (float64, error) {
	command, _ := y.peer("podman")
	podman := func(args ...string) error {
		cmd := command(args...)
		cmd.Env = append(cmd.Env, y.podmanEnv()...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("podman %s: %w: %s", args[0], err, bytes.TrimSpace(out))
		}
		return nil
	}
	if err := y.podmanHome(); err != nil {
		return 0, err
	}
	var names []string
	defer func() {
		for _, name := range names {
			_ = podman("rm", "--force", "--time", "0", name) // the tmpfs goes too
		}
	}()
	for i := range idleModules {
		name := filepath.Base(dir) + "-" + strconv.Itoa(i)
		names = append(names, name)
		if err := podman("run", "--detach", "--name", name, "--network", "none", "--read-only", "--log-driver", "k8s-file", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--rootfs", root, "/idle"); err != nil {
			return 0, err
		}
	}
	time.Sleep(settle)
	return pssOf(func(_ int, command string) bool {
		return strings.Contains(command, "conmon\x00") && strings.Contains(command, y.dir) && !strings.HasPrefix(command, "/bin/sh")
	}, idleModules)
}

// pssOf sums the proportional set size of the processes that match, which must be as many as wanted.
func pssOf(match func(pid int, command string) bool, wanted int) (float64, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	var sum float64
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		raw, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || len(raw) == 0 || !match(pid, string(raw)) {
			continue
		}
		rollup, err := os.ReadFile(filepath.Join("/proc", e.Name(), "smaps_rollup"))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(rollup), "\nPss:")
		kilo, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
		if err != nil {
			return 0, err
		}
		sum += kilo * 1024
		found = append(found, pid)
	}
	if slices.Sort(found); len(found) != wanted {
		return 0, fmt.Errorf("%d processes are counted (%v), want %d", len(found), found, wanted)
	}
	return sum, nil
}

// within asks until something is so, or for as long as it may take.
func within(most time.Duration, so func() bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	for !so() {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// groupsAfter removes, when the yard closes, the empty groups that the peers leave and that were not there before.
func (y *yard) groupsAfter() {
	var fresh []string
	for _, name := range []string{"default", "libpod_parent"} {
		hierarchies, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs") // the pattern is sound
		for _, h := range hierarchies {
			dir := filepath.Join(filepath.Dir(h), name)
			if _, err := os.Stat(dir); os.IsNotExist(err) {
				fresh = append(fresh, dir)
			}
		}
	}
	y.closers = append(y.closers, func() {
		for _, dir := range fresh {
			below, _ := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs")) // the pattern is sound
			for _, file := range below {
				_ = os.Remove(filepath.Dir(file)) // as the one above
			}
			_ = os.Remove(dir) // not there, or in use by somebody else
		}
	})
}
