package container

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/container/entry"
)

// scriptCgroup shows the module its own groups, read-only.
func (r *Runtime) scriptCgroup(e *entry.Script, m *configs.Mount) {
	flags := attributes(m.Flags)
	if cgroups.IsCgroup2UnifiedMode() {
		e.Mount("cgroup2", m.Destination, flags)
		return
	}
	e.Mount("tmpfs", m.Destination, flags&^unix.MOUNT_ATTR_RDONLY, "mode=755", "size=64k")
	for _, h := range r.groups {
		name := filepath.Base(h)
		place := filepath.Join(m.Destination, name)
		if name == "systemd" {
			e.Mount("cgroup", place, flags, "name=systemd")
			continue
		}
		controllers := strings.Split(name, ",")
		e.Mount("cgroup", place, flags, controllers...)
		for _, c := range controllers {
			if c != name {
				e.Link(name, filepath.Join(m.Destination, c))
			}
		}
	}
	e.Seal(m.Destination, unix.MOUNT_ATTR_RDONLY)
}

// v1Groups are the mount points of the version 1 hierarchies a sandbox sees.
func v1Groups() []string {
	if cgroups.IsCgroup2UnifiedMode() {
		return nil
	}
	mounts, err := cgroups.GetCgroupMounts(false)
	if err != nil {
		return nil
	}
	var dirs []string
	for _, m := range mounts {
		if !slices.Contains(dirs, m.Mountpoint) {
			dirs = append(dirs, m.Mountpoint)
		}
	}
	return dirs
}
