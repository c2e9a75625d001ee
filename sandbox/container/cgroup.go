package container

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// mountCgroup mounts the version 2 hierarchy where nobody has mounted any: a
// board without systemd.
func mountCgroup(logger *slog.Logger) error {
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &st); err != nil {
		return nil //nolint:nilerr // no sysfs, no cgroups: Probe says so
	}
	if st.Type != unix.SYSFS_MAGIC {
		return nil
	}
	err := unix.Mount("cgroup2", cgroupRoot, "cgroup2", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, "")
	if errors.Is(err, unix.ENODEV) {
		return nil // a kernel without cgroups
	}
	if err != nil {
		return fmt.Errorf("mount cgroup2 on %s: %w", cgroupRoot, err)
	}
	logger.Info("cgroup2 mounted: nobody else had")
	return nil
}

// hierarchies are the directories that stand for the root group, one for each
// mounted hierarchy.
func hierarchies() []string {
	if cgroups.IsCgroup2UnifiedMode() {
		return []string{cgroupRoot}
	}
	mounts, err := cgroups.GetCgroupMounts(true)
	if err != nil {
		return nil
	}
	seen := map[string]bool{}
	var dirs []string
	add := func(dir string) {
		if !seen[dir] {
			seen[dir] = true
			dirs = append(dirs, dir)
		}
	}
	for _, m := range mounts {
		add(m.Mountpoint)
	}
	if cgroups.IsCgroup2HybridMode() {
		add(filepath.Join(cgroupRoot, "unified"))
	}
	return dirs
}

// cgroupsBelow lists the names of the groups right below a group, over all
// hierarchies.
func cgroupsBelow(group string) []string {
	seen := map[string]bool{}
	var names []string
	for _, h := range hierarchies() {
		entries, err := os.ReadDir(filepath.Join(h, group))
		if err != nil {
			continue // not in this hierarchy
		}
		for _, e := range entries {
			if e.IsDir() && !seen[e.Name()] {
				seen[e.Name()] = true
				names = append(names, e.Name())
			}
		}
	}
	return names
}

// clearCgroup kills what is in a group and removes it from every hierarchy. What is paused is let go before: version 1 kills it no sooner.
func clearCgroup(group string) error {
	var errs []error
	all := hierarchies()
	for _, h := range all {
		_ = os.WriteFile(filepath.Join(h, group, "freezer.state"), []byte("THAWED"), 0) // of one hierarchy, where there is one
	}
	late := time.Now().Add(leavePatience)
	for _, h := range all {
		if err := clearGroupDir(filepath.Join(h, group), late); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// How long killed processes may take to leave their group, and how often one that cannot be removed is tried.
const (
	leavePatience = 5 * time.Second
	leaveInterval = 5 * time.Millisecond
)

func clearGroupDir(dir string, late time.Time) error {
	timeout := time.NewTimer(time.Until(late))
	defer timeout.Stop()
	again := time.NewTicker(leaveInterval)
	defer again.Stop()
	for {
		pids, err := cgroups.GetAllPids(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // gone is as good
		}
		err = removeGroup(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		select {
		case <-again.C:
		case <-timeout.C:
			return fmt.Errorf("remove cgroup %s: %w; a process in it hangs in a device driver, see dmesg", dir, err)
		}
	}
}

// removeGroup removes a group and those below it. Only directories can be
// removed there, and only when no process is left in them.
func removeGroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return unix.Rmdir(dir)
}

// throttles tells whether the bandwidth of disks can be limited. On version 2 only a
// group below the root shows it: one that is there already, else it is tried.
func throttles(have map[string]bool) bool {
	if throttleKills() {
		return false
	}
	if !cgroups.IsCgroup2UnifiedMode() {
		for _, h := range hierarchies() {
			if exists(filepath.Join(h, "blkio.throttle.read_bps_device")) {
				return true
			}
		}
		return false
	}
	io, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", "io.stat")) // the pattern is sound
	most, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", "io.max"))
	return have["io"] && (len(most) > 0 || len(io) == 0)
}

// controllers are those that can be used: on version 2 what the root offers.
func controllers() map[string]bool {
	have := map[string]bool{}
	if cgroups.IsCgroup2UnifiedMode() {
		b, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
		if err != nil {
			return have
		}
		for _, c := range strings.Fields(string(b)) {
			have[c] = true
		}
		return have
	}
	mounts, err := cgroups.GetCgroupMounts(true)
	if err != nil {
		return have
	}
	for _, m := range mounts {
		for _, c := range m.Subsystems {
			have[c] = true
		}
	}
	return have
}
