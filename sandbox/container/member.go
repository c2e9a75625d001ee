package container

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"golang.org/x/sys/unix"
)

// membership is the group of a sandbox and how its process gets into it.
//
// A process that is moved by another one costs a grace period of the kernel's, ten
// milliseconds and more: nobody may fork meanwhile. A process is in a version 2 group
// from its birth instead (CLONE_INTO_CGROUP), and steps into version 1 groups by
// itself, its one thread into each: neither waits for anybody.
type membership struct {
	group cgroups.Manager
	birth *os.File   // the version 2 group; nil: there is none, or clone did not take it
	doors []*os.File // "tasks" of each version 1 group
	err   error
}

// prepare makes what must be there before the process is.
func prepare(c *cgroups.Cgroup) (m *membership, err error) {
	m = &membership{}
	if m.group, err = manager.New(c); err != nil {
		return m, fmt.Errorf("cgroup: %w", err)
	}
	path := m.unified()
	switch {
	case cgroups.IsCgroup2UnifiedMode():
		err = m.group.Apply(-1) // makes it, and nobody joins
	case path != "":
		err = os.MkdirAll(path, 0o755)
	default:
		return m, nil
	}
	if err == nil {
		m.birth, err = os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return m, fmt.Errorf("cgroup: %w", err)
	}
	return m, nil
}

// unified is the path of the version 2 group, "" where there is no version 2.
func (m *membership) unified() string { return m.group.GetPaths()[""] }

// furnish makes the rest and sets the limits, before the process enters: on version 1
// a group denies every device for a moment before it allows the first, and the
// process opens /dev/null.
func (m *membership) furnish(r *cgroups.Resources, log *slog.Logger) {
	if m.err = m.group.Apply(-1); m.err == nil {
		m.err = m.group.Set(r)
	}
	if less, ok := unthrottled(r); ok && m.err != nil { // a disk, or a kernel, that takes no such limit
		if why := m.err; m.group.Set(less) == nil {
			log.Warn("limits.io is not kept", "err", why)
			m.err = nil
		}
	}
	seen := map[string]bool{m.unified(): true}
	for _, dir := range m.group.GetPaths() {
		if seen[dir] || m.err != nil {
			continue
		}
		seen[dir] = true
		var f *os.File
		if f, m.err = os.OpenFile(filepath.Join(dir, "tasks"), os.O_WRONLY, 0); m.err == nil {
			m.doors = append(m.doors, f)
		}
	}
	if m.err != nil {
		m.err = fmt.Errorf("cgroup: %w", m.err)
	}
}

// move puts a process that was not born there into the version 2 group.
func (m *membership) move(pid int) error {
	if m.birth != nil || m.unified() == "" {
		return nil
	}
	return cgroups.WriteCgroupProc(m.unified(), pid)
}

// close lets go of what was opened.
func (m *membership) close() {
	if m.birth != nil {
		_ = m.birth.Close()
	}
	for _, f := range m.doors { // a script has closed them already, if it got them
		_ = f.Close()
	}
}

func (m *membership) leave() error {
	if m.group == nil {
		return nil
	}
	return m.group.Destroy()
}
