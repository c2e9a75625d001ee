package agent

import (
	"errors"
	"path/filepath"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox/quota"
)

// volumesDir holds a module's durable directories, also when it is no longer part of the deployment.
func (a *Agent) volumesDir(module string) string {
	return filepath.Join(a.cfg.StateDir, "modules", module)
}

// dataDir is what a module sees as /data.
func (a *Agent) dataDir(module string) string { return filepath.Join(a.volumesDir(module), "data") }

// boundData has a module's data directory hold no more than its manifest says. The number of its first id names its project. A device
// without means to says so, and the module starts: it did so before.
func (a *Agent) boundData(m deployment.Module, idBase uint32) error {
	means, err := quota.Bound(a.dataDir(m.Name), m.Settings.Data, idBase)
	if errors.Is(err, quota.ErrUnbounded) {
		a.log.Warn("data directory is not bounded", "module", m.Name, "err", err)
		return nil
	}
	if err == nil {
		a.log.Info("data directory is bounded", "module", m.Name, "bytes", m.Settings.Data, "by", string(means))
	}
	return err
}

// releaseData unmounts what bounded the data of modules that have ended.
func (a *Agent) releaseData() {
	for _, m := range a.supervisor.Modules() {
		if err := quota.Release(a.dataDir(m.Wanted.Name)); err != nil {
			a.log.Warn("data directory stays mounted", "module", m.Wanted.Name, "err", err)
		}
	}
}
