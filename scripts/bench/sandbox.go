package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// sandboxRows measures what it costs to start a module: one with the same root, mounts, namespaces, ids, limits and seccomp filter on
// every side. The peers run an OCI bundle that is written from ours.
func sandboxRows(s size) ([]row, error) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "sandbox: not root, so no sandbox can be made: module.start, module.memory-floor and module.powers are NOT measured")
		var rows []row
		for _, name := range []string{"module.start", "module.memory-floor", "module.powers"} {
			rows = append(rows, row{Name: name, Better: "lower", Note: "not measured: not root"})
		}
		return rows, nil
	}
	y, err := newYard()
	if err != nil {
		return nil, err
	}
	defer y.close()
	rounds := max(s.rounds, s.of(30, 3))
	var rows []row
	for _, part := range []struct {
		name   string
		rounds int
		make   func() (contest, error)
	}{
		{"module.start", rounds, func() (contest, error) { return y.startContest(warm) }},
		{"module.start/first", rounds, func() (contest, error) { return y.startContest(cold) }},
		{"module.memory-floor", 1, y.floorContest},
		{"agent.pss/10", min(s.rounds, 3), y.memoryContest},
	} {
		if !s.wants(part.name) {
			continue
		}
		c, err := part.make()
		if err != nil {
			return nil, err
		}
		more, err := c.measure(part.rounds)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	if !s.wants("module.powers") {
		return rows, nil
	}
	powers, err := y.powers()
	return append(rows, powers...), err
}

// yard is where all sides work: a tmpfs of this run's own, and hierarchies that every side accepts.
type yard struct {
	dir     string // the tmpfs
	starter string
	peers   string // root of the unpacked peers; empty: none
	closers []func()
}

func newYard() (_ *yard, err error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	y := &yard{starter: filepath.Join(filepath.Dir(exe), "bench-starter"), peers: os.Getenv("SANDBOX_PEERS")}
	defer func() {
		if err != nil {
			y.close()
		}
	}()
	// crun does not accept version 2 beside version 1. scripts/bench/run gave this process mounts of its own.
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err == nil {
		_ = unix.Unmount("/sys/fs/cgroup/unified", 0) // not there: as good
	}
	if y.dir, err = os.MkdirTemp("", "sandpiper-bench-"); err != nil {
		return nil, err
	}
	y.closers = append(y.closers, func() { _ = os.RemoveAll(y.dir) })
	if err := unix.Mount("tmpfs", y.dir, "tmpfs", 0, "mode=0711"); err != nil {
		return nil, fmt.Errorf("mount tmpfs: %w", err)
	}
	y.closers = append(y.closers, func() { _ = unix.Unmount(y.dir, unix.MNT_DETACH) })
	if err = y.app(); err != nil { // what a row by itself finds too
		return nil, err
	}
	return y, nil
}

func (y *yard) close() {
	for len(y.closers) > 0 {
		last := y.closers[len(y.closers)-1]
		y.closers = y.closers[:len(y.closers)-1]
		last()
	}
}

// module is what every side starts.
func (y *yard) module(program string) sandbox.Spec {
	return sandbox.Spec{
		ID: "bench", Args: []string{program}, IDBase: 1 << 30,
		Root:   sandbox.Root{Kind: sandbox.HostView, Image: filepath.Join(y.dir, "app")},
		Limits: sandbox.Limits{Memory: 64 << 20, CPU: 1000},
	}
}

// app makes the module's image: a static program that ends at once.
func (y *yard) app() error {
	dir := filepath.Join(y.dir, "app")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	raw, err := os.ReadFile(filepath.Join(filepath.Dir(y.starter), "bench-hello"))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "hello"), raw, 0o755)
}

// ours runs the product's own runtime in a process that is kept, as the agent is.
type ours1 struct {
	in  io.Writer
	out *bufio.Scanner
}

func (y *yard) serve(name string, s sandbox.Spec, at variant) (*ours1, error) {
	return y.starting("serve", name, s, string(at))
}

// starting runs the starter in one of its modes, with what that takes before the Spec.
func (y *yard) starting(mode, name string, s sandbox.Spec, more ...string) (*ours1, error) {
	spec, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(y.starter, append(append([]string{mode, filepath.Join(y.dir, mode+"-"+name)}, more...), string(spec))...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	y.closers = append(y.closers, func() { _ = in.Close(); _ = cmd.Wait() })
	return &ours1{in, bufio.NewScanner(out)}, nil
}

// start runs the module once with a memory limit (0 is the Spec's) and tells the milliseconds from the request to the answer.
func (o *ours1) start(memory int64) (float64, error) {
	began := time.Now()
	if _, err := fmt.Fprintln(o.in, memory); err != nil {
		return 0, err
	}
	if !o.out.Scan() {
		return 0, errors.Join(io.ErrUnexpectedEOF, o.out.Err())
	}
	took := time.Since(began)
	if o.out.Text() != "ok" {
		return 0, errors.New(o.out.Text())
	}
	return float64(took.Microseconds()) / 1000, nil
}

// bundle writes the OCI bundle of the module for the peers, kept until the yard closes.
func (y *yard) bundle(name string, s sandbox.Spec) (string, error) {
	spec, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(y.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	cmd := exec.Command(y.starter, "bundle", filepath.Join(y.dir, "run-"+name), dir, string(spec))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	y.closers = append(y.closers, func() { _ = in.Close(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ok\n" {
		return "", fmt.Errorf("write bundle: %q %w", line, err)
	}
	return dir, nil
}

// peer is the command of an unpacked program, with its libraries; missing says why there is none.
func (y *yard) peer(name string) (command func(args ...string) *exec.Cmd, missing string) {
	if y.peers == "" {
		return nil, "scripts/peers could not fetch it"
	}
	for _, dir := range []string{"usr/bin", "usr/sbin"} {
		path := filepath.Join(y.peers, dir, name)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		libs := y.libraries()
		return func(args ...string) *exec.Cmd {
			cmd := exec.Command(path, args...)
			cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(libs, ":"))
			return cmd
		}, ""
	}
	return nil, name + " is not in " + y.peers
}

// libraries are the folders of the peers' libraries.
func (y *yard) libraries() []string {
	var dirs []string
	for _, pattern := range []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*"} {
		found, _ := filepath.Glob(filepath.Join(y.peers, pattern)) // the pattern is sound
		dirs = append(dirs, found...)
	}
	return dirs
}

// timed runs a command to its end.
func timed(cmd *exec.Cmd) (float64, error) {
	began := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(began)
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.Join(strings.Fields(string(out)), " "))
	}
	return float64(took.Microseconds()) / 1000, err
}

// variant says whether the cgroup above the module's is there before a start.
type variant string

const (
	warm variant = "warm" // it is: another module runs, as on a device in use
	cold variant = "cold" // it is not, and goes again: the only module of a device
)

const sameWork = "the same root, mounts, namespaces, ids, limits and seccomp filter on both sides, by one clock from the request to the answer: ours asks a process " +
	"that is kept, as the agent is, for Create to Destroy; a peer is started for its `run`, as its callers must"

var parents = map[variant]string{
	warm: "; the cgroup above the module's is there on both sides",
	cold: "; the cgroup above the module's is made and removed each time on our side, and removed before each round on the peer's",
}

// startContest is /bin/true to completion.
func (y *yard) startContest(at variant) (contest, error) {
	s := y.module("/bin/true")
	own, err := y.serve("start-"+string(at), s, at)
	if err != nil {
		return contest{}, err
	}
	dir, err := y.bundle("bundle-"+string(at), s)
	if err != nil {
		return contest{}, err
	}
	group, err := groupOf(dir)
	if err != nil {
		return contest{}, err
	}
	y.closers = append(y.closers, func() { removeGroups(filepath.Dir(group)) })
	c := contest{name: "module.start", unit: "ms", better: "lower", ours: func() (float64, error) { return own.start(0) }}
	if at == cold {
		c.name = "module.start/first"
	}
	for _, name := range []string{"crun", "runc"} {
		command, missing := y.peer(name)
		n := 0
		c.peers = append(c.peers, peer{name: name, missing: missing, note: sameWork + parents[at], run: func() (float64, error) {
			if n++; at == cold {
				removeGroups(filepath.Dir(group))
			}
			return timed(command("--root", filepath.Join(y.dir, name), "run", "--bundle", dir, fmt.Sprintf("bench-%s-%d", name, n)))
		}})
	}
	if at == cold {
		return c, nil
	}
	podman, err := y.podman(dir)
	if err != nil {
		return contest{}, err
	}
	c.peers = append(c.peers, podman)
	return c, nil
}

// groupOf is the cgroup that a bundle asks for.
func groupOf(bundle string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return "", err
	}
	var spec struct{ Linux struct{ CgroupsPath string } }
	if err := json.Unmarshal(raw, &spec); err != nil {
		return "", err
	}
	if !strings.HasPrefix(spec.Linux.CgroupsPath, "/sandpiper") {
		return "", fmt.Errorf("the bundle asks for the cgroup %q", spec.Linux.CgroupsPath)
	}
	return spec.Linux.CgroupsPath, nil
}

// removeGroups removes an empty group from every hierarchy, and those right below it.
func removeGroups(group string) {
	for _, pattern := range []string{"/sys/fs/cgroup/*", "/sys/fs/cgroup"} {
		for _, below := range []string{"*", ""} {
			dirs, _ := filepath.Glob(filepath.Join(pattern, group, below)) // the pattern is sound
			for _, dir := range dirs {
				_ = unix.Rmdir(dir) // a file, in use, or gone
			}
		}
	}
}
