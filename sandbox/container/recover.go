package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// Recover takes over what an earlier agent started, and clears away the rest. An
// instance that cannot be understood is cleared away too, and logged: it would
// be in the way of its successor for ever.
func (r *Runtime) Recover(ctx context.Context) ([]sandbox.Instance, error) {
	entries, err := os.ReadDir(r.instancesDir())
	if err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	var found []sandbox.Instance
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("recover: %w", err)
		}
		id := e.Name()
		if !r.claim(id) {
			continue
		}
		i, err := r.load(id)
		if err != nil {
			r.logger(id).Warn("left-over instance is cleared away", "err", err)
		}
		if i == nil {
			if err := r.clear(id); err != nil {
				r.logger(id).Warn("left-over instance stays", "err", err)
			}
			r.forget(id)
			continue
		}
		r.mu.Lock()
		r.instances[id] = i
		r.mu.Unlock()
		found = append(found, i)
	}
	if err := r.sweep(); err != nil { // without an agent nobody could put it right from afar
		r.cfg.Logger.Warn("left-over root, device node or cgroup stays", "err", oneLine(err))
	}
	r.mu.Lock()
	r.tidyLocked() // of an agent that was killed before it had made the first instance
	r.mu.Unlock()
	for _, h := range hierarchies() {
		removeDead(h, r.cfg.Cgroup, time.Now().Add(-deadAfter))
	}
	return found, nil
}

// deadAfter is how old an empty group of another run is before it is taken for dead: an agent makes its own and the first one in it
// within milliseconds.
const deadAfter = time.Minute

// removeDead removes the empty groups of other runs from a hierarchy, such as those of an agent that was killed and whose run_dir nobody
// uses again. One with a process or a group in it stays.
func removeDead(hierarchy, own string, before time.Time) {
	dirs, _ := filepath.Glob(filepath.Join(hierarchy, "sandpiper-????????")) // the pattern is sound
	for _, dir := range dirs {
		if st, err := os.Stat(dir); err == nil && filepath.Base(dir) != own && st.ModTime().Before(before) {
			_ = unix.Rmdir(dir) // in use, or gone
		}
	}
}

// claim marks an id as being looked at, unless it is in use.
func (r *Runtime) claim(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, taken := r.instances[id]; taken {
		return false
	}
	r.instances[id] = nil
	return true
}

// load makes the Instance of what was started; nil if it was not.
func (r *Runtime) load(id string) (*Instance, error) {
	c, err := libcontainer.Load(r.instancesDir(), id)
	if errors.Is(err, libcontainer.ErrNotExist) {
		return nil, nil // an agent died while it made this one
	}
	if err != nil {
		return nil, err
	}
	// libcontainer removes it when the program is let go.
	if _, err := os.Lstat(filepath.Join(r.stateOf(id), gateName)); err == nil {
		return nil, nil
	}
	i, err := r.adoptContainer(c, nil)
	if err != nil {
		return nil, err
	}
	i.started = true
	return i, nil
}

// adoptContainer is adopt of what libcontainer made or loaded.
func (r *Runtime) adoptContainer(c *libcontainer.Container, child waiter) (*Instance, error) {
	state, err := c.State()
	if err != nil {
		return nil, err
	}
	group, err := manager.NewWithPaths(state.Config.Cgroups, state.CgroupPaths)
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	return r.adopt(state, group, child)
}

// clear kills whatever is in the instance's cgroups and removes all that its id
// names.
func (r *Runtime) clear(id string) error {
	return errors.Join(
		clearCgroup(r.cgroupOf(id)),
		os.RemoveAll(r.stateOf(id)),
		r.removeRoot(id),
		r.removeNodes(id),
	)
}

// sweep removes roots, nodes, mounts and cgroups that no instance owns.
func (r *Runtime) sweep() error {
	left := map[string]bool{}
	for _, dir := range []string{filepath.Join(r.cfg.StateDir, "roots"), r.nodesDir()} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			left[e.Name()] = true
		}
	}
	for _, id := range cgroupsBelow(filepath.Join("/", r.cfg.Cgroup)) {
		left[id] = true
	}
	var errs []error
	for id := range left {
		if !r.claim(id) {
			continue
		}
		r.logger(id).Info("left-over root, device node or cgroup is cleared away")
		if err := r.unmountBelow(r.rootOf(id)); err != nil {
			errs = append(errs, err)
		}
		if err := r.clear(id); err != nil {
			errs = append(errs, err)
		}
		r.forget(id)
	}
	return errors.Join(errs...)
}

// unmountBelow detaches every mount below dir, deepest first.
func (r *Runtime) unmountBelow(dir string) error {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !strings.HasPrefix(m.Mountpoint, dir+"/"), false
	})
	if err != nil {
		return err
	}
	for n := len(mounts) - 1; n >= 0; n-- {
		err := unix.Unmount(mounts[n].Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) {
			return &os.PathError{Op: "unmount", Path: mounts[n].Mountpoint, Err: err}
		}
	}
	return nil
}
