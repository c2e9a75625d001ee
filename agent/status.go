package agent

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/workload"
)

// status is the agent at a glance.
func (a *Agent) status(context.Context) (control.Status, error) {
	version, result := a.supervisor.Deployment()
	st := control.Status{
		Version: a.version, Device: a.dev.id, Hub: a.dev.hub, Gateway: a.cfg.Device.Gateway, Config: a.config, Pid: os.Getpid(),
		Started: a.started, ReadySeconds: time.Duration(a.ready.Load()).Seconds(),
		Deployment: control.Deployment{Version: version, Code: result.Code, Description: result.Description},
		Links:      []control.Link{}, Modules: []control.Module{}, Queues: []control.Queue{}, Sandbox: []control.Capability{}, Problems: []string{}, Advice: a.advice,
	}
	if a.upstream != nil {
		for _, l := range a.upstream.Status() {
			st.Links = append(st.Links, control.Link{Identity: l.ID.String(), Connected: l.Connected, Since: l.Since, Sent: l.Sent, Error: l.LastError})
			if l.Dropped > 0 {
				st.Problems = append(st.Problems, fmt.Sprintf("%d messages of %s were dropped: the hub can never take them", l.Dropped, l.ID))
			}
		}
	}
	for _, m := range a.supervisor.Modules() {
		st.Modules = append(st.Modules, control.Module{
			Name: m.Wanted.Name, Type: m.Wanted.Type.String(), Image: m.Wanted.Settings.Image, Status: moduleStatus(m), Why: m.Why, Pid: m.Pid,
			Started: m.Started, Restarts: m.Restarts, ExitCode: m.ExitCode, Exited: m.Exited, Memory: int64(m.Memory), Next: m.Next, Bounds: m.Offences,
		})
		for _, what := range m.Drift {
			st.Problems = append(st.Problems, fmt.Sprintf("the sandbox of module %s differs from what was granted: %s", m.Wanted.Name, what))
		}
		for _, what := range m.Offences {
			st.Problems = append(st.Problems, fmt.Sprintf("module %s %s", m.Wanted.Name, what))
		}
	}
	for _, q := range a.store.Queue().Stats() {
		st.Queues = append(st.Queues, control.Queue{
			Sink: q.Sink, Priority: int(q.Priority), Messages: q.Messages, Bytes: q.Bytes, Oldest: q.Oldest, Expired: q.Expired,
			Dropped: q.Damaged + q.Purged + a.evictor.count(fmt.Sprintf("%s %d", q.Sink, q.Priority)),
		})
	}
	st.Transfer = a.transfer()
	a.addSandbox(&st)
	st.Routes = a.routes.list()
	st.Store = a.storeStatus()
	if err := *a.refused.Load(); err != nil {
		st.Problems = append(st.Problems, fmt.Sprintf("the configuration of before is in force, as its file is refused: %s; correct it and reload", err))
	}
	st.Problems = append(st.Problems, st.Store.Why...)
	a.syncTrouble(&st)
	unused := result.Code == deployment.CodeEmpty && len(st.Modules) == 0 // nothing is deployed yet
	if result.Code != deployment.CodeOK && result.Code != deployment.CodeUnknown && version != 0 && !unused {
		st.Problems = append(st.Problems, "the deployment is not applied: "+result.Description)
	}
	return st, nil
}

func (a *Agent) addSandbox(st *control.Status) {
	f := a.runtime.Probe()
	for _, c := range []struct {
		name string
		have bool
	}{
		{"cgroup " + f.Cgroup, f.Cgroup != ""}, {"memory limit", f.Memory}, {"swap limit", f.Swap}, {"pids limit", f.Pids}, {"cpu limit", f.CPU}, {"io limit", f.IO},
		{"user namespaces", f.UserNamespace}, {"seccomp", f.Seccomp}, {"overlay", f.Overlay}, {"exit codes kept by the kernel", f.ExitInfo},
	} {
		st.Sandbox = append(st.Sandbox, control.Capability{Name: c.name, Have: c.have})
	}
	lacks := a.bridge.lacks()
	st.Sandbox = append(st.Sandbox, control.Capability{Name: "bridge network", Have: len(lacks) == 0, Note: strings.Join(lacks, "; ")})
	st.Problems = append(st.Problems, f.Degraded...)
}

// workloadModules is the module list of the workload API.
func (a *Agent) workloadModules() []workload.Module {
	var list []workload.Module
	for _, m := range a.supervisor.Modules() {
		list = append(list, workload.Module{
			Name: m.Wanted.Name, Type: m.Wanted.Type.String(), Status: m.Status, Note: m.Why, Started: m.Started, Exited: m.Exited, Code: m.ExitCode,
		})
	}
	return list
}

// reportClients keeps $edgeHub's list of clients.
func (a *Agent) reportClients(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	a.broker.OnClients(func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	pace := time.NewTicker(time.Second)
	defer pace.Stop()
	for {
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
		list := map[string]deployment.Client{}
		for _, c := range a.broker.Clients() {
			if c.Connected || c.ID.IsModule() {
				list[deployment.ClientKey(c.ID)] = deployment.NewClient(c.Connected, c.Since)
			}
		}
		a.routes.clients(ctx, list)
		select {
		case <-pace.C:
		case <-ctx.Done():
			return nil
		}
	}
}
