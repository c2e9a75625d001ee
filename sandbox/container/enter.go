package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
	"github.com/sandpiper-edge/sandpiper/sandbox/container/entry"
)

// gateName is the FIFO in an instance's state directory that its process waits
// at. libcontainer knows it too, and takes an instance with a gate for one that
// was never started.
const gateName = "exec.fifo"

// enter makes the sandbox: its process begins at once, and while it does, its
// root, its group and its script are made.
func (r *Runtime) enter(s sandbox.Spec, u user) (_ *Instance, err error) {
	undo := func(f func() error) {
		if err != nil {
			err = errors.Join(err, f())
		}
	}
	if err := os.Mkdir(r.stateOf(s.ID), 0o700); err != nil {
		return nil, err
	}
	defer undo(func() error { return os.RemoveAll(r.stateOf(s.ID)) })
	devices, err := r.makeNodes(s, u)
	defer undo(func() error { return r.removeNodes(s.ID) })
	if err != nil {
		return nil, err
	}
	wanted := r.cgroup(s, devices)
	member, err := prepare(wanted)
	defer member.close()
	defer undo(member.leave)
	if err != nil {
		return nil, err
	}
	child, err := r.begin(s, u, member)
	if err != nil {
		return nil, err
	}
	defer undo(func() error { child.Abandon(); return nil })
	owner, err := os.Open(filepath.Join("/proc", strconv.Itoa(child.Pid), "ns/user"))
	if err != nil {
		return nil, err
	}
	defer owner.Close()
	furnished := make(chan struct{}) // the root is made meanwhile
	go func() { defer close(furnished); member.furnish(wanted.Resources, r.logger(s.ID)) }()
	defer func() { <-furnished }()
	root, err := r.makeRoot(s, u, owner)
	defer undo(func() error { return r.removeRoot(s.ID) })
	defer root.close()
	if err != nil {
		return nil, err
	}
	c := r.config(s, root, devices)
	script := &entry.Script{}
	defer script.Close()
	<-furnished
	if err := errors.Join(member.err, member.move(child.Pid)); err != nil {
		return nil, err
	}
	script.Join(member.doors...)
	if err := r.script(script, s, u, c, root); err != nil {
		return nil, err
	}
	group := member.group
	played := make(chan error, 1)
	go func() { played <- child.Play(script) }()
	state, err := r.settle(s, c, group, child.Pid)
	if perr := <-played; perr != nil {
		err = r.whyDead(group, perr)
	}
	for _, l := range c.Rlimits { // only now: the script holds more files open than a module may be allowed
		if err == nil {
			err = os.NewSyscallError("prlimit", unix.Prlimit(child.Pid, l.Type, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil))
		}
	}
	if err != nil {
		return nil, err
	}
	i, err := r.adopt(state, group, child)
	if err != nil {
		return nil, err
	}
	go i.countCalls(child)
	return i, nil
}

// begin starts the process, with its gate and its streams, in its version 2 group.
func (r *Runtime) begin(s sandbox.Spec, u user, m *membership) (*entry.Child, error) {
	exe, done, err := r.seal()
	if err != nil {
		return nil, err
	}
	defer done()
	path := filepath.Join(r.stateOf(s.ID), gateName)
	if err := unix.Mkfifo(path, 0o622); err != nil {
		return nil, &os.PathError{Op: "mkfifo", Path: path, Err: err}
	}
	if err := errors.Join(os.Chmod(path, 0o622), os.Chown(path, int(s.IDBase), int(s.IDBase))); err != nil {
		return nil, err
	}
	gate, err := os.OpenFile(path, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer gate.Close()
	p, err := r.process(s, u)
	if err != nil {
		return nil, err
	}
	defer p.close()
	start := entry.Start{
		Exe: exe, Gate: gate, Namespaces: unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		IDBase: int(s.IDBase), IDCount: sandbox.IDCount,
	}
	if s.Network != sandbox.Host {
		start.Namespaces |= unix.CLONE_NEWNET
	}
	if len(p.logs) > 0 {
		start.Stdout, start.Stderr = p.logs[0], p.logs[len(p.logs)-1]
	}
	start.Group = m.birth
	child, err := entry.NewChild(start)
	if err != nil && start.Group != nil { // clone3 is refused by some filters that the agent itself may be under
		start.Group = nil
		if child, err = entry.NewChild(start); err == nil {
			_ = m.birth.Close()
			m.birth = nil
		}
	}
	return child, err
}

// settle does, while the process plays its script, what only the host can.
func (r *Runtime) settle(s sandbox.Spec, c *configs.Config, group cgroups.Manager, pid int) (*libcontainer.State, error) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	if err := os.WriteFile(filepath.Join(proc, "oom_score_adj"), []byte(strconv.Itoa(*c.OomScoreAdj)), 0); err != nil {
		return nil, err
	}
	st, err := readStat(pid)
	if err != nil {
		return nil, err
	}
	state := &libcontainer.State{
		BaseState:   libcontainer.BaseState{ID: s.ID, InitProcessPid: pid, InitProcessStartTime: st.start, Created: time.Now().UTC(), Config: *c},
		CgroupPaths: group.GetPaths(), NamespacePaths: map[configs.NamespaceType]string{},
	}
	for _, kind := range configs.NamespaceTypes() {
		if !configs.IsNamespaceSupported(kind) {
			continue
		}
		ns := configs.Namespace{Type: kind}
		state.NamespacePaths[kind] = ns.GetPath(pid)
	}
	raw, err := json.Marshal(state)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(r.stateOf(s.ID), "state.json")
	if err := os.WriteFile(path+".new", raw, 0o600); err != nil {
		return nil, err
	}
	return state, os.Rename(path+".new", path)
}

// whyDead tells a start that the memory limit ended from one that the script did.
func (r *Runtime) whyDead(group cgroups.Manager, err error) error {
	if n, kerr := group.OOMKillCount(); kerr == nil && n > 0 {
		return fmt.Errorf("the memory limit is too low to start in: %w", err)
	}
	return err
}

// script is what the process does to become the module.
func (r *Runtime) script(e *entry.Script, s sandbox.Spec, u user, c *configs.Config, root rootfs) error {
	filter, err := r.filter(s.Permissions)
	if err != nil {
		return err
	}
	if c.Namespaces.Contains(configs.NEWCGROUP) {
		e.CgroupNamespace()
	}
	if c.Namespaces.Contains(configs.NEWNET) {
		e.Loopback()
	}
	attributes := uint64(unix.MOUNT_ATTR_RDONLY)
	if !c.Readonlyfs {
		attributes = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	}
	tree, err := entry.Tree(c.Rootfs, attributes, true, true)
	if err != nil {
		return err
	}
	e.Root(tree, c.Rootfs)
	if err := r.scriptMounts(e, c, root); err != nil {
		return err
	}
	for _, path := range c.ReadonlyPaths {
		e.ReadOnly(path)
	}
	for _, path := range c.MaskPaths {
		e.Mask(path)
	}
	e.Pivot()
	e.Hostname(c.Hostname)
	null := uint32(1)
	if s.LogPath == "" {
		null |= 1<<1 | 1<<2
	}
	e.Null(null)
	e.Writable(writablePaths(c)...)
	e.Become(u.uid, u.gid, u.groups, cwd(s))
	e.Run(s.Args, withHome(environment(s.Env), u.home), filter)
	return nil
}

// scriptMounts are the kernel's file systems, the common devices, and what the
// Spec and its root bring, in that order.
func (r *Runtime) scriptMounts(e *entry.Script, c *configs.Config, root rootfs) error {
	nodes := false
	for _, m := range c.Mounts {
		if m.Device == "bind" && !nodes { // /dev is there, and nothing of the Spec's yet
			nodes = true
			if err := scriptNodes(e); err != nil {
				return err
			}
		}
		switch m.Device {
		case "bind":
			if err := attach(e, m, root.opened[m]); err != nil {
				return err
			}
		case "cgroup":
			r.scriptCgroup(e, m)
		default:
			e.Mount(m.Device, m.Destination, attributes(m.Flags), options(m.Data)...)
		}
	}
	if !nodes {
		return scriptNodes(e)
	}
	return nil
}

func options(data string) []string {
	if data == "" {
		return nil
	}
	return strings.Split(data, ",")
}

// attach binds a mount. Opened is what was looked at before; nil: nobody but
// root could have changed what the path means.
func attach(e *entry.Script, m *configs.Mount, opened *os.File) error {
	f := opened
	if f == nil {
		var err error
		if f, err = os.OpenFile(m.Source, unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		defer f.Close()
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	tree, err := entry.TreeOf(f, uint64(attributes(m.Flags)), m.Flags&unix.MS_REC != 0)
	if err != nil {
		return err
	}
	e.Attach(tree, m.Destination, st.IsDir())
	return nil
}

// attributes are mount flags in the words of the newer calls.
func attributes(flags int) uint32 {
	var a uint32
	for flag, attribute := range map[int]uint32{
		unix.MS_RDONLY: unix.MOUNT_ATTR_RDONLY, unix.MS_NOSUID: unix.MOUNT_ATTR_NOSUID,
		unix.MS_NODEV: unix.MOUNT_ATTR_NODEV, unix.MS_NOEXEC: unix.MOUNT_ATTR_NOEXEC,
	} {
		if flags&flag != 0 {
			a |= attribute
		}
	}
	return a
}

// scriptNodes binds the common devices and makes the links that programs expect.
func scriptNodes(e *entry.Script) error {
	for _, n := range common {
		tree, err := entry.Tree(n.path, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, false, true)
		if err != nil {
			return err
		}
		e.Attach(tree, n.path, false)
	}
	for place, text := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
		"/dev/ptmx": "pts/ptmx",
	} {
		e.Link(text, place)
	}
	return nil
}

// writablePaths are where a module can write by design: its own file systems of
// the kernel's, and what its Spec makes writable.
func writablePaths(c *configs.Config) []string {
	paths := []string{"/proc", "/dev", "/tmp", "/run"}
	if !c.Readonlyfs {
		return []string{"/"}
	}
	for _, m := range c.Mounts {
		if m.Device == "bind" && m.Flags&unix.MS_RDONLY == 0 {
			paths = append(paths, m.Destination)
		}
	}
	return paths
}

// withHome drops what is said again later, and adds HOME if it is missing.
func withHome(env []string, home string) []string {
	seen := map[string]bool{}
	var out []string
	for _, entry := range slices.Backward(env) {
		key, value, _ := strings.Cut(entry, "=")
		if seen[key] || key == "HOME" && value == "" {
			continue
		}
		seen[key] = true
		out = append(out, entry)
	}
	slices.Reverse(out)
	if !seen["HOME"] {
		out = append(out, "HOME="+home)
	}
	return out
}
