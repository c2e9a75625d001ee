package agent

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/supervisor"
	"github.com/sandpiper-edge/sandpiper/sandbox"
	"github.com/sandpiper-edge/sandpiper/sandbox/quota"
)

// place is a durable directory of a module.
type place struct {
	name     string // of the directory, in the module's
	target   string // path inside
	readOnly bool
}

// places lists the durable directories of a module. What an image wants to keep is the module's too, unless the deployment says what is
// there.
func places(m deployment.Module, wanted []string) []place {
	var list []place
	if m.Settings.Data > 0 {
		list = append(list, place{name: "data", target: "/data"})
	}
	for _, v := range m.Settings.Create.Volumes {
		list = append(list, place{"volume-" + v.Name, v.Target, v.ReadOnly})
	}
	for _, target := range wanted {
		if !slices.ContainsFunc(list, func(p place) bool { return p.target == target }) {
			sum := sha256.Sum256([]byte(target))
			list = append(list, place{name: "image-volume-" + hex.EncodeToString(sum[:8]), target: target})
		}
	}
	return list
}

// volumesDir holds a module's durable directories, also when it is no longer part of the deployment.
func (a *Agent) volumesDir(module string) string {
	return filepath.Join(a.cfg.StateDir, "modules", module)
}

// addData makes and binds the durable directories of a module, and bounds each by what its manifest says, or the device. The numbers of the module's
// ids name the projects. A device without means to bound them says so, and the module starts: it did so before.
func (a *Agent) addData(mounts []sandbox.Mount, s supervisor.Seat) ([]sandbox.Mount, error) {
	m := s.Module
	bound := cmp.Or(m.Settings.Data, int64(a.cfg.Modules.Data))
	for n, p := range places(m, s.Image.Volumes) {
		dir := filepath.Join(a.volumesDir(m.Name), p.name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		if bound > 0 {
			means, err := quota.Bound(dir, bound, s.IDBase+uint32(n))
			switch {
			case errors.Is(err, quota.ErrUnbounded):
				a.log.Warn("data directory is not bounded", "module", m.Name, "path", p.target, "err", err)
			case err != nil:
				return nil, err
			default:
				a.log.Info("data directory is bounded", "module", m.Name, "path", p.target, "bytes", bound, "by", string(means))
			}
		}
		mounts = append(mounts, sandbox.Mount{Source: dir, Target: p.target, Writable: !p.readOnly, Own: !p.readOnly})
	}
	return mounts, nil
}

// fullPlaces lists the durable directories of a module that are bounded and hold no more, as paths inside.
func (a *Agent) fullPlaces(module string) []string {
	seat, err := a.supervisor.Seat(module)
	if err != nil {
		return nil
	}
	var whole unix.Statfs_t
	if err := unix.Statfs(a.volumesDir(module), &whole); err != nil {
		return nil
	}
	var full []string
	for _, p := range places(seat.Module, seat.Image.Volumes) {
		var st unix.Statfs_t
		err := unix.Statfs(filepath.Join(a.volumesDir(module), p.name), &st)
		// A bound is a size of its own: a project's, or that of the loop file's file system, which keeps some blocks back.
		if err == nil && st.Blocks*uint64(st.Bsize) < whole.Blocks*uint64(whole.Bsize) && st.Bavail <= st.Blocks/20 {
			full = append(full, p.target)
		}
	}
	return full
}

// releaseData unmounts what bounded a module's data.
func (a *Agent) releaseData(module string) error {
	dirs, err := os.ReadDir(a.volumesDir(module))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, d := range dirs {
		if d.IsDir() {
			err = errors.Join(err, quota.Release(filepath.Join(a.volumesDir(module), d.Name())))
		}
	}
	return err
}

// releaseAllData does so for modules that have ended.
func (a *Agent) releaseAllData() {
	for _, m := range a.supervisor.Modules() {
		if err := a.releaseData(m.Wanted.Name); err != nil {
			a.log.Warn("data directory stays mounted", "module", m.Wanted.Name, "err", err)
		}
	}
}
